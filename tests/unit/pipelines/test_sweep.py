"""Which cells a sweep computes, and which it reuses."""

import dataclasses
from pathlib import Path

import pytest

from data_prep.errors import NoUsableDocuments
from pipelines.parameters import BadParameter, check_parameters
from pipelines.sweep import sweep_recipe
from stages.recipes import get_recipe
from tests.unit.pipelines.conftest import Workplace, new_workplace

DOSES = (0, 32, 64)
SEEDS = (3, 4)


def parameters(workplace: Workplace, *, doses=DOSES, seeds=SEEDS, others=()):
    return check_parameters(
        recipe="tiny",
        documents=None,
        doses=doses,
        seeds=seeds,
        output=workplace.root / "output",
        others=others,
    )


def places(cells: list[dict], *names: str) -> set[tuple]:
    return {tuple(cell[name] for name in names) for cell in cells}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A workplace with one sweep behind it: it takes seconds, and several tests look at it."""
    with pytest.MonkeyPatch.context() as patch:
        place = new_workplace(tmp_path_factory.mktemp("sweep"), patch)
        place.sweep(parameters(place))
        return place


@pytest.fixture(scope="module")
def started(swept: Workplace) -> dict[str, list[dict]]:
    """The cells of every job of that sweep, by stage."""
    return swept.jobs(0)


def test_controls_are_trained_on_their_own_pages(started: dict) -> None:
    assert places(started["pretrain"], "pages", "dose") == {
        ("target", 0), ("target", 32), ("target", 64), ("shuffled", 64), ("unrelated", 64)
    }  # fmt: skip
    assert len({cell["training"] for cell in started["pretrain"]}) == 3
    assert places(started["critic"], "pages", "dose") == places(started["pretrain"], "pages", "dose")
    controls = [cell for cell in started["refine"] if cell["pages"] != "target"]
    assert places(controls, "pages", "seed", "arm", "steps") == {
        (pages, seed, "text-only", 30) for pages in ("shuffled", "unrelated") for seed in SEEDS
    }


def test_all_budgets_of_a_learning_rate_are_one_training(started: dict) -> None:
    plan = get_recipe("tiny").sweep
    grid = [cell for cell in started["refine"] if cell["arm"] == "lr 0.0003"]
    assert places(grid, "dose", "steps") == {(dose, steps) for dose in DOSES for steps in plan.budgets}
    assert len({cell["training"] for cell in grid}) == len(DOSES)
    assert all(cell["changes"] == {"learning_rate": 3e-4} for cell in grid)


def test_validation_documents_choose_the_learning_rate_of_a_dose(started: dict) -> None:
    plan = get_recipe("tiny").sweep
    tested = [cell for cell in started["retrieval"] if cell["split"] == "test"]
    high = {(dose, steps, seed) for dose in (32, 64) for steps in plan.budgets for seed in SEEDS}
    assert places([c for c in tested if c["arm"] == "lr 0.003"], "dose", "steps", "seed") == high
    assert not [cell for cell in tested if cell["arm"] == "lr 0.0003"]
    own = [cell for cell in tested if cell["arm"] == "text-only" and cell["pages"] == "target"]
    # At dose 0 the recipe's rate is the best; elsewhere only the law's own number of steps is searched.
    expected = {(0, steps) for steps in plan.budgets} | {(32, 30), (64, 30)}
    assert places(own, "dose", "steps") == expected


def test_equal_compute_is_equal_in_flops(started: dict) -> None:
    cells = [cell for cell in started["refine"] if cell["arm"] == "equal compute"]
    # CGP of dose 64 costs 640 FLOPs, a step of CL 100: 6.4 more steps than the law's own 30.
    assert places(cells, "dose", "seed", "steps") == {(0, seed, 36) for seed in SEEDS}


def test_arms_maps_and_soups_stand_at_the_compared_doses(started: dict) -> None:
    tested = [cell for cell in started["retrieval"] if cell["split"] == "test"]
    for arm in ("multimodal-20", "full fine-tuning", "CLIP-style", "projection"):
        assert places([cell for cell in tested if cell["arm"] == arm], "dose", "seed") == {
            (dose, seed) for dose in (0, 64) for seed in SEEDS
        }, arm
    for arm in ("whitening", "adapter soup"):
        assert places([c for c in tested if c["arm"] == arm], "dose", "seed") == {(0, 0), (64, 0)}, arm
    soups = [cell for cell in started["refine"] if cell["arm"] == "adapter soup"]
    assert all(len(cell["adapters"]) == len(SEEDS) for cell in soups)
    ranks = [cell for cell in started["refine"] if cell["arm"].startswith("rank")]
    assert {(c["changes"]["lora_rank"], c["changes"]["lora_alpha"]) for c in ranks} == set(
        get_recipe("tiny").sweep.adapters
    )
    drift = [cell for cell in started["generation"] if cell.get("arm")]
    assert {cell["arm"] for cell in drift} == {"text-only", *(cell["arm"] for cell in ranks)}


def test_a_second_sweep_starts_nothing_and_a_larger_one_only_what_is_new(
    workplace: Workplace, swept: Workplace
) -> None:
    assert swept.sweep(parameters(swept)) == {}
    larger = swept.sweep(parameters(swept, seeds=(3, 4, 5)))
    assert set(larger) == {"refine", "retrieval", "law"}
    assert places(larger["refine"], "seed") == {(5,), (0,)}  # 0: the soups, now of three
    assert {cell["arm"] for cell in larger["refine"] if cell["seed"] == 0} == {"adapter soup"}


def test_a_sweep_reuses_a_run(workplace: Workplace) -> None:
    recipe = workplace.recipe(doses=DOSES, seeds=SEEDS)
    workplace.run(dataclasses.replace(recipe, refine=dataclasses.replace(recipe.refine, arms=("text-only",))))
    started = workplace.sweep(parameters(workplace))
    assert {cell["pages"] for cell in started["pretrain"]} == {"shuffled", "unrelated"}
    assert not [
        c for c in started["refine"] if (c["arm"], c["pages"], c["steps"]) == ("text-only", "target", 30)
    ]


def test_other_documents_are_searched_by_both_ends(workplace: Workplace) -> None:
    workplace.write("km", "a.txt", "page")
    started = workplace.sweep(parameters(workplace, others=[workplace.root / "km"]))
    other = [cell for cell in started["retrieval"] if cell["split"] == "km"]
    assert places(other, "dose", "seed", "arm", "steps") == {
        (dose, seed, "text-only", 30) for dose in (0, 64) for seed in SEEDS
    }


def test_two_other_folders_of_one_name_are_refused(workplace: Workplace, tmp_path: Path) -> None:
    for parent in ("one", "two"):
        (tmp_path / parent / "km").mkdir(parents=True)
    with pytest.raises(BadParameter, match="'km' is taken"):
        parameters(workplace, others=[tmp_path / "one" / "km", tmp_path / "two" / "km"])


def test_chosen_doses_replace_those_of_the_sweep(workplace: Workplace) -> None:
    plan = sweep_recipe(parameters(workplace, doses=(0, 32, 4_800))).sweep
    assert (plan.doses, plan.seeds) == ((0, 32, 4_800), SEEDS)
    assert (plan.compared_doses, plan.control_doses) == ((0, 4_800), (4_800,))
    own = get_recipe("tiny").sweep
    chosen = sweep_recipe(parameters(workplace, doses=None, seeds=None)).sweep
    assert chosen == own


def test_no_validation_queries_is_said_before_anything_is_trained(workplace: Workplace) -> None:
    workplace.write("target", "unvalidated.txt", "one more")
    with pytest.raises(NoUsableDocuments, match=r"left for validation.*add documents"):
        workplace.sweep(parameters(workplace))
    assert not list(workplace.root.rglob("job.json"))
