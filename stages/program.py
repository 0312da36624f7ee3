"""What every stage's program does around its own work: read its job, share cells out, tell, commit.

    def main(job_path: Path) -> None:
        job = read_job(job_path, GenerationSettings)
        samples = ...                                       # what all cells share
        for task, progress in job.cells("transcribing"):
            backbone = open_model(task.inputs, job.settings.backbone)
            job.commit(task, {"generation.json": measure(backbone, samples, on_batch=progress.alive)})

A stage is such a program and one entry in `pipelines/stage_table.py`. The pipeline has verified every input;
programs trust what their job names.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from infra.journal import Journal
from infra.store import Committed, Store, open_store
from stages.cells import Cell

Settings = TypeVar("Settings")
Work = TypeVar("Work")
SECONDS_BETWEEN_REPORTS = 30.0
"""A supervisor takes a program that says nothing for long for one that hangs."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """A committed output that a cell reads. `stage` and `cell` say what it is of."""

    path: Path
    digest: str
    stage: str
    cell: Cell


@dataclass(frozen=True, kw_only=True)
class Task:
    """One cell to make, committed under `fingerprint`; cells of one `training` are its milestones."""

    cell: Cell
    fingerprint: str
    training: str
    inputs: dict[str, Input]
    """What this cell reads alone, by name: "model", "adapter", ..."""


@dataclass(frozen=True, kw_only=True)
class Job(Generic[Settings]):
    """What one execution of a stage's program does."""

    stage: str
    settings: Settings
    store: Store
    journal: Journal
    inputs: dict[str, Input]
    """What all cells read."""
    tasks: list[Task]
    processes_per_cell: int
    provenance: dict[str, str]

    def own_tasks(self, together: str | None = None) -> list[Task]:
        """The cells of this worker: every n-th where n workers share the job.

        `together`: an input by name; cells that read the same one follow each other, at few workers.
        """
        if together is None:
            return self._share(self.tasks)
        tasks = sorted(self.tasks, key=lambda task: task.inputs[together].digest)
        number = worker(self.processes_per_cell)
        begin, end = (place * len(tasks) // self._workers for place in (number, number + 1))
        return tasks[begin:end]

    def own_trainings(self) -> list[list[Task]]:
        """The trainings of this worker, each with all its cells: every n-th of them."""
        trainings: dict[str, list[Task]] = {}
        for task in self.tasks:
            trainings.setdefault(task.training, []).append(task)
        return self._share(list(trainings.values()))

    def _share(self, work: list[Work]) -> list[Work]:
        return work[worker(self.processes_per_cell) :: self._workers]

    @property
    def _workers(self) -> int:
        return int(os.environ.get("WORLD_SIZE", "1")) // self.processes_per_cell

    def cells(
        self, doing: str, *, parts: int = 1, together: str | None = None
    ) -> Iterator[tuple[Task, "Progress"]]:
        """This worker's cells, each with its progress; `doing` names the work for people.

        `parts`: into how many parts of about equal length the work on a cell falls. `together`: see
        `own_tasks`.
        """
        own = self.own_tasks(together)
        for number, task in enumerate(own):
            progress = Progress(
                job=self, task=task, doing=doing, before=number * parts, total=len(own) * parts
            )
            yield task, progress
            progress.report(parts)

    def tell(
        self,
        task: Task,
        label: str,
        *,
        step: int,
        done: int,
        total: int,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Append to the journal: `metrics` of the task at `step`; this worker has `done` of `total`."""
        self.journal.progress(
            task.fingerprint,
            label=label,
            step=step,
            done=done,
            total=total,
            worker=worker(self.processes_per_cell),
            metrics=metrics or {},
        )

    def commit(
        self,
        task: Task,
        files: Mapping[str, Any | Callable[[Path], None]],
        *,
        counts: Mapping[str, int] | None = None,
    ) -> Committed:
        """Commit a cell's output.

        `files`: name -> JSON content, text, bytes, or a function that writes to the path.
        """
        with self.store.attempt(self.stage, task.fingerprint) as attempt:
            for name, content in files.items():
                _write(attempt.path / name, content)
            return attempt.commit(
                inputs={name: one.digest for name, one in {**self.inputs, **task.inputs}.items()},
                configuration={"cell": task.cell.to_json(), "settings": asdict(self.settings)},
                counts=dict(counts or {}),
            )


@dataclass(kw_only=True)
class Progress:
    """How far one worker is with one cell; `alive` is cheap and may be called at every batch."""

    job: Job
    task: Task
    doing: str
    before: int
    """Parts of the cells before this one."""
    total: int
    done: int = 0
    told: float = field(default_factory=time.monotonic)

    def report(self, done: int, metrics: Mapping[str, float] | None = None) -> None:
        """Tell that `done` of the cell's parts are done."""
        self.done, self.told = done, time.monotonic()
        self.job.tell(
            self.task,
            f"{self.doing}: {self.task.cell.words}",
            step=self.task.cell.dose,
            done=self.before + done,
            total=self.total,
            metrics=metrics,
        )

    def alive(self) -> None:
        """Tell that the work goes on, where nothing was told for long."""
        if time.monotonic() - self.told >= SECONDS_BETWEEN_REPORTS:
            self.report(self.done)


def read_job(path: Path | str, settings: type[Settings]) -> Job[Settings]:
    """Read a job file. Raises pydantic.ValidationError for settings that are not what the program takes."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    return Job(
        stage=job["stage"],
        settings=TypeAdapter(settings).validate_python(job["settings"]),
        store=open_store(job["store"]),
        journal=Journal(Path(job["journal"])),
        inputs=TypeAdapter(dict[str, Input]).validate_python(job["inputs"]),
        tasks=TypeAdapter(list[Task]).validate_python(job["tasks"]),
        processes_per_cell=job["processes_per_cell"],
        provenance=job["provenance"],
    )


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        path.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def worker(processes_per_cell: int) -> int:
    """Number of the worker that this rank belongs to: consecutive ranks form one."""
    return int(os.environ.get("RANK", "0")) // processes_per_cell
