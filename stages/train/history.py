"""The steps of a training as its program hears of them, told to the journal."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from stages.program import SECONDS_BETWEEN_REPORTS, Job, Task
from stages.train.config import EngineConfig
from stages.train.divergence import skipped
from stages.train.engine import rank
from stages.train.ledger import Step, measured

STEPS_BETWEEN_REPORTS = 10


@dataclass(kw_only=True)
class History:
    """All steps so far, those of interrupted runs included."""

    job: Job
    milestones: Mapping[int, Task]
    """The cell that is committed after so many steps."""
    doing: str
    engine: EngineConfig
    done: int = 0
    """Steps that the job had made before this training."""
    total: int
    """Steps of the whole job."""
    steps: list[Step] = field(default_factory=list)
    _told: float = field(default_factory=time.monotonic)

    def add(self, step: Step) -> None:
        """Note a step; rank 0 tells of it every ten steps, at milestones, and where it was silent for long.

        What it tells are metrics of the cell that comes next.
        """
        self.steps.append(step)
        silent = time.monotonic() - self._told >= SECONDS_BETWEEN_REPORTS
        due = silent or step.number % STEPS_BETWEEN_REPORTS == 0 or step.number in self.milestones
        if rank() != 0 or not due:
            return
        self._told = time.monotonic()
        task = self.milestones[min(end for end in self.milestones if end >= step.number)]
        self.job.tell(
            task,
            f"{self.doing}: {task.cell.words}",
            step=step.number,
            done=self.done + step.number,
            total=self.total,
            metrics=measured(self.steps[-STEPS_BETWEEN_REPORTS:], self.engine)
            | {"skipped_steps": len(skipped(self.steps))},
        )
