"""What is in the fingerprints of the stages and of documents, and what is not: on a copy of the sources."""

import shutil
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from infra.fingerprint import import_closure, source_digest
from pipelines.stage_table import STAGES
from stages.cells import Cell
from stages.recipes import ARMS, Recipe, get_recipe

ROOT = Path(__file__).parents[3]
PROGRAMS = {name: stage.program for name, stage in STAGES.items()}
DOCUMENTS = {"reading": "data_prep.reading", "documents": "data_prep.prepare"}
TRAINED = {"pretrain", "refine", "mine"}
MEASURED = {"generation", "critic", "retrieval"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of everything that is code."""
    root = tmp_path_factory.mktemp("sources")
    for room in ("pipelines", "stages", "data_prep", "infra", "benchmarks"):
        ignored = shutil.ignore_patterns("*.pdf", "*.safetensors", "__pycache__")
        shutil.copytree(ROOT / room, root / room, ignore=ignored)
    return root


def changed_by(sources: Path, *edited: str) -> set[str]:
    """The stages (and kinds of documents) whose sources an edit of these files changes."""
    before = _digests(sources)
    for name in edited:
        file = sources / name
        file.write_text(file.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    return {name for name, digest in _digests(sources).items() if digest != before[name]}


def _digests(root: Path) -> dict[str, str]:
    for cached in (import_closure, source_digest):
        cached.cache_clear()
    return {name: source_digest(program, root) for name, program in {**PROGRAMS, **DOCUMENTS}.items()}


def test_what_only_plans_or_moves_bytes_is_in_no_fingerprint(sources: Path) -> None:
    planner = ("infra/devices.py", "stages/train/forecast.py")
    card = "benchmarks/seahelp_card.py"  # the prose of a dataset
    recipes = "stages/recipes.py"  # what a recipe says enters by value
    moving = ("pipelines/runner.py", "pipelines/stage_table.py", "infra/store.py")
    assert changed_by(sources, *planner, card, recipes, *moving) == set()


def test_a_caption_or_a_figures_label_makes_the_report_again_and_nothing_else(sources: Path) -> None:
    files = [
        file.relative_to(sources) for file in (sources / "stages/law/report").iterdir() if file.is_file()
    ]
    assert {file.suffix for file in files} >= {".py", ".jinja", ".css"}
    for file in files:
        assert changed_by(sources, str(file)) <= {"law"}, file
    assert changed_by(sources, "stages/law/report/figures.py") == {"law"}


@pytest.mark.parametrize(
    ("edited", "changed", "unchanged"),
    [
        ("stages/losses.py", {"refine", "retrieval"}, {"pretrain", *DOCUMENTS}),
        ("data_prep/order.py", {"pretrain", "refine"}, set()),  # the sampler
        ("data_prep/splits.py", {"documents"}, {*TRAINED, *MEASURED, "law"}),  # trainings have its digest
        ("data_prep/text_layer.py", {*DOCUMENTS}, {*TRAINED, *MEASURED, "law"}),
        ("stages/train/loop.py", {"pretrain", "refine"}, {*MEASURED, "law", *DOCUMENTS}),
        ("stages/backbones/qwen2_5_vl.py", {*TRAINED, *MEASURED}, {"law", *DOCUMENTS}),
        ("stages/evaluate/score.py", {"critic", "retrieval"}, {*TRAINED, *DOCUMENTS}),
    ],
)
def test_what_computes_a_result_is_in_its_fingerprint(
    sources: Path, edited: str, changed: Iterable[str], unchanged: Iterable[str]
) -> None:
    found = changed_by(sources, edited)
    assert found >= set(changed) and not found & set(unchanged)


def names(recipe: Recipe) -> dict[str, str]:
    """Fingerprints of one cell of each stage, and of a linear map."""
    cell = Cell(dose=32, arm=ARMS["text-only"], seed=0, steps=30)
    found = {name: stage.fingerprint(recipe, cell, {}) for name, stage in STAGES.items()}
    return found | {"linear map": STAGES["retrieval"].fingerprint(recipe, MAP, {})}


def test_settings_that_change_no_result_change_no_name() -> None:
    tiny = get_recipe("tiny")
    engine = replace(tiny.pretrain.engine, processes=7, checkpoint_steps=9)
    elsewhere = replace(
        tiny,
        backbone=replace(tiny.backbone, location="/elsewhere"),
        pretrain=replace(tiny.pretrain, engine=engine, doses=(0, 32)),
        refine=replace(tiny.refine, engine=engine, steps=7, seeds=(9,), arms=()),
    )
    before, after = names(tiny), names(elsewhere)
    assert {name for name in before if before[name] != after[name]} == {"law"}  # its report shows the recipe
    exact = replace(tiny, refine=replace(tiny.refine, engine=replace(engine, precision="bfloat16")))
    assert names(exact)["refine"] != before["refine"]


MAP = Cell(arm=ARMS["projection"], seed=0, split="test")
READ_BY = {
    "mining.hard_negatives": {"mine"},  # refine reads what was mined
    "mining.depth": {"mine"},
    "mining.relative_margin": {"mine"},
    "refine.learning_rate": {"refine"},
    "refine.lora_rank": {"refine"},
    "refine.batch_size": {"refine", "linear map"},
    "refine.same_document_negatives": {"refine", "mine", "linear map"},
    "evaluate.search.max_corpus": {"critic", "transcription", "retrieval", "linear map"},
    "evaluate.search.max_queries": {"critic", "retrieval", "linear map"},
    "evaluate.search.critic_candidates": {"critic", "retrieval", "linear map"},
    "evaluate.generation.samples": {"generation"},
    "evaluate.generation.decoded_samples": {"transcription", "generation"},
    "evaluate.retrieval.neighbours": {"retrieval", "linear map"},
    "evaluate.retrieval.geometry_samples": {"retrieval", "linear map"},
    "evaluate.retrieval.examples": {"retrieval", "linear map"},
    "evaluate.readings.kept_words": {"retrieval", "linear map"},
    "evaluate.readings.validation_corpus": {"transcription", "retrieval", "linear map"},
    "evaluate.readings.validation_queries": {"retrieval", "linear map"},
    "evaluate.readings.weight_steps": {"retrieval", "linear map"},
    "evaluate.linear_map.samples": {"linear map"},
    "evaluate.linear_map.projection_steps": {"linear map"},
    "evaluate.linear_map.projection_learning_rate": {"linear map"},
    "evaluate.batch_size": {"transcription", "generation", "retrieval", "linear map"},
}


def leaves(value: object, name: str) -> Iterable[str]:
    """Dotted names of the plain fields of a configuration."""
    if not is_dataclass(value):
        return [name]
    return [leaf for one in fields(value) for leaf in leaves(getattr(value, one.name), f"{name}.{one.name}")]


def doubled(value: object, path: list[str]) -> object:
    """A copy with one number another."""
    if not path:
        return not value if isinstance(value, bool) else 2 * value + 1
    return replace(value, **{path[0]: doubled(getattr(value, path[0]), path[1:])})


def test_a_setting_renames_the_stages_whose_programs_read_it() -> None:
    recipe, found = get_recipe("tiny"), {}
    assert {*leaves(recipe.evaluate, "evaluate"), *leaves(recipe.mining, "mining")} <= READ_BY.keys()
    before = names(recipe)
    for setting in READ_BY:
        after = names(doubled(recipe, setting.split(".")))
        found[setting] = {name for name in before if before[name] != after[name]} - {"law"}
    assert found == READ_BY


def test_a_cell_is_named_by_what_makes_it() -> None:
    recipe, refine, retrieval = get_recipe("tiny"), STAGES["refine"], STAGES["retrieval"]
    cell = Cell(arm=ARMS["text-only"], seed=0, steps=30)
    soup = replace(cell, arm=replace(cell.arm, name="adapter soup", kind="soup"))
    others = [replace(cell, seed=1), replace(cell, steps=31), replace(cell, arm=ARMS["CLIP-style"]), soup]
    assert len({refine.fingerprint(recipe, one, {"model": "d"}) for one in [cell, *others]}) == 5
    assert refine.fingerprint(recipe, cell, {"model": "other"}) != refine.fingerprint(
        recipe, cell, {"model": "d"}
    )
    longer, seeded = (refine.training(recipe, one, {}) for one in (others[1], others[0]))
    assert refine.training(recipe, cell, {}) == longer != seeded
    maps = [Cell(arm=ARMS[name], seed=0) for name in ("whitening", "projection")]
    searched = [cell, replace(cell, dose=9, split="test"), *maps]
    assert len({retrieval.fingerprint(recipe, one, {"model": "d"}) for one in searched}) == 3
