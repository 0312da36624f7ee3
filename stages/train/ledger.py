"""The ledger of a training: what every optimiser step cost and what it learned.

Counts and losses are the same whenever the same training runs, and are committed with its output. Times and
memory are not, and go to the metrics file only.
"""

import resource
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import torch

from stages.train.engine import global_sums

_MEASURED = ("seconds", "data_seconds", "memory_gib")
AVERAGED_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step. Counts are over all ranks; times and memory are this rank's."""

    number: int
    """1-based."""
    objective: str
    loss: float
    """Nats per label token, per summary, or per anchor."""
    examples: int
    label_tokens: int
    """What the loss was divided by."""
    tokens: int
    """Decoder positions of sequences."""
    positions: int
    """The same with padding and fillers."""
    visual_tokens: int
    oversized: int
    """Samples that were left out because they are over the token budget."""
    seconds: float
    """The whole step, waiting for data included."""
    data_seconds: float
    """Waiting for data."""
    memory_gib: float
    """Peak so far: resident memory, or allocated on the accelerator where there is one."""

    def reproducible(self) -> dict:
        """The fields that an equal run has again."""
        return {name: value for name, value in asdict(self).items() if name not in _MEASURED}


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a step holds; see `Step`."""

    label_tokens: int
    tokens: int
    visual_tokens: int
    positions: int
    oversized: int = 0

    def over_ranks(self) -> "Counts":
        """Sum over all ranks."""
        names = [field.name for field in fields(self)]
        totals = global_sums([getattr(self, name) for name in names])
        return Counts(**{name: int(total) for name, total in zip(names, totals, strict=True)})


def peak_memory_gib() -> float:
    """Peak memory of this process so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def summary(steps: Sequence[Step]) -> dict[str, float]:
    """Mean loss by objective over the last hundred of `steps`, their throughput, padding and waits."""
    recent = steps[-AVERAGED_STEPS:]
    if not recent:
        return {}
    seconds = sum(step.seconds for step in recent)
    rates = {
        "examples_per_second": sum(step.examples for step in recent) / seconds,
        "label_tokens_per_second": sum(step.label_tokens for step in recent) / seconds,
        "tokens_per_second": sum(step.tokens for step in recent) / seconds,
        "visual_tokens_per_second": sum(step.visual_tokens for step in recent) / seconds,
        "data_wait_share": sum(step.data_seconds for step in recent) / seconds,
        "memory_gib": max(step.memory_gib for step in recent),
    }
    return losses(recent) | {"padding_share": padding_share(recent)} | rates


def losses(steps: Sequence[Step]) -> dict[str, float]:
    """Mean loss by objective over the last hundred of `steps`."""
    recent = steps[-AVERAGED_STEPS:]
    by_objective = {
        objective: [step.loss for step in recent if step.objective == objective]
        for objective in sorted({step.objective for step in recent})
    }
    return {f"loss_{objective}": sum(values) / len(values) for objective, values in by_objective.items()}


def padding_share(steps: Sequence[Step]) -> float:
    """Share of decoder positions that were padding or fillers."""
    return 1 - sum(step.tokens for step in steps) / sum(step.positions for step in steps)
