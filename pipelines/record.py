"""What a run leaves in MLflow: a parent, a child per cell, datasets, the dose-response curve, figures."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from infra.settings import Settings
from infra.store import Committed
from infra.tracker import Status
from infra.tracking import ResilientTracker
from pipelines.results import DoseRow, output_metrics, read_json, values
from pipelines.services import command
from pipelines.stage_definition import Cell, Reference, StageDefinition, recipe_part
from stages.law.cells import PLACE
from stages.recipes import Recipe

LEDGER = (
    "examples_per_second",
    "label_tokens_per_second",
    "tokens_per_second",
    "visual_tokens_per_second",
    "padding_share",
    "data_wait_share",
    "memory_gib",
)
"""Metrics of stages.train.ledger that say what a training cost, not what it learned."""


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
        self._cells: list[CellRecord] = []
        self.run = tracker.start_run(name, tags=tags, params=flatten(dataclasses.asdict(recipe)))
        self._open.append(self.run)

    def child(
        self,
        name: str,
        *,
        tags: Mapping[str, Any],
        params: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> str:
        run = self._tracker.start_run(name, parent=self.run, tags=tags, params=params, metrics=metrics)
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
        """The child run of one cell; its place (dose, seed, arm, ...) is params and tags.

        That of a reused cell starts when it is finished, with everything in it: a request for each thing took
        a minute. It saw its settings and inputs in the run that computed it; its fingerprint leads there.
        """
        key = {field: cell.key[field] for field in PLACE if cell.key.get(field) is not None}
        tags = {"stage": stage.name, "fingerprint": fingerprint, "reused": str(reused).lower(), **key}
        record = CellRecord(self, stage.name, name=_short_name(stage, key), tags=tags)
        self._cells.append(record)
        if not reused:
            part = recipe_part(dataclasses.asdict(self._recipe), stage)
            record.start(params={**flatten(part), **key})
            for input_name, reference in inputs.items():
                self.dataset(input_name, reference, context=stage.name, run=record.run)
        return record

    def dataset(self, name: str, reference: Reference, *, context: str, run: str | None = None) -> None:
        self._tracker.log_dataset(
            run or self.run,
            name=name.replace("_", " "),
            digest=reference["digest"],
            source=reference["path"],
            context=context,
        )

    def metrics(self, run: str, metrics: Mapping[str, float], *, step: int) -> None:
        self._tracker.log_metrics(run, metrics, step=step)

    def tags(self, run: str, tags: Mapping[str, Any]) -> None:
        self._tracker.set_tags(run, tags)

    def dose_response(self, rows: list[DoseRow]) -> None:
        """One point per dose on the parent, step = dose: its chart is the dose-response curve."""
        for row in values(rows):
            metrics = {f"dose/{name}": value for name, value in row.items() if name != "dose"}
            self._tracker.log_metrics(self.run, metrics, step=row["dose"])

    def training(self) -> dict[str, float]:
        """`{"pretrain padding_share": ...}`: what the trainings cost, the mean over the cells of a stage.

        Rates only of what this run computed: a committed output holds nothing that an equal run has not.
        """
        found: dict[str, list[float]] = {}
        for cell in self._cells:
            for name, value in cell.ledger.items():
                found.setdefault(f"{cell.stage} {name}", []).append(value)
        return {name: fmean(measured) for name, measured in found.items()}

    def page(self) -> str | None:
        """The address of the parent's page; None without a server."""
        return self._tracker.page(self.run)

    def report(self, folder: Path) -> None:
        """Attach the report, its verdict and its figures to the parent, and say what they found."""
        finding = read_json(folder, "verdict.json")
        note = [
            f"**{finding['verdict']}** {finding['decision']}",
            *(f"* {one}" for one in finding["reasons"]),
        ]
        tags = {"verdict": finding["verdict"], "report": folder / "report.html"}
        self.tags(self.run, tags | {"mlflow.note.content": "\n\n".join(note)})
        training = {f"training/{name}": value for name, value in self.training().items()}
        self.metrics(self.run, training, step=0)
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
    """The child run of one cell; `run` is its id, None before its start."""

    def __init__(self, record: RunRecord, stage: str, *, name: str, tags: Mapping[str, Any]) -> None:
        self._record = record
        self.stage = stage
        self._name = name
        self._tags = tags
        self.ledger: dict[str, float] = {}
        self.run: str | None = None

    def start(self, *, params: Mapping[str, Any]) -> None:
        self.run = self._record.child(self._name, tags=self._tags, params=params)

    def metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Metrics of a step, as the stage writes them."""
        self.ledger |= {name: value for name, value in metrics.items() if name in LEDGER}
        self._record.metrics(self.run, {grouped(name): value for name, value in metrics.items()}, step=step)

    def finish(self, committed: Committed) -> None:
        """The cell is committed: its numbers, where it lies, and the end of the run."""
        metrics = output_metrics(self.stage, committed.path)
        place = {"output": str(committed.path), "content_digest": committed.manifest.content_digest}
        self.ledger |= {name: metrics[f"summary/{name}"] for name in LEDGER if f"summary/{name}" in metrics}
        if self.run is None:
            key = {name: self._tags[name] for name in PLACE if name in self._tags}
            self.run = self._record.child(
                self._name, tags={**self._tags, **place}, params=key, metrics=metrics
            )
        else:
            self._record.metrics(self.run, metrics, step=0)
            self._record.tags(self.run, place)
        self._record.finish(self.run)


def _short_name(stage: StageDefinition, key: Mapping[str, Any]) -> str:
    """`d4800 s0 text-only 30 steps - refine`: MLflow's lists cut long names, and what differs must come
    first."""
    short = {"dose": "d{}", "pages": "{}", "seed": "s{}", "arm": "{}", "steps": "{} steps", "split": "{}"}
    usual = {"pages": "target", "split": "test"}
    place = " ".join(
        text.format(key[name]) for name, text in short.items() if name in key and key[name] != usual.get(name)
    )
    return f"{place} - {stage.name}" if place else stage.name


def grouped(metric: str) -> str:
    """A training's metric below a heading of MLflow's charts: losses first, then what they cost."""
    if metric == "loss" or metric.startswith("loss_"):
        return f"loss/{metric.removeprefix('loss_')}"
    return f"resources/{metric}" if metric in LEDGER else metric


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"pretrain": {"steps": 3}}` -> `{"pretrain.steps": 3}`, as MLflow's params are flat."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= flatten(inner, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = inner
    return flat


def how_to_open_mlflow(record: RunRecord, settings: Settings) -> str:
    """The address of the run's MLflow page, or the command that serves it (and Prefect's)."""
    return record.page() or f"{command('lco')} up --output {shlex.quote(str(settings.output))}"
