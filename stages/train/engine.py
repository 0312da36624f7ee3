"""The DeepSpeed engine that both training stages use, and the few facts about ranks that they need.

A stage hands over a root module whose forward returns a *sum* of losses, and says by how many label tokens
(or rows), counted over all ranks, the sum is divided. The gradient is then that of the mean over the global
batch, whatever the number of ranks and however the rows are spread over them.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import distributed

from stages.train.batches import Pass, collate, plan_micro_batches
from stages.train.config import BUCKET_ELEMENTS, EngineConfig
from stages.train.lean_deepspeed import deepspeed
from stages.train.sequences import SequenceBuilder, TokenSequence

RENDEZVOUS = "LCO_RENDEZVOUS"
"""Environment variable: a folder in which the ranks of one launch find each other, theirs alone."""


def start_process_group(processes: int = 1) -> None:
    """Join the other ranks of this worker: `processes` consecutive ones of those that the launcher started.

    They find each other through a file in the folder that LCO_RENDEZVOUS names. DeepSpeed's shared-memory
    operator would be compiled here (minutes, and a compiler); gloo does its work.
    """
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    os.environ.setdefault("LOCAL_RANK", "0")
    number, own_rank = divmod(int(os.environ.get("RANK", "0")), processes)
    if processes == 1:
        store = distributed.HashStore()
    else:
        store = distributed.FileStore(os.path.join(os.environ[RENDEZVOUS], f"worker-{number}"), processes)
    distributed.init_process_group("gloo", store=store, rank=own_rank, world_size=processes)
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)


def rank() -> int:
    return distributed.get_rank()


def world_size() -> int:
    return distributed.get_world_size()


def schedule(warmup_steps: int, *, decay_steps: int = 0, last_step: int = 0) -> Callable[[int], float]:
    """Learning-rate factor of a step, counted from 0: a linear warm-up, then 1.

    With `decay_steps` also a linear fall to 0 at `last_step`; without, it does not depend on where the run
    ends.
    """

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, warmup_steps))
        return min(warm, max(0.0, (last_step - step) / decay_steps)) if decay_steps else warm

    return factor


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How the optimiser steps."""

    learning_rate: float
    schedule: Callable[[int], float]
    """See `schedule`."""
    weight_decay: float
    max_gradient_norm: float


def build_engine(
    root: torch.nn.Module, config: EngineConfig, optimization: Optimization, *, first_step: int = 0
) -> deepspeed.DeepSpeedEngine:
    """Wrap `root` for training with AdamW under the ZeRO stage and precision of `config`.

    `first_step`: where the learning-rate schedule begins, counted from 0.
    """
    parameters = [parameter for parameter in root.parameters() if parameter.requires_grad]
    # DeepSpeed makes a buffer of this size even for a small adapter.
    bucket = min(sum(parameter.numel() for parameter in parameters), BUCKET_ELEMENTS)
    # The micro-batch only feeds DeepSpeed's bookkeeping: token budgets decide how many rows one has.
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimization.max_gradient_norm,
        "zero_optimization": {"stage": config.zero_stage, "reduce_bucket_size": bucket},
        "bf16": {"enabled": config.precision == "bfloat16"},
        "zero_allow_untested_optimizer": True,
    }
    optimizer = torch.optim.AdamW(
        parameters,
        lr=optimization.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=optimization.weight_decay,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: optimization.schedule(first_step + step)
    )
    engine, *_ = deepspeed.initialize(
        model=root, model_parameters=parameters, optimizer=optimizer, lr_scheduler=scheduler, config=settings
    )
    return engine


def global_sum(value: float) -> float:
    """Sum a number over all ranks."""
    return global_sums([value])[0]


def global_sums(values: Sequence[float]) -> list[float]:
    """Sum several numbers over all ranks."""
    totals = torch.tensor([float(value) for value in values], dtype=torch.float64)
    distributed.all_reduce(totals)
    return totals.tolist()


def agreed_plan(micro_batches: Sequence[Sequence[bool]]) -> list[list[bool]]:
    """Return the forward passes that every rank makes in this step, so that all run the same collectives.

    Args:
        micro_batches: for each micro-batch of this rank, for each of its buckets, whether it has an image.

    Under ZeRO 3 each forward pass gathers parameters: a rank with fewer passes, or without an image where
    another has one, would leave the others waiting for ever. It runs the missing ones with a filler.
    """
    shape = torch.tensor([len(micro_batches), max(map(len, micro_batches), default=0)])
    distributed.all_reduce(shape, distributed.ReduceOp.MAX)
    needed = torch.zeros(*shape.tolist(), dtype=torch.int8)  # 0: no pass, 1: a text, 2: an image
    for number, buckets in enumerate(micro_batches):
        needed[number, : len(buckets)] = torch.tensor(buckets, dtype=torch.int8) + 1
    distributed.all_reduce(needed, distributed.ReduceOp.MAX)
    return [[kind == 2 for kind in row if kind] for row in needed.tolist()]


def plan_passes(
    sequences: Sequence[TokenSequence],
    builder: SequenceBuilder,
    config: EngineConfig,
    *,
    always_an_image: bool = False,
) -> list[list[Pass]]:
    """Return the micro-batches of this rank's sequences, completed to what all ranks run; a collective.

    `always_an_image`: also where no rank has one. A vision tower that is trained must get a gradient in every
    step, if only zero: ZeRO 0 and 3 would leave it out of the step, 1 and 2 would decay it.
    """

    def has_image(numbers: Sequence[int]) -> bool:
        return any(sequences[number].patches is not None for number in numbers)

    def one_pass(numbers: Sequence[int], image: bool) -> Pass:
        rows = [sequences[number] for number in numbers]
        lacks_image = image and not has_image(numbers)
        if lacks_image or not rows:
            rows.append(builder.filler(with_image=lacks_image))
        batch = collate(rows, pad_token=builder.pad_token, packed=config.packing)
        return Pass(batch=batch, numbers=list(numbers))

    own = plan_micro_batches(sequences, config)
    agreed = agreed_plan([list(map(has_image, buckets)) for buckets in own])
    if agreed and always_an_image:
        agreed[0][0] = True
    return [
        [one_pass(numbers, image) for numbers, image in zip_longest(buckets, images, fillvalue=())]
        for buckets, images in zip_longest(own, agreed, fillvalue=())
    ]


def step_engine(
    engine: deepspeed.DeepSpeedEngine, losses: Iterable[torch.Tensor], global_count: float
) -> tuple[float, bool]:
    """Descend along the gradient of the sum of `losses` over ranks, divided by `global_count`.

    Where that gradient or a loss is not finite the step is skipped on all ranks: weights and moments stay as
    they are, the learning-rate schedule goes on.

    Args:
        losses: one scalar a micro-batch, each computed when it is asked for, so that only one graph lives
            at a time. Equally many on every rank.

    Returns:
        That quotient, and whether the step was made: both the same on every rank. DeepSpeed averages
        gradients over ranks, hence the factor.
    """
    total = 0.0
    with one_reduction(engine):
        for loss in losses:
            engine.backward(spoiled_if_not_finite(loss) * (world_size() / global_count))
            total += float(loss.detach())
    made = _step_if_finite(engine)
    return global_sum(total) / global_count, made


def spoiled_if_not_finite(loss: torch.Tensor) -> torch.Tensor:
    """The loss itself. One that is not finite becomes NaN and has a gradient of NaN, whatever it was.

    Summed over ranks it spoils everyone's: all skip the step, with no message of their own.
    """
    return loss * (1 + 0 * loss.detach())  # 0 times infinity is NaN; of a finite loss no digit changes


def _step_if_finite(engine: deepspeed.DeepSpeedEngine) -> bool:
    """Make the step if the reduced gradient is finite; say whether it was."""
    # Every optimiser of DeepSpeed's own looks at the gradient; ZeRO 0 in float32 has torch's, which does not.
    looks_itself = hasattr(engine.optimizer, "overflow")
    if looks_itself or bool(_gradient_norm(engine.module).isfinite()):
        engine.step()
        if engine.was_step_applied():
            return True
    else:
        engine.zero_grad()
    engine.lr_scheduler.step()  # DeepSpeed holds it back where it skips a step
    return False


def _gradient_norm(root: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.get_total_norm(
        parameter.grad for parameter in root.parameters() if parameter.grad is not None
    )


def weights_are_finite(engine: deepspeed.DeepSpeedEngine) -> bool:
    """Whether all trained weights are; a collective. Under ZeRO 3 each rank looks at its part."""
    broken = sum(
        not bool(getattr(parameter, "ds_tensor", parameter).isfinite().all())
        for parameter in engine.module.parameters()
        if parameter.requires_grad
    )
    return global_sum(broken) == 0


@contextmanager
def one_reduction(engine: deepspeed.DeepSpeedEngine) -> Iterator[None]:
    """Reduce gradients over ranks once, after all backward passes inside the block."""
    if engine.zero_optimization_stage() > 0:
        with engine.coalesce_grad_reduction():
            yield
        return
    with engine.no_sync():  # ZeRO 0, which has no coalescing
        yield
    engine.allreduce_gradients()


@contextmanager
def gathered(module: torch.nn.Module) -> Iterator[None]:
    """Have whole parameters on every rank inside the block; under ZeRO 3 they are sharded otherwise."""
    with deepspeed.zero.GatheredParameters(list(module.parameters()), modifier_rank=None):
        yield
