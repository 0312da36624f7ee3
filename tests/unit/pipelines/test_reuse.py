"""What is computed again, and what is not, when one thing changes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from infra.launcher import Launch
from pipelines import sweep_cells
from pipelines.console import Reporter
from pipelines.runner import run_stage
from pipelines.stage_table import Output, Work
from stages.cells import Arm, Cell
from stages.program import Task
from stages.recipes import ARMS, Recipe
from tests.unit.pipelines import fake_stages
from tests.unit.pipelines.conftest import InProcessLauncher, Workplace, changed
from tests.unit.pipelines.fake_documents import prepare_documents
from tests.unit.pipelines.fake_stages import FAKE_STAGES

EVERYTHING = {"pretrain", "transcription", "generation", "refine", "retrieval", "law"}


def with_part(recipe: Recipe, part: str, **changes: object) -> Recipe:
    return replace(recipe, **{part: replace(getattr(recipe, part), **changes)})


def test_a_second_run_starts_nothing_also_where_the_output_folder_has_moved(workplace: Workplace) -> None:
    first = workplace.run()
    assert workplace.run() == first
    moved = replace(workplace, root=workplace.root.rename(workplace.root.with_name("moved")))
    moved.run()
    assert [set(moved.jobs(run)) for run in range(3)] == [EVERYTHING, set(), set()]


def test_documents_are_read_by_as_many_processes_as_the_settings_allow(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def prepare(*arguments, workers: int):
        asked.append(workers)
        return prepare_documents(*arguments, workers=workers)

    monkeypatch.setattr("data_prep.prepare.prepare_documents", prepare)
    monkeypatch.setenv("LCO_PROCESSES", "5")
    workplace.run()
    assert asked == [5, 5]


def test_a_changed_target_document_changes_everything_after_it(workplace: Workplace) -> None:
    first = workplace.run()
    workplace.write("target", "b.txt", "trang khác")
    assert changed(first, workplace.run()) == EVERYTHING


def test_other_queries_repeat_nothing_that_reads_samples_only(workplace: Workplace) -> None:
    mined = with_part(workplace.recipe(), "mining", hard_negatives=2)
    first = workplace.run(mined)
    workplace.write("target", "queries.jsonl", "what the user asks")
    second = workplace.run(mined)
    assert changed(first, second) == {"mine", "refine", "retrieval", "law"}
    workplace.write("base", "queries.jsonl", "nobody reads it, but the report tells of it")
    assert changed(second, workplace.run(mined)) == {"law"}


def test_one_more_dose_computes_that_dose_only(workplace: Workplace) -> None:
    first = workplace.run(workplace.recipe(doses=(0, 32)))
    second = workplace.run(workplace.recipe(doses=(0, 32, 64)))
    for stage in EVERYTHING - {"law"}:
        new = [one for one in second[stage] if one not in first[stage]]
        assert {one.cell.dose for one in new} == {64}, stage
        assert all(one in second[stage] for one in first[stage]), stage


def test_one_more_seed_retrains_nothing(workplace: Workplace) -> None:
    first = workplace.run(workplace.recipe(seeds=(0,)))
    second = workplace.run(workplace.recipe(seeds=(0, 1)))
    assert changed(first, second) == {"refine", "retrieval", "law"}
    assert {one.cell.seed for one in second["refine"] if one not in first["refine"]} == {1}


def test_with_a_falling_learning_rate_every_dose_depends_on_the_last(workplace: Workplace) -> None:
    def models(doses: tuple[int, ...]) -> set[Path]:
        recipe = with_part(workplace.recipe(doses=doses), "pretrain", decay_steps=10)
        return {one.path for one in workplace.run(recipe)["pretrain"]}

    assert not models((0, 32)) & models((0, 32, 64))


def test_a_change_changes_only_the_stages_that_use_it(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = workplace.recipe()
    first, loss = workplace.run(recipe), recipe.refine.loss
    search, generation = recipe.evaluate.search, recipe.evaluate.generation
    # The made-up models depend on none of it: equal content, so what follows is reused.
    for part, changes, stages in (
        ("refine", {"loss": replace(loss, symmetric=True)}, {"refine", "law"}),
        ("refine", {"loss": replace(loss, temperature=0.5)}, {"refine", "retrieval", "law"}),  # L_cl is at it
        ("mining", {"hard_negatives": 2}, {"mine", "refine", "law"}),
        ("evaluate", {"search": replace(search, max_queries=7)}, {"retrieval", "law"}),
        (
            "evaluate",
            {"generation": replace(generation, decoded_samples=7)},
            {"transcription", "generation", "law"},
        ),
        ("law", {"minimum_effect": 0.5}, {"law"}),
        ("backbone", {"location": "/elsewhere"}, set()),
    ):
        run = len(list(workplace.runs.iterdir()))
        assert changed(first, workplace.run(with_part(recipe, part, **changes))) == stages, changes
        assert set(workplace.jobs(run)) == stages, changes
        if "mine" in stages:
            job = json.loads((workplace.runs / str(run) / "refine" / "job.json").read_text())
            assert set(job["inputs"]) == {"target_train", "target_train_queries", "negatives"}
    rewritten = replace(FAKE_STAGES["generation"], program="tests.unit.pipelines.fake_documents")
    assert changed(first, workplace.run(stages={**FAKE_STAGES, "generation": rewritten})) == {"generation"}
    monkeypatch.setattr(sweep_cells, "base_model_digest", lambda recipe: "another")
    assert "pretrain" in changed(first, workplace.run())


def test_equal_cells_are_computed_once_and_each_has_its_output(workplace: Workplace) -> None:
    model = Output(stage="pretrain", cell=Cell(), path=Path("/model"), digest="d")
    same = Arm(name="another name", kind="learning rate")
    work = [
        Work(cell=Cell(arm=arm, seed=0, steps=3), inputs={"model": model})
        for arm in (ARMS["text-only"], same)
    ]
    one, other = run_stage(workplace.new_run(), "refine", inputs={}, work=work)
    assert one.path == other.path and (one.cell, other.cell) == tuple(each.cell for each in work)
    assert other.model_inputs == {"model": model, "adapter": other} and model.model_inputs == {"model": model}
    assert len(workplace.jobs()["refine"]) == 1


def test_a_run_that_goes_on_trains_with_the_threads_of_one_in_one_go(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    class Remembering(InProcessLauncher):
        def run(self, launch: Launch, on_event) -> None:
            started.append((launch.processes, launch.threads))
            super().run(launch, on_event)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("infra.launcher.usable_cores", lambda: 12)
    monkeypatch.setenv("LCO_PROCESSES", "4")
    run = workplace.new_run(launcher=Remembering())
    cells = [Cell(seed=seed, arm=ARMS["text-only"], steps=3) for seed in range(3)]
    for _ in range(2):  # three cells are missing, then one
        outputs = run_stage(run, "refine", inputs={}, work=[Work(cell=cell) for cell in cells])
        shutil.rmtree(outputs[0].path)
    assert started == [(3, 4), (1, 4)]


def test_the_job_names_settings_inputs_and_cells(workplace: Workplace) -> None:
    outputs = workplace.run()
    job = json.loads((workplace.runs / "0" / "refine" / "job.json").read_text())
    assert set(job["settings"]) == {"backbone", "refine"} and job["provenance"]["recipe"] == "tiny"
    assert set(job["inputs"]) == {"target_train", "target_train_queries"}
    tasks = workplace.jobs()
    cells = {(task.cell.dose, task.cell.seed, task.cell.arm.name) for task in tasks["refine"]}
    assert cells == {(dose, 0, arm) for dose in (0, 32) for arm in ("text-only", "multimodal-20")}
    assert len({task.training for task in tasks["refine"]}) == 4, "each cell is a training of its own"
    assert len({task.training for task in tasks["pretrain"]}) == 1, "all doses are one training"
    models = {one.cell.dose: one.path for one in outputs["pretrain"]}
    assert all(task.inputs["model"].path == models[task.cell.dose] for task in tasks["refine"])
    searched = [task for task in tasks["retrieval"] if task.cell.arm.kind != "none"]
    for task in searched:  # the law's own CL is judged in every reading
        read = {"transcription"} if task.cell.arm.name == "text-only" else set()
        assert set(task.inputs) == {"model", "adapter"} | read
    [law] = tasks["law"]
    assert len(law.inputs) == 2 + 2 + 2 + 4 + 6
    assert (
        law.inputs["retrieval: dose 32, seed 0, text-only, 30 steps (kind: refinement)"].cell.arm
        == ARMS["text-only"]
    )


def test_skipped_steps_are_told_when_a_stage_ends_also_of_a_training_that_is_reused(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> str:
        lines: list[str] = []
        workplace.run(workplace.recipe(doses=(0, 32, 64)), reporter=Reporter(write=lines.append))
        return [one for one in lines if one.startswith("generative pretraining (CGP): ")][-1]

    def pretrain(task: Task) -> dict:
        files = made(task)
        return files | {"training.json": files["training.json"] | {"skipped_steps": task.cell.dose // 32}}

    made = fake_stages.OUTPUTS["pretrain"]
    monkeypatch.setitem(fake_stages.OUTPUTS, "pretrain", pretrain)
    skipped = "; up to 2 steps of a training were skipped: loss or gradient not finite"
    assert told().endswith(skipped)
    assert told() == f"generative pretraining (CGP): reused (3 of 3){skipped}"
    [*_, last] = [one for one in workplace.events("metrics") if "summary/skipped_steps" in one["metrics"]]
    assert last["metrics"]["summary/skipped_steps"] == 2
