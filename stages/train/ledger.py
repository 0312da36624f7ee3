"""The ledger of a training: what every optimiser step cost and what it learned.

Counts and losses are the same whenever the same training runs, and are committed with its output. Times and
memory are not, and go to the journal only.
"""

import json
import resource
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch

from infra.devices import device_called
from stages.backbones.backbone import family_of
from stages.train.batches import Pass
from stages.train.config import EngineConfig
from stages.train.engine import global_sums
from stages.train.flops import TrainedParts, training_flops, workload
from stages.train.sequences import TokenSequence

MEASURED = ("seconds", "data_seconds", "memory_gib")
_SUMMED = ("examples", "label_tokens", "tokens", "visual_tokens", "flops", "seconds", "data_seconds")
AVERAGED_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step. Counts are over all ranks; times and memory are this rank's."""

    number: int
    """1-based."""
    objective: str
    loss: float | None
    """Nats per label token, per summary, or per anchor; None where it was not finite."""
    skipped: Literal["loss", "gradient"] | None = None
    """What was not finite, so that the step was not made: see `stages.train.divergence`."""
    examples: int
    label_tokens: int
    """What the loss is divided by."""
    tokens: int
    """Decoder positions of sequences."""
    positions: int
    """The same with padding and fillers."""
    visual_tokens: int
    oversized: int
    """Samples that were left out because they are over the token budget."""
    flops: int
    """Model FLOPs: stages.train.flops."""
    seconds: float
    """The whole step, waiting for data included."""
    data_seconds: float
    """Waiting for data."""
    memory_gib: float
    """Peak so far: resident memory, or allocated on the accelerator where there is one."""


def counts_of(
    sequences: Sequence[TokenSequence],
    micro_batches: Sequence[Sequence[Pass]],
    model: torch.nn.Module,
    trained: TrainedParts,
    *,
    label_tokens: int,
    logits: int,
    oversized: int = 0,
) -> dict[str, int]:
    """Return the counts of a `Step`, summed over all ranks.

    Of this rank: its sequences, the passes that they became, and `logits`, how many positions pass the
    language-model head.
    """
    lengths = [len(sequence) for sequence in sequences]
    grids = [sequence.grid for sequence in sequences if sequence.grid is not None]
    shape = family_of(model).shape(model.config)
    work = workload(shape, lengths=lengths, label_positions=logits, grids=grids)
    own = {
        "label_tokens": label_tokens,
        "tokens": sum(lengths),
        "positions": sum(one.batch.input_ids.numel() for passes in micro_batches for one in passes),
        "visual_tokens": sum(sequence.visual_tokens for sequence in sequences),
        "oversized": oversized,
        "flops": int(training_flops(shape, work, trained)),
    }
    # float64 sums of whole numbers below 2^53 are exact: every number of ranks gives the same.
    return dict(zip(own, map(int, global_sums(list(own.values()))), strict=True))


def steps_jsonl(steps: Sequence[Step]) -> str:
    """One line a step, without times and memory: equal runs give equal bytes."""
    reproducible = (
        {name: value for name, value in asdict(step).items() if name not in MEASURED} for step in steps
    )
    return "".join(json.dumps(step, sort_keys=True) + "\n" for step in reproducible)


def peak_memory_gib() -> float:
    """Peak memory of this process so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measured(steps: Sequence[Step], engine: EngineConfig) -> dict[str, float]:
    """Metrics of some steps: mean loss by objective, padding, throughput, waits and memory.

    On an accelerator whose peak is known, also the model FLOPs utilisation: `flops` over time and peak.
    """
    sums = {name: sum(getattr(step, name) for step in steps) for name in _SUMMED}
    seconds = sums["seconds"]
    costs = {
        "padding_share": padding_share(steps),
        "examples_per_second": sums["examples"] / seconds,
        "label_tokens_per_second": sums["label_tokens"] / seconds,
        "tokens_per_second": sums["tokens"] / seconds,
        "visual_tokens_per_second": sums["visual_tokens"] / seconds,
        "model_tflop_per_second": sums["flops"] / seconds / 1e12,
        "data_wait_share": sums["data_seconds"] / seconds,
        "memory_gib": max(step.memory_gib for step in steps),
    }
    device = device_called(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    if device and engine.precision in device.peak_flops:
        peak = device.peak(engine.precision) * engine.processes
        costs["model_flops_utilization"] = sums["flops"] / (seconds * peak)
    means = {name.replace("_", "/", 1): mean for name, mean in losses(steps).items()}
    return means | {f"resources/{name}": value for name, value in costs.items()}


def losses(steps: Sequence[Step]) -> dict[str, float]:
    """Mean loss by objective over the last hundred of `steps`, as an output's facts name it; skipped ones
    left out."""
    recent = [step for step in steps[-AVERAGED_STEPS:] if not step.skipped]
    by_objective = {
        objective: [step.loss for step in recent if step.objective == objective]
        for objective in sorted({step.objective for step in recent})
    }
    return {f"loss_{objective}": sum(values) / len(values) for objective, values in by_objective.items()}


def padding_share(steps: Sequence[Step]) -> float:
    """Share of decoder positions that were padding or fillers."""
    return 1 - sum(step.tokens for step in steps) / sum(step.positions for step in steps)
