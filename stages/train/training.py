"""A training from its newest checkpoint to its last step: what both stages share around their own step."""

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch

from stages.recipes import EngineConfig
from stages.train.checkpoint import Checkpoints
from stages.train.engine import Optimization, build_engine, global_sum
from stages.train.lean_deepspeed import deepspeed
from stages.train.ledger import Counts, Step, peak_memory_gib

Draw = TypeVar("Draw")


class Preempted(Exception):
    """The training was asked to stop (SIGTERM); a checkpoint is saved."""


@dataclass(kw_only=True)
class Training:
    """A training in progress. `steps`: the ledger so far, also of runs that were interrupted."""

    engine: deepspeed.DeepSpeedEngine
    steps: list[Step]
    checkpoints: Checkpoints | None
    checkpoint_steps: int


def begin(
    root: torch.nn.Module,
    config: EngineConfig,
    optimization: Optimization,
    *,
    checkpoints: Checkpoints | None,
    below: int,
) -> Training:
    """Build the engine, from the newest checkpoint of fewer than `below` steps if there is one.

    Raises stages.train.checkpoint.CheckpointError.
    """
    state = checkpoints.newest(below=below) if checkpoints else None
    if state:
        state.load_weights(root)
    steps = state.steps if state else []
    engine = build_engine(root, config, optimization, first_step=len(steps))
    if state:
        state.load_optimizer(engine)
    return Training(
        engine=engine, steps=steps, checkpoints=checkpoints, checkpoint_steps=config.checkpoint_steps
    )


@dataclass(frozen=True, kw_only=True)
class Descent:
    """What one optimiser step did; counts over all ranks."""

    objective: str
    loss: float
    examples: int
    counts: Counts


def run(
    training: Training,
    draws: Iterable[Draw],
    descend: Callable[[Draw], Descent],
    *,
    last_step: int,
    on_step: Callable[[Step], None],
    on_descent: Callable[[], None] = lambda: None,
) -> None:
    """Make the remaining steps.

    Args:
        draws: this rank's share of each remaining global batch.
        descend: makes one optimiser step.
        on_step: called after every step, those of an interrupted run first: the metrics have no gap.
        on_descent: called after every step of this run, before its checkpoint.

    Raises Preempted after a SIGTERM, at the end of a step, if there are checkpoints.
    """
    checkpoints, steps = training.checkpoints, training.steps
    for step in steps:
        on_step(step)
    with stop_requests() if checkpoints else nullcontext(lambda: False) as stop_requested:
        for draw, data_seconds, began in timed(draws):
            descent = descend(draw)
            steps.append(
                Step(
                    number=len(steps) + 1,
                    objective=descent.objective,
                    loss=descent.loss,
                    examples=descent.examples,
                    label_tokens=descent.counts.label_tokens,
                    tokens=descent.counts.tokens,
                    positions=descent.counts.positions,
                    visual_tokens=descent.counts.visual_tokens,
                    oversized=descent.counts.oversized,
                    flops=descent.counts.flops,
                    seconds=time.perf_counter() - began,
                    data_seconds=data_seconds,
                    memory_gib=peak_memory_gib(),
                )
            )
            on_step(steps[-1])
            on_descent()
            if checkpoints is None:
                continue
            stop = global_sum(stop_requested()) > 0
            if stop or len(steps) % training.checkpoint_steps == 0 or len(steps) == last_step:
                checkpoints.save(training.engine, steps)
            if stop:
                checkpoints.wait()
                raise Preempted(f"stopped after step {len(steps)} of {last_step}, checkpoint saved")
    if checkpoints:
        checkpoints.wait()


def timed(items: Iterable[Draw]) -> Iterator[tuple[Draw, float, float]]:
    """Yield each item, how long it was waited for, and when the wait began (seconds)."""
    began = time.perf_counter()
    for item in items:
        yield item, time.perf_counter() - began, began
        began = time.perf_counter()


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Inside the block a SIGTERM ends nothing: it is noted, for the end of the step."""
    noted: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: noted.append(number))
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGTERM, before)
