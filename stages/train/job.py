"""The job file that starts a stage's program: recipe, store, inputs and the cells to make."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from infra.process import MetricsFile
from infra.store import Committed, LocalStore
from stages.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one stage program does. Each cell has a `fingerprint`, under which its output is committed."""

    recipe: Recipe
    store: LocalStore
    metrics: MetricsFile
    inputs: dict[str, Committed]
    cells: list[dict[str, Any]]
    processes_per_cell: int
    provenance: dict[str, str]

    def own_cells(self) -> list[dict[str, Any]]:
        """The cells that this process works on: every n-th where n workers share the job."""
        return self._share(self.cells)

    def own_trainings(self) -> list[list[dict[str, Any]]]:
        """The trainings that this process works on, each with all its cells: every n-th of them."""
        trainings: dict[str, list[dict[str, Any]]] = {}
        for cell in self.cells:
            trainings.setdefault(cell["training"], []).append(cell)
        return self._share(list(trainings.values()))

    def _share(self, work: list[Any]) -> list[Any]:
        return work[worker(self.processes_per_cell) :: workers(self.processes_per_cell)]

    def input_digests(self) -> dict[str, str]:
        """{input: content digest}, for manifests."""
        return {name: committed.manifest.content_digest for name, committed in self.inputs.items()}


def read_job(path: Path | str) -> Job:
    """Read a job file, verify its inputs. Raises pydantic.ValidationError and infra.store.CorruptOutput."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    processes_per_cell = job["processes_per_cell"]
    store = LocalStore(job["store"])
    return Job(
        recipe=TypeAdapter(Recipe).validate_python(job["recipe"]),
        store=store,
        metrics=MetricsFile(Path(job["metrics"]), worker=worker(processes_per_cell)),
        inputs={name: store.open(folder) for name, folder in job["inputs"].items()},
        cells=job["cells"],
        processes_per_cell=processes_per_cell,
        provenance=job["provenance"],
    )


class Rhythm:
    """When a program tells how far it is: after so many units of work, or when `SECONDS` have passed.

    A supervisor takes a program that says nothing for long for one that hangs, and a step of a large model
    can take minutes.
    """

    SECONDS = 30.0

    def __init__(self, every: int) -> None:
        self._every = every
        self._told = time.monotonic()

    def due(self, done: int) -> bool:
        """Whether to tell now, `done` units in."""
        return self._tell(done % self._every == 0 or self._silent_for_long)

    def late(self) -> bool:
        """Whether to tell in the middle of a unit."""
        return self._tell(self._silent_for_long)

    @property
    def _silent_for_long(self) -> bool:
        return time.monotonic() - self._told >= self.SECONDS

    def _tell(self, now: bool) -> bool:
        if now:
            self._told = time.monotonic()
        return now


def worker(processes_per_cell: int) -> int:
    """Number of the worker that this rank of torchrun belongs to: consecutive ranks form one."""
    return int(os.environ.get("RANK", "0")) // processes_per_cell


def workers(processes_per_cell: int) -> int:
    """How many workers share the job."""
    return int(os.environ.get("WORLD_SIZE", "1")) // processes_per_cell
