"""What a run leaves in MLflow: a parent, a child per cell, datasets, the dose-response curve, figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.settings import Settings
from infra.store import Committed
from infra.tracking import ResilientTracker, Status
from pipelines.results import DoseRow, output_metrics
from pipelines.stage_definition import Cell, Reference, StageDefinition, recipe_part
from stages.recipes import Recipe


class RunRecord:
    """The parent run and its children.

    Runs still open when the pipeline ends get the pipeline's final status.
    """

    def __init__(
        self, tracker: ResilientTracker, *, recipe: Recipe, name: str, tags: Mapping[str, Any]
    ) -> None:
        self._tracker = tracker
        self._recipe = recipe
        self._open: list[str] = []
        self.run = tracker.start_run(name, tags=tags, params=flatten(dataclasses.asdict(recipe)))
        self._open.append(self.run)

    def child(self, name: str, *, tags: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        run = self._tracker.start_run(name, parent=self.run, tags=tags, params=params)
        self._open.append(run)
        return run

    def cell(
        self,
        stage: StageDefinition,
        cell: Cell,
        fingerprint: str,
        inputs: Mapping[str, Reference],
        *,
        reused: bool,
    ) -> CellRecord:
        """Open the child run of one cell; dose, seed and arm are params and tags."""
        name = f"{stage.name}, {cell.label}" if cell.label else stage.name
        key = {field: value for field, value in cell.key.items() if value is not None}
        # A reused cell saw its settings and inputs in the run that computed it; its fingerprint leads there.
        part = {} if reused else recipe_part(dataclasses.asdict(self._recipe), stage)
        tags = {"stage": stage.name, "fingerprint": fingerprint, "reused": str(reused).lower(), **key}
        run = self.child(name, tags=tags, params={**flatten(part), **key})
        if not reused:
            for input_name, reference in inputs.items():
                self.dataset(input_name, reference, context=stage.name, run=run)
        return CellRecord(self, stage.name, run)

    def dataset(self, name: str, reference: Reference, *, context: str, run: str | None = None) -> None:
        self._tracker.log_dataset(
            run or self.run, name=name, digest=reference["digest"], source=reference["path"], context=context
        )

    def metrics(self, run: str, metrics: Mapping[str, float], *, step: int) -> None:
        self._tracker.log_metrics(run, metrics, step=step)

    def tags(self, run: str, tags: Mapping[str, Any]) -> None:
        self._tracker.set_tags(run, tags)

    def dose_response(self, rows: list[DoseRow]) -> None:
        """One point per dose on the parent, step = dose: its chart is the dose-response curve."""
        for row in rows:
            metrics = {f"dose/{name}": value for name, value in row.items() if name != "dose"}
            self._tracker.log_dose_response(self.run, dose=row["dose"], metrics=metrics)

    def report(self, folder: Path) -> None:
        """Attach the report, its verdict and its figures to the parent."""
        for name in ("report.html", "verdict.json"):
            self._tracker.log_artifact(self.run, folder / name)
        if (folder / "figures").is_dir():
            self._tracker.log_artifact(self.run, folder / "figures", "figures")

    def finish(self, run: str, status: Status = "FINISHED") -> None:
        self._tracker.finish_run(run, status)
        self._open.remove(run)

    def close(self, status: Status) -> None:
        """Give every run that is still open its true end, the parent last."""
        for run in reversed(self._open.copy()):
            self.finish(run, status)
        self._tracker.close()


class CellRecord:
    """The child run of one cell."""

    def __init__(self, record: RunRecord, stage: str, run: str) -> None:
        self._record = record
        self._stage = stage
        self._run = run

    def metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Metrics of a step, as the stage writes them."""
        self._record.metrics(self._run, metrics, step=step)

    def finish(self, committed: Committed) -> None:
        """The cell is committed: its numbers, where it lies, and the end of the run."""
        self._record.metrics(self._run, output_metrics(self._stage, committed.path), step=0)
        self._record.tags(
            self._run, {"output": str(committed.path), "content_digest": committed.manifest.content_digest}
        )
        self._record.finish(self._run)


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"pretrain": {"steps": 3}}` -> `{"pretrain.steps": 3}`, as MLflow's params are flat."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= flatten(inner, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = inner
    return flat


def how_to_open_mlflow(settings: Settings) -> str:
    """The address of the MLflow pages, or the command that serves them (and Prefect's)."""
    if settings.tracking_uri.startswith("http"):
        return settings.tracking_uri
    return f"lco up --output {settings.output}"
