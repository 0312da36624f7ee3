"""The table of stages against the code: every module that a stage's program loads is in its fingerprint."""

import ast
import dataclasses
from pathlib import Path

import pytest

from pipelines.stage_definition import STAGES, StageDefinition, recipe_part
from stages.recipes import get_recipe

ROOT = Path(__file__).parents[3]
# What a recipe says enters the fingerprint by value.
BY_VALUE = {"stages.recipes"}


def source(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    candidates = (path / "__main__.py", path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def imported(module: str, seen: set[str]) -> set[str]:
    """Modules of the project that importing `module` loads, itself included."""
    path = source(module)
    if path is None or module in seen:
        return seen
    seen.add(module)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.split(".")[0] in ("stages", "data_prep"):
                imported(name, seen)
    return seen


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_every_module_of_a_stage_is_in_its_fingerprint(stage: StageDefinition) -> None:
    modules = imported(stage.module, set()) - BY_VALUE - {"stages"}
    assert len(modules) > 2, "the walk found nothing"
    uncovered = {
        module
        for module in modules
        if not any(module == package or module.startswith(f"{package}.") for package in stage.packages)
        and (source(module) or Path()).stat().st_size  # an empty __init__.py computes nothing
    }
    assert uncovered == set(), f"add to packages of {stage.name!r} in pipelines/stage_definition.py"


@pytest.mark.parametrize("name", ["pretrain", "refine"])
def test_processes_and_checkpoints_are_left_out_and_the_rest_of_the_engine_stays(name: str) -> None:
    recipe = dataclasses.asdict(get_recipe("tiny"))
    engine = dict(recipe[name]["engine"])
    part = recipe_part(recipe, STAGES[name])
    left_out = {"processes", "checkpoint_steps"}
    assert part[name]["engine"] == {field: engine[field] for field in engine.keys() - left_out}
    assert "location" not in part["backbone"] and part["backbone"]["max_pixels"]
    assert recipe[name]["engine"] == engine, "the recipe itself was changed"


@pytest.mark.parametrize("dotted", ["pretrain.engine.cores", "pretrain.motor.cores", "pretrain.cores"])
def test_a_field_that_the_recipe_lacks_is_named(dotted: str) -> None:
    stage = dataclasses.replace(STAGES["pretrain"], not_used=(dotted,))
    with pytest.raises(KeyError, match=dotted):
        recipe_part(dataclasses.asdict(get_recipe("tiny")), stage)
