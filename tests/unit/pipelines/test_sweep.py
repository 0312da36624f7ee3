"""Which cells a sweep computes, and which it reuses."""

from collections.abc import Iterable
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import pytest

from data_prep.errors import NoUsableDocuments
from pipelines.parameters import BadParameter, Sweep
from stages.program import Task
from stages.recipes import get_recipe
from tests.unit.pipelines.conftest import Workplace, new_workplace

DOSES = (0, 32, 64)
SEEDS = (3, 4)
PLAN = get_recipe("tiny").sweep


def parameters(workplace: Workplace, *, doses=DOSES, seeds=SEEDS, others=()):
    output = workplace.root / "output"
    return Sweep(doses=doses, seeds=seeds, output=output, other_documents=others).checked()


def places(tasks: Iterable[Task], *names: str) -> set[tuple]:
    return {tuple(attrgetter(name)(task.cell) for name in names) for task in tasks}


def of(tasks: Iterable[Task], **place: object) -> list[Task]:
    """Those at a place; `arm` and `kind` are the arm's."""
    names = {"arm": "arm.name", "kind": "arm.kind"}
    return [
        task
        for task in tasks
        if all(attrgetter(names.get(name, name))(task.cell) == value for name, value in place.items())
    ]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A workplace with one sweep behind it: it takes seconds, and several tests look at it."""
    with pytest.MonkeyPatch.context() as patch:
        place = new_workplace(tmp_path_factory.mktemp("sweep"), patch)
        place.sweep(parameters(place))
        return place


@pytest.fixture(scope="module")
def started(swept: Workplace) -> dict[str, list[Task]]:
    """The cells of every job of that sweep, by stage."""
    return swept.jobs()


def test_controls_are_trained_on_their_own_pages(started: dict) -> None:
    own = {("target", dose) for dose in DOSES}
    assert places(started["pretrain"], "pages", "dose") == own | {("shuffled", 64), ("unrelated", 64)}
    assert len({task.training for task in started["pretrain"]}) == 3
    assert places(started["critic"], "pages", "dose") == places(started["pretrain"], "pages", "dose")
    controls = [task for task in started["refine"] if task.cell.pages != "target"]
    assert places(controls, "pages", "seed", "arm.name", "steps") == {
        (pages, seed, "text-only", 30) for pages in ("shuffled", "unrelated") for seed in SEEDS
    }


def test_all_budgets_of_a_learning_rate_are_one_training(started: dict) -> None:
    grid = of(started["refine"], arm="lr 0.0003", kind="learning rate")
    assert places(grid, "dose", "steps") == {(dose, steps) for dose in DOSES for steps in PLAN.budgets}
    assert len({task.training for task in grid}) == len(DOSES)
    assert all(task.cell.arm.changes == {"learning_rate": 3e-4} for task in grid)


def test_validation_documents_choose_the_learning_rate_of_a_dose(started: dict) -> None:
    tested = of(started["retrieval"], split="test")
    high = {(dose, steps, seed) for dose in (32, 64) for steps in PLAN.budgets for seed in SEEDS}
    assert places(of(tested, arm="lr 0.003"), "dose", "steps", "seed") == high
    assert not of(tested, arm="lr 0.0003")
    own = of(tested, arm="text-only", pages="target")
    # At dose 0 the recipe's rate is the best; elsewhere only the law's own number of steps is searched.
    expected = {(0, steps) for steps in PLAN.budgets} | {(32, 30), (64, 30)}
    assert places(own, "dose", "steps") == expected


def test_equal_compute_is_equal_in_flops(started: dict) -> None:
    # CGP of dose 64 costs 640 FLOPs, a step of CL 100: 6.4 more steps than the law's own 30.
    expected = {(0, seed, 36) for seed in SEEDS}
    assert places(of(started["refine"], kind="equal compute"), "dose", "seed", "steps") == expected


def test_arms_maps_and_soups_stand_at_the_compared_doses(started: dict) -> None:
    tested = of(started["retrieval"], split="test")
    for arm in ("multimodal-20", "full fine-tuning", "CLIP-style", "projection"):
        expected = {(dose, seed) for dose in (0, 64) for seed in SEEDS}
        assert places(of(tested, arm=arm), "dose", "seed") == expected, arm
    for arm in ("whitening", "adapter soup"):
        assert places(of(tested, arm=arm), "dose", "seed") == {(0, 0), (64, 0)}, arm
    maps = of(tested, kind="linear map")
    assert all(set(task.inputs) == {"model", "fit_pages", "fit_queries"} for task in maps)
    assert len(maps) == 6
    soups = of(started["refine"], kind="soup")
    assert all(
        set(task.inputs) == {"model", *(f"adapter of seed {seed}" for seed in SEEDS)} for task in soups
    )
    ranks = of(started["refine"], kind="adapter")
    changes = {(task.cell.arm.changes["lora_rank"], task.cell.arm.changes["lora_alpha"]) for task in ranks}
    assert changes == set(PLAN.adapters)
    drift = [task for task in started["generation"] if task.cell.arm.kind != "none"]
    assert places(drift, "arm.name") == {("text-only",), *places(ranks, "arm.name")}
    [law] = started["law"]
    assert {one.stage for one in law.inputs.values()} == set(started) - {"law"}


def test_a_second_sweep_starts_nothing_and_a_larger_one_only_what_is_new(
    workplace: Workplace, swept: Workplace
) -> None:
    assert swept.sweep(parameters(swept)) == {}
    larger = swept.sweep(parameters(swept, seeds=(3, 4, 5)))
    assert set(larger) == {"refine", "retrieval", "law"}
    new = [task for task in larger["refine"] if task.cell.seed != 5]
    assert new == of(larger["refine"], kind="soup") != []  # now of three


def test_a_sweep_reuses_a_run(workplace: Workplace) -> None:
    recipe = workplace.recipe(doses=DOSES, seeds=SEEDS)
    workplace.run(replace(recipe, refine=replace(recipe.refine, arms=("text-only",))))
    started = workplace.sweep(parameters(workplace))
    assert places(started["pretrain"], "pages") == {("shuffled",), ("unrelated",)}
    assert not of(started["refine"], arm="text-only", pages="target", steps=30)


def test_other_documents_are_searched_by_both_ends(workplace: Workplace) -> None:
    workplace.write("km", "a.txt", "page")
    started = workplace.sweep(parameters(workplace, others=[workplace.root / "km"]))
    other = of(started["retrieval"], split="km", arm="text-only", steps=30)
    assert len(other) == len(of(started["retrieval"], split="km"))
    assert places(other, "dose", "seed") == {(dose, seed) for dose in (0, 64) for seed in SEEDS}


@pytest.mark.parametrize("names", [("km", "two/km"), ("km", "target"), ("base",), ("validation",)])
def test_another_folder_of_a_taken_name_is_refused(
    workplace: Workplace, tmp_path: Path, names: tuple[str, ...]
) -> None:
    folders = [tmp_path / "others" / name for name in names]
    for folder in folders:
        folder.mkdir(parents=True)
    with pytest.raises(BadParameter, match=f"'{folders[-1].name}' is taken"):
        parameters(workplace, others=folders)


def test_chosen_doses_replace_those_of_the_sweep(workplace: Workplace) -> None:
    plan = parameters(workplace, doses=(0, 32, 4_800)).chosen_recipe().sweep
    assert (plan.doses, plan.seeds) == ((0, 32, 4_800), SEEDS)
    assert (plan.compared_doses, plan.control_doses) == ((0, 4_800), (4_800,))
    assert parameters(workplace, doses=None, seeds=None).chosen_recipe().sweep == PLAN


def test_no_validation_queries_is_said_before_anything_is_trained(workplace: Workplace) -> None:
    workplace.write("target", "unvalidated.txt", "one more")
    with pytest.raises(NoUsableDocuments, match=r"left for validation.*add documents"):
        workplace.sweep(parameters(workplace))
    assert not list(workplace.root.rglob("job.json"))
