"""The pipeline without Prefect and without torch: the same tasks, called as plain functions, over made-up
stages."""

import dataclasses
import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from prefect import Task

from infra.file_tracker import FileTracker
from infra.process import MetricsTail
from infra.settings import Settings
from infra.tracking import ResilientTracker
from pipelines import flow, sweep, tasks
from pipelines.parameters import RunParameters
from pipelines.record import RunRecord
from pipelines.stage_definition import Reference, model_cells
from pipelines.stage_runner import PipelineRun
from stages.recipes import Recipe, get_recipe
from tests.unit.pipelines.fake_documents import prepare_documents
from tests.unit.pipelines.fake_stages import FAKE_STAGES


class InProcessLauncher:
    """Runs a made-up stage here: half a second less per stage than a process."""

    def run(
        self,
        module: str,
        job_path: Path,
        *,
        processes: int,
        sharing_cores: int | None = None,
        log_path: Path,
        metrics_path: Path,
        on_event,
    ) -> None:
        tail = MetricsTail(metrics_path)
        importlib.import_module(module).main(str(job_path))
        tail.deliver(on_event, final=True)


class SilentReporter:
    """Shows nothing."""

    def stage_started(self, title: str, *, cells: int, reused: int) -> None:
        pass

    def progress(self, *, label: str, step: int, total: int, cells_done: int = 0) -> None:
        pass

    def stage_finished(self, summary: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def replaced_documents(recipe: Recipe, root: Path) -> Recipe:
    return dataclasses.replace(
        recipe, target_documents=str(root / "target"), base_documents=str(root / "base")
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workplace:
    """Folders of one test, and a run of the whole pipeline in them."""

    root: Path

    def write(self, which: str, name: str, text: str) -> None:
        folder = self.root / which
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    def recipe(self, *, doses: tuple[int, ...] = (0, 32), seeds: tuple[int, ...] = (0,)) -> Recipe:
        tiny = replaced_documents(get_recipe("tiny"), self.root)
        return dataclasses.replace(
            tiny,
            pretrain=dataclasses.replace(tiny.pretrain, doses=doses),
            refine=dataclasses.replace(tiny.refine, seeds=seeds),
        )

    def new_run(self, recipe: Recipe, *, stages: Mapping = FAKE_STAGES) -> PipelineRun:
        settings = Settings(output=self.root / "output")
        number = len(list(settings.runs.glob("*")))
        tracker = ResilientTracker(
            lambda: FileTracker(self.root / f"tracking-{number}"), self.root / "pending"
        )
        return PipelineRun(
            recipe=recipe,
            settings=settings,
            logs=settings.runs / str(number),
            stages=stages,
            launcher=InProcessLauncher(),
            reporter=SilentReporter(),
            record=RunRecord(tracker, recipe=recipe, name="test", tags={}),
        )

    def sweep(self, parameters: RunParameters, *, stages: Mapping = FAKE_STAGES) -> dict[str, list[dict]]:
        """Every stage of a sweep; see `jobs`."""
        run = self.new_run(replaced_documents(sweep.sweep_recipe(parameters), self.root), stages=stages)
        run.logs.mkdir(parents=True)
        sweep.sweep_stages(run, parameters.others, prepare_documents)
        run.record.close("FINISHED")
        return self.jobs(int(run.logs.name))

    def jobs(self, run: int) -> dict[str, list[dict]]:
        """The cells of every job that a run started, by stage and in their order."""
        folder = Settings(output=self.root / "output").runs / str(run)
        started: dict[str, list[dict]] = {}
        for path in sorted(folder.glob("*/job.json"), key=lambda path: path.stat().st_mtime_ns):
            job = json.loads(path.read_text(encoding="utf-8"))
            started.setdefault(job["stage"], []).extend(job["cells"])
        return started

    def run(
        self, recipe: Recipe | None = None, *, stages: Mapping = FAKE_STAGES
    ) -> dict[str, list[Reference]]:
        """Every stage, as the flow calls them; the outputs by stage."""
        recipe = recipe or self.recipe()
        run = self.new_run(recipe, stages=stages)
        run.logs.mkdir(parents=True)
        target = tasks.prepare_target_documents.fn(run, prepare_documents)
        base = tasks.prepare_base_documents.fn(run, prepare_documents)
        pretrained = tasks.pretrain.fn(run, target, base)
        generation = tasks.generation_quality.fn(run, pretrained, target, base)
        negatives = tasks.hard_negatives.fn(run, target) if run.recipe.refine.hard_negatives else None
        refined = tasks.refine.fn(run, flow.arms_of_the_recipe(recipe, pretrained), target, negatives)
        found = tasks.before_refinement(pretrained) + model_cells(refined, split="test")
        measured = {
            "pretrain": pretrained,
            "generation": generation,
            "refine": refined,
            "retrieval": tasks.page_retrieval.fn(run, found, target["test"]),
        }
        law = tasks.scaling_law.fn(run, measured, target, base)
        run.record.report(Path(law["path"]))
        run.record.close("FINISHED")
        return measured | {"law": [law]}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    return new_workplace(tmp_path, monkeypatch)


def new_workplace(root: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """Two folders of documents; the tasks are plain functions as long as the patch lives."""
    monkeypatch.setattr(tasks, "base_model_digest", lambda recipe: "made up")
    for name, member in list(vars(sweep).items()):
        if isinstance(member, Task):
            monkeypatch.setattr(sweep, name, member.fn)
    place = Workplace(root=root)
    place.write("target", "a.txt", "trang")
    place.write("base", "a.txt", "page")
    return place


@pytest.fixture
def changed() -> Callable[[Any, Any], set[str]]:
    """Names of the stages of which some output lies elsewhere than before."""

    def compare(before: dict[str, list[Reference]], after: dict[str, list[Reference]]) -> set[str]:
        paths = {stage: {one["path"] for one in before[stage]} for stage in before}
        return {stage for stage in after if not {one["path"] for one in after[stage]} <= paths[stage]}

    return compare
