"""A training from its newest checkpoint to its last step: what both stages share around their own step.

    training = Training.begin(root, config.engine, optimization, milestones, checkpoints)
    for step in training.ledger: report(step)
    for batch in training.steps(draw(step) for step in training.remaining):
        loss, made, counts = ...                        # one optimiser step
        step = training.record(
            objective="contrastive", loss=loss, made=made, examples=len(batch), counts=counts
        )
        report(step)
        if step.number in milestones: commit(...)

A stage's loop is a generator of such steps. Those of an interrupted run come first, so that who listens sees
no gap. A checkpoint behind the first milestone is not used: its weights are needed then. Without
`checkpoints` it trains from the beginning, in one go. A SIGTERM ends it with a checkpoint and Preempted; too
many skipped steps, or weights that are not finite, with DivergenceError before anything is committed.
"""

import math
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from infra.process import EXIT_PREEMPTED
from stages.train.checkpoint import Checkpoints
from stages.train.config import EngineConfig
from stages.train.divergence import DivergenceError, broken_weights, divergence
from stages.train.engine import Optimization, build_engine, global_sum, weights_are_finite
from stages.train.lean_deepspeed import deepspeed
from stages.train.ledger import Step, peak_memory_gib

Work = TypeVar("Work")


class Preempted(SystemExit):
    """The training was asked to stop (SIGTERM); a checkpoint is saved. Ends the process with its own code."""

    def __init__(self, reason: str) -> None:
        super().__init__(EXIT_PREEMPTED)
        print(reason, file=sys.stderr, flush=True)


@dataclass(kw_only=True)
class Training:
    """A training in progress."""

    engine: deepspeed.DeepSpeedEngine
    ledger: list[Step]
    """Its steps so far, also those of runs that were interrupted."""
    checkpoints: Checkpoints | None
    checkpoint_steps: int
    milestones: Collection[int]
    _began: float = 0.0
    _data_seconds: float = 0.0

    @classmethod
    def begin(
        cls,
        root: torch.nn.Module,
        config: EngineConfig,
        optimization: Optimization,
        milestones: Collection[int],
        checkpoints: Checkpoints | None,
    ) -> "Training":
        """Build the engine, from the newest checkpoint before all `milestones` if there is one.

        Raises stages.train.checkpoint.CheckpointError.
        """
        state = checkpoints.newest(below=min(milestones)) if checkpoints else None
        if state:
            state.load_weights(root)
        steps = state.steps if state else []
        engine = build_engine(root, config, optimization, first_step=len(steps))
        if state:
            state.load_optimizer(engine)
        return cls(
            engine=engine,
            ledger=steps,
            checkpoints=checkpoints,
            checkpoint_steps=config.checkpoint_steps,
            milestones=milestones,
        )

    @property
    def last_step(self) -> int:
        return max(self.milestones)

    @property
    def remaining(self) -> range:
        """Steps that are still to be made, counted from 0."""
        return range(len(self.ledger), self.last_step)

    def steps(self, batches: Iterable[Work]) -> Iterator[Work]:
        """Yield this rank's share of each remaining global batch; the caller makes its step and records it.

        After that, while the caller waits for the next one, a checkpoint is saved where one is due, at the
        end, and when the training is asked to stop: then it raises Preempted. Without checkpoints a SIGTERM
        ends the process as usual. At the end the engine is destroyed.
        """
        with _stop_requests(noted=self.checkpoints is not None) as stop_requested:
            self._began = time.perf_counter()
            for batch in batches:
                self._data_seconds = time.perf_counter() - self._began
                yield batch
                if self.checkpoints:
                    self._save_if_due(stop=global_sum(stop_requested()) > 0)
                self._began = time.perf_counter()
        if self.checkpoints:
            self.checkpoints.wait()
        self.engine.destroy()

    def _save_if_due(self, *, stop: bool) -> None:
        done = len(self.ledger)
        if stop or done % self.checkpoint_steps == 0 or done == self.last_step:
            self._require_finite_weights()
            self.checkpoints.save(self.engine, self.ledger)
        if stop:
            self.checkpoints.wait()
            raise Preempted(f"stopped after step {done} of {self.last_step}, checkpoint saved")

    def record(
        self, *, objective: str, loss: float, made: bool, examples: int, counts: Mapping[str, int]
    ) -> Step:
        """Enter the step that was just made or skipped, with its times; `counts` are over all ranks.

        Raises stages.train.divergence.DivergenceError where the training must end.
        """
        finite = math.isfinite(loss)
        self.ledger.append(
            Step(
                number=len(self.ledger) + 1,
                objective=objective,
                loss=loss if finite else None,
                skipped=None if made else "gradient" if finite else "loss",
                examples=examples,
                **counts,
                seconds=time.perf_counter() - self._began,
                data_seconds=self._data_seconds,
                memory_gib=peak_memory_gib(),
            )
        )
        self._require_learning()
        return self.ledger[-1]

    def _require_learning(self) -> None:
        at_milestone = len(self.ledger) in self.milestones
        if reason := divergence(self.ledger, at_milestone=at_milestone):
            if self.checkpoints:
                self.checkpoints.forget_streak(self.ledger)
            raise DivergenceError(reason)
        if at_milestone:
            self._require_finite_weights()

    def _require_finite_weights(self) -> None:
        if not weights_are_finite(self.engine):
            raise DivergenceError(broken_weights(len(self.ledger)))


@contextmanager
def _stop_requests(*, noted: bool) -> Iterator[Callable[[], bool]]:
    """Inside the block a SIGTERM ends nothing: it is noted, for the end of the step. Unless not `noted`."""
    requests: list[int] = []
    if not noted:
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: requests.append(number))
    try:
        yield lambda: bool(requests)
    finally:
        signal.signal(signal.SIGTERM, before)
