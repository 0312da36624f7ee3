"""Run one stage: reuse what is committed, compute the rest in one launch, hand on typed references."""

import itertools
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from infra.launcher import Launch, Launcher, threads_of_each
from infra.mirrored_store import store_of
from infra.settings import Settings
from infra.store import Committed, Store
from pipelines.console import Reporter, clock_time
from pipelines.record import RunRecord
from pipelines.stage_table import STAGES, Output, Stage, Work
from stages.recipes import Recipe

Result = TypeVar("Result")


class OutputMissing(Exception):
    """A stage ended well but did not commit what it was asked for."""


@dataclass(frozen=True, kw_only=True)
class PipelineRun:
    """What the stages of one run share. `logs` is this run's own folder.

    `as_task`: calls a function as a task of that name; the flow gives Prefect's.
    """

    recipe: Recipe
    settings: Settings
    logs: Path
    launcher: Launcher
    reporter: Reporter
    record: RunRecord
    stages: Mapping[str, Stage] = field(default_factory=lambda: STAGES)
    as_task: Callable[[str, Callable[[], Result]], Result] = lambda name, function: function()

    @property
    def store(self) -> Store:
        return run_store(self.settings)

    def stage(
        self, name: str, work: Sequence[Work], documents: Mapping[str, Output] | None = None, **others: Output
    ) -> list[Output]:
        """`run_stage` as a task: it reads what its entry names of `documents`, and `others`."""
        stage = self.stages[name]
        inputs = {one: documents[one] for one in stage.reads} | others
        return self.as_task(stage.title, lambda: run_stage(self, name, inputs=inputs, work=work))


def run_store(settings: Settings) -> Store:
    """Where a run's outputs are. What was read of single documents is not published: its splits are."""
    return store_of(settings.store_folder, settings.bucket, only_here=("document",))


def run_stage(
    run: PipelineRun, name: str, *, inputs: Mapping[str, Output], work: Sequence[Work]
) -> list[Output]:
    """The outputs of all `work`, in its order; only cells without a committed output are computed, each once.

    Raises infra.process.ProcessFailed when a process fails, OutputMissing when it left something out,
    infra.store.CorruptOutput when a committed output is damaged.
    """
    stage = run.stages[name]
    names = [stage.fingerprint(run.recipe, one.cell, _digests(inputs, one)) for one in work]
    found = {one: run.store.find(name, one) for one in dict.fromkeys(names)}
    named = dict(zip(names, work, strict=True))  # of equal cells, any one is computed for all
    missing = {one: named[one] for one, committed in found.items() if committed is None}
    execution = _Execution(run=run, stage=stage, inputs=inputs, cells=len(found), missing=missing)
    if missing:
        found |= execution.run_program()
    outputs = [
        Output.of(found[digest], one.cell, one.inputs) for digest, one in zip(names, work, strict=True)
    ]
    again = {digest: one for digest, one in zip(names, outputs, strict=True) if digest not in missing}
    if again:
        run.record.reused(stage, again, found)
    run.reporter.stage_finished(execution.summary() + _skipped_steps(stage, found.values()))
    return outputs


def _digests(inputs: Mapping[str, Output], work: Work) -> dict[str, str]:
    return {name: one.digest for name, one in {**inputs, **work.inputs}.items()}


@dataclass(kw_only=True)
class _Execution:
    """One execution of a stage's program, for the cells that are missing."""

    run: PipelineRun
    stage: Stage
    inputs: Mapping[str, Output]
    cells: int
    missing: Mapping[str, Work]
    began: float = field(default_factory=time.monotonic)
    committed: dict[str, Committed] = field(default_factory=dict)
    progress: dict[int, tuple[int, int]] = field(default_factory=dict)
    """{worker: (done, total)}, as each one told last."""

    def run_program(self) -> dict[str, Committed]:
        """Run it to its end; the outputs by fingerprint."""
        run, stage = self.run, self.stage
        folder = _new_folder(run.logs, stage.name)
        job = folder / "job.json"
        content = self._job()
        job.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
        run.reporter.stage_started(
            stage.title, cells=len(self.missing), reused=self.cells - len(self.missing)
        )
        for digest, work in self.missing.items():
            run.record.begin(stage, work, digest, self.inputs)
        launch = Launch(
            module=stage.program,
            job_path=job,
            processes=self._processes(len(self.missing)),
            # They decide the last digits of a sum: all cells share the cores, not those that are left to do,
            # or a run that goes on would train otherwise than one in one go.
            threads=threads_of_each(self._processes(self.cells)),
            log_path=folder / "output.log",
            journal_path=run.record.journal.path,
        )
        trainings = tuple(f"{task['training']}-" for task in content["tasks"])
        try:
            with run.store.following("checkpoint", lambda name: name.startswith(trainings)):
                run.launcher.run(launch, self._on_event)
        except BaseException:
            self._close_committed()
            # The bar must not stay on the screen below the error's message.
            took = clock_time(time.monotonic() - self.began)
            run.reporter.stage_finished(f"{stage.title}: stopped after {took}")
            raise
        self._close_committed()
        for digest, work in self.missing.items():
            if digest not in self.committed:
                label = work.cell.words if stage.has_places else "its only output"
                raise OutputMissing(
                    f"{stage.program} ended well but did not commit {label} "
                    f"as {stage.name}/{digest}: see {folder / 'output.log'}"
                )
        return self.committed

    def _job(self) -> dict[str, Any]:
        """What `stages.program.read_job` reads."""
        run, stage = self.run, self.stage
        return {
            "stage": stage.name,
            "settings": asdict(stage.settings(run.recipe)),
            "store": str(run.settings.store_folder),
            "journal": str(run.record.journal.path),
            # The day only: it enters a committed file, which is to be the same when it is made again.
            "provenance": {"date": time.strftime("%Y-%m-%d", time.gmtime()), "recipe": run.recipe.name},
            "inputs": {name: one.to_json() for name, one in self.inputs.items()},
            "processes_per_cell": stage.processes(run.recipe),
            "tasks": [
                {
                    "cell": work.cell.to_json(),
                    "fingerprint": digest,
                    "training": stage.training(run.recipe, work.cell, _digests(self.inputs, work)),
                    "inputs": {name: one.to_json() for name, one in work.inputs.items()},
                }
                for digest, work in self.missing.items()
            ],
        }

    def _processes(self, cells: int) -> int:
        """Ranks that so many cells would take, side by side where they may."""
        of_one = self.stage.processes(self.run.recipe)
        most = max(1, self.run.settings.processes // of_one) if self.stage.independent else 1
        return of_one * min(cells, most)

    def _on_event(self, event: Mapping[str, Any]) -> None:
        """Progress that the program appended to the journal: show it."""
        self._close_committed()
        self.run.record.cost(self.stage.name, event["run"], event["metrics"])
        self.progress[event["worker"]] = (event["done"], event["total"])
        done, total = (sum(numbers) for numbers in zip(*self.progress.values(), strict=True))
        self.run.reporter.progress(
            label=event["label"], step=done, total=total, cells_done=len(self.committed)
        )

    def _close_committed(self) -> None:
        """Give a cell its end in MLflow when it is committed, not when the whole stage ends."""
        for digest in [one for one in self.missing if one not in self.committed]:
            committed = self.run.store.find(self.stage.name, digest)
            if committed is not None:
                self.committed[digest] = committed
                self.run.record.finish(self.stage, digest, committed)

    def summary(self) -> str:
        computed, reused = len(self.missing), self.cells - len(self.missing)
        if not computed:
            return f"{self.stage.title}: reused ({reused} of {reused})"
        again = f", {reused} reused" if reused else ""
        took = clock_time(time.monotonic() - self.began)
        return f"{self.stage.title}: done, {computed} computed{again} ({took})"


def _skipped_steps(stage: Stage, found: Iterable[Committed]) -> str:
    """Of the training that skipped most; nothing where none did."""
    counts = [one.json("training.json").get("skipped_steps", 0) for one in found if stage.milestone]
    most = max(counts, default=0)
    return f"; up to {most} steps of a training were skipped: loss or gradient not finite" if most else ""


def new_run_folder(runs: Path, name: str) -> Path:
    """A new folder for one run: the time and what is harmless of `name`, which anybody may have chosen."""
    harmless = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:60]
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{harmless}"
    for number in itertools.count(1):
        folder = runs / (f"{stem}-{number}" if number > 1 else stem)
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder


def _new_folder(logs: Path, stage: str) -> Path:
    """A folder for one execution of a stage: `refine`, and `refine-2` when a run executes it again."""
    earlier = len(list(logs.glob(f"{stage}*")))
    folder = logs / (f"{stage}-{earlier + 1}" if earlier else stage)
    folder.mkdir(parents=True)
    return folder
