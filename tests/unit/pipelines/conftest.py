"""The real flows, without Prefect and without torch: their tasks are plain calls, their stages made up."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.journal import JOURNAL, Journal, JournalTail
from infra.launcher import Launch
from infra.settings import Settings
from pipelines import sweep_cells
from pipelines.console import Reporter
from pipelines.flow import lco_stages, sweep_stages
from pipelines.parameters import Sweep
from pipelines.record import RunRecord
from pipelines.runner import PipelineRun
from pipelines.stage_table import Output
from stages.program import Task, read_job
from stages.recipes import Recipe, get_recipe
from tests.unit.pipelines import fake_stages
from tests.unit.pipelines.fake_documents import prepare_documents
from tests.unit.pipelines.fake_stages import FAKE_STAGES


class InProcessLauncher:
    """Runs a made-up stage here: half a second less per stage than a process."""

    def run(self, launch: Launch, on_event: Callable[[dict], None]) -> None:
        tail = JournalTail(launch.journal_path)
        try:
            fake_stages.main(launch.job_path)
        finally:
            for event in tail:
                if event["event"] == "progress":
                    on_event(event)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workplace:
    """Folders of one test, and runs of the whole pipeline in them."""

    root: Path

    @property
    def runs(self) -> Path:
        return self.root / "output" / "runs"

    def write(self, which: str, name: str, text: str) -> None:
        folder = self.root / which
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    def recipe(self, *, doses: tuple[int, ...] = (0, 32), seeds: tuple[int, ...] = (0,)) -> Recipe:
        tiny = self.with_documents(get_recipe("tiny"))
        return dataclasses.replace(
            tiny,
            pretrain=dataclasses.replace(tiny.pretrain, doses=doses),
            refine=dataclasses.replace(tiny.refine, seeds=seeds),
        )

    def with_documents(self, recipe: Recipe) -> Recipe:
        target, base = str(self.root / "target"), str(self.root / "base")
        return dataclasses.replace(recipe, target_documents=target, base_documents=base)

    def new_run(self, recipe: Recipe | None = None, **parts: Any) -> PipelineRun:
        recipe, settings = recipe or self.recipe(), Settings(output=self.root / "output")
        logs = settings.runs / str(len(list(settings.runs.glob("*"))))
        logs.mkdir(parents=True)
        usual = {"stages": FAKE_STAGES, "launcher": InProcessLauncher(), "reporter": Reporter(write=str)}
        record = RunRecord(Journal(logs / JOURNAL), recipe=recipe, name="test", tags={})
        return PipelineRun(recipe=recipe, settings=settings, logs=logs, record=record, **usual | parts)

    def run(self, recipe: Recipe | None = None, **parts: Any) -> dict[str, list[Output]]:
        """Every stage of `lco`; the outputs by stage."""
        made: dict[str, list[Output]] = {}

        def as_task(name: str, function: Callable[[], Any]) -> Any:
            result = function()
            if isinstance(result, list):
                made.setdefault(result[0].stage, []).extend(result)
            return result

        run = self.new_run(recipe, as_task=as_task, **parts)
        run.record.report(lco_stages(run))
        run.record.close("FINISHED")
        return made

    def sweep(self, parameters: Sweep) -> dict[str, list[Task]]:
        """Every stage of a sweep; see `jobs`."""
        run = self.new_run(self.with_documents(parameters.chosen_recipe()))
        sweep_stages(run, parameters.other_documents)
        run.record.close("FINISHED")
        return self.jobs(int(run.logs.name))

    def jobs(self, run: int = 0) -> dict[str, list[Task]]:
        """The cells of every job that a run started, by stage and in their order."""
        started: dict[str, list[Task]] = {}
        for path in sorted(
            (self.runs / str(run)).glob("*/job.json"), key=lambda path: path.stat().st_mtime_ns
        ):
            job = read_job(path, fake_stages.AnySettings)
            started.setdefault(job.stage, []).extend(job.tasks)
        return started

    def events(self, kind: str, run: int = 0) -> list[dict]:
        """Those of a run's journal."""
        journal = self.runs / str(run) / JOURNAL
        return [event for event in JournalTail(journal, 0) if event["event"] == kind]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    return new_workplace(tmp_path, monkeypatch)


def new_workplace(root: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """Two folders of documents, which hold no PDFs; made-up stages start from no model."""
    monkeypatch.setattr(sweep_cells, "base_model_digest", lambda recipe: "made up")
    monkeypatch.setattr("data_prep.prepare.prepare_documents", prepare_documents)
    for name in ("require_enough_to_run", "require_enough_to_sweep"):
        monkeypatch.setattr(f"pipelines.flow.{name}", lambda *documents: None)
    place = Workplace(root=root)
    place.write("target", "a.txt", "trang")
    place.write("base", "a.txt", "page")
    return place


def changed(before: Mapping[str, list[Output]], after: Mapping[str, list[Output]]) -> set[str]:
    """Names of the stages of which some output lies elsewhere than before."""
    known = {one.path for outputs in before.values() for one in outputs}
    return {stage for stage, outputs in after.items() if not {one.path for one in outputs} <= known}
