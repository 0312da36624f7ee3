"""The job file that starts a stage's program: recipe, store, inputs and the cells to make."""

import json
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

    def input_digests(self) -> dict[str, str]:
        """{input: content digest}, for manifests."""
        return {name: committed.manifest.content_digest for name, committed in self.inputs.items()}


def read_job(path: Path | str) -> Job:
    """Read a job file, verify its inputs. Raises pydantic.ValidationError and infra.store.CorruptOutput."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    store = LocalStore(job["store"])
    return Job(
        recipe=TypeAdapter(Recipe).validate_python(job["recipe"]),
        store=store,
        metrics=MetricsFile(Path(job["metrics"])),
        inputs={name: store.open(folder) for name, folder in job["inputs"].items()},
        cells=job["cells"],
    )
