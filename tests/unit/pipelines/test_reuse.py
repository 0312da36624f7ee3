"""What is computed again, and what is not, when one thing changes."""

import dataclasses
import json
import shutil
from collections.abc import Callable

import pytest

from infra.launcher import local_environment
from pipelines import tasks
from pipelines.stage_definition import Cell
from pipelines.stage_runner import run_stage
from tests.unit.pipelines.conftest import InProcessLauncher, Workplace
from tests.unit.pipelines.fake_documents import prepare_documents
from tests.unit.pipelines.fake_stages import FAKE_STAGES

EVERYTHING = {"pretrain", "generation", "refine", "retrieval", "law"}


def jobs(workplace: Workplace) -> dict[str, set[str]]:
    """Stages that the runs really started: run folder -> stages."""
    runs = workplace.root / "output" / "runs"
    return {folder.name: {job.parent.name for job in folder.glob("*/job.json")} for folder in runs.iterdir()}


def test_a_second_run_starts_nothing(workplace: Workplace, changed: Callable) -> None:
    first = workplace.run()
    second = workplace.run()
    assert first == second
    assert jobs(workplace) == {"0": EVERYTHING, "1": set()}


def test_documents_are_read_by_as_many_processes_as_the_settings_allow(workplace: Workplace) -> None:
    asked = []

    def prepare(*arguments, workers: int):
        asked.append(workers)
        return prepare_documents(*arguments, workers=workers)

    run = workplace.new_run(workplace.recipe())
    run = dataclasses.replace(run, settings=dataclasses.replace(run.settings, processes=5))
    tasks.prepare_target_documents.fn(run, prepare)
    assert asked == [5]


def test_a_changed_target_document_changes_everything_after_it(
    workplace: Workplace, changed: Callable
) -> None:
    first = workplace.run()
    workplace.write("target", "b.txt", "trang khác")
    assert changed(first, workplace.run()) == EVERYTHING


def test_one_more_dose_computes_that_dose_only(workplace: Workplace) -> None:
    first = workplace.run(workplace.recipe(doses=(0, 32)))
    second = workplace.run(workplace.recipe(doses=(0, 32, 64)))
    for stage in ("pretrain", "generation", "refine", "retrieval"):
        new = [one for one in second[stage] if one not in first[stage]]
        assert {one["dose"] for one in new} == {64}, stage
        assert all(one in second[stage] for one in first[stage]), stage


def test_one_more_seed_retrains_nothing(workplace: Workplace, changed: Callable) -> None:
    first = workplace.run(workplace.recipe(seeds=(0,)))
    second = workplace.run(workplace.recipe(seeds=(0, 1)))
    assert changed(first, second) == {"refine", "retrieval", "law"}
    assert {one["seed"] for one in second["refine"] if one not in first["refine"]} == {1}


def test_with_a_falling_learning_rate_every_dose_depends_on_the_last(
    workplace: Workplace, changed: Callable
) -> None:
    def recipe(doses: tuple[int, ...]):
        chosen = workplace.recipe(doses=doses)
        return dataclasses.replace(chosen, pretrain=dataclasses.replace(chosen.pretrain, decay_steps=10))

    first, second = workplace.run(recipe((0, 32))), workplace.run(recipe((0, 32, 64)))
    paths = [{one["path"] for one in outputs["pretrain"]} for outputs in (first, second)]
    assert not paths[0] & paths[1]


def test_a_recipe_part_changes_only_the_stages_that_use_it(workplace: Workplace, changed: Callable) -> None:
    recipe = workplace.recipe()
    first = workplace.run(recipe)
    refine = dataclasses.replace(recipe, refine=dataclasses.replace(recipe.refine, symmetric=True))
    # The fake models do not depend on it: equal content, so what follows is reused.
    assert changed(first, workplace.run(refine)) == {"refine", "law"}
    warmer = dataclasses.replace(recipe, refine=dataclasses.replace(recipe.refine, temperature=0.5))
    assert changed(first, workplace.run(warmer)) == {"refine", "retrieval", "law"}  # L_cl is at that one
    evaluate = dataclasses.replace(recipe, evaluate=dataclasses.replace(recipe.evaluate, max_queries=7))
    assert changed(first, workplace.run(evaluate)) == {"generation", "retrieval", "law"}
    law = dataclasses.replace(recipe, law=dataclasses.replace(recipe.law, minimum_effect=0.5))
    assert changed(first, workplace.run(law)) == {"law"}


def test_hard_negatives_are_mined_once_and_refinement_depends_on_them(
    workplace: Workplace, changed: Callable
) -> None:
    recipe = workplace.recipe()
    first = workplace.run(recipe)
    mining = dataclasses.replace(recipe, refine=dataclasses.replace(recipe.refine, hard_negatives=2))
    # The fake models do not depend on the negatives: equal content, so what follows is reused.
    assert changed(first, workplace.run(mining)) == {"refine", "law"}
    assert jobs(workplace) == {"0": EVERYTHING, "1": {"mine", "refine", "law"}}
    job = json.loads((workplace.root / "output" / "runs" / "1" / "refine" / "job.json").read_text())
    assert set(job["inputs"]) == {"target_train", "negatives"}


def test_where_the_base_model_lies_changes_nothing(workplace: Workplace, changed: Callable) -> None:
    recipe = workplace.recipe()
    first = workplace.run(recipe)
    moved = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, location="/elsewhere"))
    assert changed(first, workplace.run(moved)) == set()


def test_another_base_model_changes_everything(workplace: Workplace, changed: Callable, monkeypatch) -> None:
    first = workplace.run()
    monkeypatch.setattr("pipelines.tasks.base_model_digest", lambda recipe: "another")
    assert changed(first, workplace.run()) >= {"pretrain"}


def test_changed_source_of_a_stage_changes_that_stage(workplace: Workplace, changed: Callable) -> None:
    first = workplace.run()
    stages = dict(FAKE_STAGES)
    stages["generation"] = dataclasses.replace(stages["generation"], packages=("infra.store",))
    # Its outputs have the same content as before, and the law depends on content: it is reused.
    assert changed(first, workplace.run(stages=stages)) == {"generation"}


def test_a_moved_output_folder_stays_valid(workplace: Workplace) -> None:
    workplace.run()
    before = jobs(workplace)
    moved = dataclasses.replace(workplace, root=workplace.root.rename(workplace.root.with_name("moved")))
    moved.run()
    assert jobs(moved) == {**before, "1": set()}


def test_a_run_that_goes_on_trains_with_the_threads_of_one_in_one_go(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    class Remembering(InProcessLauncher):
        def run(self, *arguments, processes: int, sharing_cores: int, **options) -> None:
            started.append((processes, local_environment(processes=sharing_cores)["OMP_NUM_THREADS"]))
            super().run(*arguments, processes=processes, **options)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("infra.launcher.usable_cores", lambda: 12)
    run = workplace.new_run(workplace.recipe())
    run = dataclasses.replace(
        run, launcher=Remembering(), settings=dataclasses.replace(run.settings, processes=4)
    )
    model = {"path": "/model", "digest": "d"}
    cells = [
        Cell(key={"dose": 0, "pages": "target", "seed": seed, "arm": "text-only", "steps": 3})
        for seed in range(3)
    ]
    for _ in range(2):  # three cells are missing, then one
        outputs = run_stage(run, "refine", inputs={"target_train": model}, cells=cells)
        shutil.rmtree(outputs[0]["path"])
    assert started == [(3, "4"), (1, "4")]


def test_the_job_names_inputs_cells_and_the_recipe(workplace: Workplace) -> None:
    outputs = workplace.run()
    job = json.loads((workplace.root / "output" / "runs" / "0" / "refine" / "job.json").read_text())
    assert job["recipe"]["name"] == "tiny"
    assert set(job["inputs"]) == {"target_train"}
    assert {(cell["dose"], cell["seed"], cell["arm"]) for cell in job["cells"]} == {
        (dose, 0, arm) for dose in (0, 32) for arm in ("text-only", "multimodal-20")
    }
    assert len({cell["training"] for cell in job["cells"]}) == 4, "each cell is a training of its own"
    pretrain = json.loads((workplace.root / "output" / "runs" / "0" / "pretrain" / "job.json").read_text())
    assert len({cell["training"] for cell in pretrain["cells"]}) == 1, "all doses are one training"
    models = {one["dose"]: one["path"] for one in outputs["pretrain"]}
    assert all(cell["model"] == f"{models[cell['dose']]}/model" for cell in job["cells"])
