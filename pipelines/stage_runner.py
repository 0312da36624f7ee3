"""Run one stage: reuse what is committed, compute the rest in one supervised process, hand on references."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.launcher import Launcher
from infra.settings import Settings
from infra.store import Committed, LocalStore
from pipelines.console import Reporter, clock_time
from pipelines.record import CellRecord, RunRecord
from pipelines.stage_definition import (
    Cell,
    Reference,
    StageDefinition,
    cell_fingerprint,
    training_fingerprint,
)
from stages.law.cells import place_in_words
from stages.recipes import Recipe


class OutputMissing(Exception):
    """A stage ended well but did not commit what it was asked for."""


@dataclass(frozen=True, kw_only=True)
class PipelineRun:
    """What the stages of one run share. `logs` is this run's own folder."""

    recipe: Recipe
    settings: Settings
    logs: Path
    stages: Mapping[str, StageDefinition]
    launcher: Launcher
    reporter: Reporter
    record: RunRecord

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.settings.store_root)


def reference(committed: Committed, key: Mapping[str, Any] | None = None) -> Reference:
    """What a task hands on about an output."""
    return {**(key or {}), "path": str(committed.path), "digest": committed.manifest.content_digest}


def run_stage(
    run: PipelineRun, name: str, *, inputs: Mapping[str, Reference], cells: Sequence[Cell]
) -> list[Reference]:
    """The outputs of all `cells`, in their order; only those without a committed output are computed.

    Raises infra.process.ProcessFailed when the stage's process fails, OutputMissing when it left something
    out, infra.store.CorruptOutput when a committed output is damaged.
    """
    stage = run.stages[name]
    digests = {input_name: reference["digest"] for input_name, reference in inputs.items()}
    named = {cell_fingerprint(stage, run.recipe, cell, digests): cell for cell in cells}
    found = {digest: run.store.find(name, digest) for digest in named}
    missing = {digest: cell for digest, cell in named.items() if found[digest] is None}
    work = _StageWork(run=run, stage=stage, inputs=inputs, named=named, missing=missing)
    for digest, committed in found.items():
        if committed is not None:
            work.record_of(digest, reused=True).finish(committed)
    if missing:
        work.compute()
        found |= {digest: work.committed(digest) for digest in missing}
    run.reporter.stage_finished(work.summary())
    return [reference(found[digest], cell.key) for digest, cell in named.items()]


@dataclass(kw_only=True)
class _StageWork:
    """One execution of a stage: its job file, its events, its tracked cells."""

    run: PipelineRun
    stage: StageDefinition
    inputs: Mapping[str, Reference]
    named: Mapping[str, Cell]
    missing: Mapping[str, Cell]
    began: float = field(default_factory=time.monotonic)
    folder: Path | None = None
    """Job file, log and metrics of this execution; None while there is none."""
    _records: dict[str, CellRecord] = field(default_factory=dict)
    _closed: set[str] = field(default_factory=set)
    _progress: dict[int, tuple[int, int]] = field(default_factory=dict)
    """{worker: (done, total)}, as each one told last."""

    def record_of(self, digest: str, *, reused: bool = False) -> CellRecord:
        cell = self.named[digest]
        return self.run.record.cell(self.stage, cell, digest, self.inputs, reused=reused)

    def compute(self) -> None:
        """Run the stage's program for the missing cells, to its end."""
        run, stage = self.run, self.stage
        folder = self.folder = _new_folder(run.logs, stage.name)
        job_path, metrics_path = folder / "job.json", folder / "metrics.jsonl"
        job_path.write_text(
            json.dumps(self._job(metrics_path), ensure_ascii=False, indent=1), encoding="utf-8"
        )
        run.reporter.stage_started(
            stage.title, cells=len(self.missing), reused=len(self.named) - len(self.missing)
        )
        try:
            run.launcher.run(
                stage.module,
                job_path,
                processes=self._processes_per_cell() * self._workers(len(self.missing)),
                # Of all cells: a run that goes on must train with as many threads as one in one go.
                sharing_cores=self._processes_per_cell() * self._workers(len(self.named)),
                log_path=folder / "output.log",
                metrics_path=metrics_path,
                on_event=self._event,
            )
        except BaseException:
            self._close_committed()
            # The bar must not stay on the screen below the error's message.
            run.reporter.stage_finished(
                f"{stage.title}: stopped after {clock_time(time.monotonic() - self.began)}"
            )
            raise

    def _job(self, metrics_path: Path) -> dict[str, Any]:
        return {
            "stage": self.stage.name,
            "recipe": dataclasses.asdict(self.run.recipe),
            "store": str(self.run.settings.store_root),
            "metrics": str(metrics_path),
            # The day only: it enters a committed file, which is to be the same when it is made again.
            "provenance": {"date": time.strftime("%Y-%m-%d", time.gmtime())},
            "inputs": {name: reference["path"] for name, reference in self.inputs.items()},
            "processes_per_cell": self._processes_per_cell(),
            "cells": [
                {"fingerprint": digest, "training": self._training(cell), **cell.key, **cell.job}
                for digest, cell in self.missing.items()
            ],
        }

    def _training(self, cell: Cell) -> str:
        digests = {name: reference["digest"] for name, reference in self.inputs.items()}
        return training_fingerprint(self.stage, self.run.recipe, cell, digests)

    def _processes_per_cell(self) -> int:
        return getattr(self.run.recipe, self.stage.name).engine.processes if self.stage.distributed else 1

    def _workers(self, cells: int) -> int:
        """How many of so many cells are computed side by side."""
        if not self.stage.independent_cells:
            return 1
        return min(cells, max(1, self.run.settings.processes // self._processes_per_cell()))

    def _event(self, event: dict[str, Any]) -> None:
        """One line of the metrics file: show it, track it."""
        digest = event["cell"]
        self._close_committed()
        self._progress[event["worker"]] = (event["done"], event["total"])
        done, total = (sum(numbers) for numbers in zip(*self._progress.values(), strict=True))
        self.run.reporter.progress(label=event["label"], step=done, total=total, cells_done=len(self._closed))
        if digest in self.missing:  # also one that is closed: its last lines may be read after its commit
            self._record(digest).metrics(event.get("metrics") or {}, step=event["step"])

    def _record(self, digest: str) -> CellRecord:
        if digest not in self._records:
            self._records[digest] = self.record_of(digest)
        return self._records[digest]

    def _close_committed(self) -> None:
        """Give a cell its end in MLflow when it is committed, not when the whole stage ends."""
        for digest in self.missing:
            if digest not in self._closed and self.run.store.path(self.stage.name, digest).exists():
                self.committed(digest)

    def committed(self, digest: str) -> Committed:
        """The output of a cell that was just computed. Raises OutputMissing."""
        committed = self.run.store.find(self.stage.name, digest)
        if committed is None:
            label = place_in_words(self.named[digest].key) or "its only output"
            raise OutputMissing(
                f"{self.stage.module} ended well but did not commit {label} "
                f"as {self.stage.name}/{digest}: see {self.folder / 'output.log'}"
            )
        if digest not in self._closed:
            self._record(digest).finish(committed)
            self._closed.add(digest)
        return committed

    def summary(self) -> str:
        computed, reused = len(self.missing), len(self.named) - len(self.missing)
        if not computed:
            return f"{self.stage.title}: reused ({reused} of {reused})"
        again = f", {reused} reused" if reused else ""
        took = clock_time(time.monotonic() - self.began)
        return f"{self.stage.title}: done, {computed} computed{again} ({took})"


def _new_folder(logs: Path, stage: str) -> Path:
    """A folder for one execution of a stage: `refine`, and `refine-2` when a run executes it again."""
    earlier = len(list(logs.glob(f"{stage}*")))
    folder = logs / (f"{stage}-{earlier + 1}" if earlier else stage)
    folder.mkdir(parents=True)
    return folder
