"""What every recipe must be: complete, consistent, and the same after its way through a job file."""

import json
from dataclasses import asdict

import pytest
from pydantic import TypeAdapter

from stages.backbones.backbone import FAMILIES, model_config
from stages.bootstrap.program import pretrain_configs
from stages.cells import Cell
from stages.recipes import ARMS, BOOTSTRAPS, RECIPES, Recipe, get_recipe
from stages.refine.config import with_changes
from stages.train.flops import projection_shapes
from stages.train.forecast import config_of

PROMPT = 64  # tokens around a text or an image, at most


@pytest.fixture(params=sorted(RECIPES))
def recipe(request) -> Recipe:
    return get_recipe(request.param)


def test_a_recipe_survives_its_job_file(recipe):
    job = json.loads(json.dumps(asdict(recipe)))
    assert TypeAdapter(Recipe).validate_python(job) == recipe
    assert recipe is not get_recipe(recipe.name) and recipe == get_recipe(recipe.name)


def test_every_recipe_but_smoke_can_reach_a_verdict(recipe):
    doses = recipe.pretrain.doses
    assert doses[0] == 0 and list(doses) == sorted(set(doses))
    assert not any(dose % recipe.pretrain.batch_size for dose in doses)
    assert recipe.law.primary_arm in recipe.refine.arms
    if recipe.name == "smoke":  # whatever doses and seeds a person chooses
        assert recipe.evaluate.search.max_queries < recipe.law.minimum_queries
        return
    assert len(doses) >= recipe.law.minimum_doses
    assert len(set(recipe.refine.seeds)) >= recipe.law.minimum_seeds
    assert recipe.evaluate.search.max_queries >= recipe.law.minimum_queries


@pytest.mark.parametrize(
    "arm", [arm for arm in ARMS.values() if arm.kind == "refinement"], ids=lambda arm: arm.name
)
def test_an_arm_changes_what_it_names_and_nothing_else(arm, recipe):
    arm = TypeAdapter(Cell).validate_python(json.loads(json.dumps(Cell(arm=arm).to_json()))).arm
    before, after = (
        _flat(json.loads(json.dumps(asdict(one))))
        for one in (recipe.refine, with_changes(recipe.refine, arm.changes))
    )
    kept = {name: value for name, value in before.items() if name.split(".")[0] not in arm.changes}
    assert after == kept | _flat(arm.changes)
    assert {arm.name for arm in ARMS.values() if arm.kind == "refinement"} >= set(recipe.refine.arms)
    assert set(ARMS) >= {*recipe.sweep.arms, *recipe.sweep.linear_maps}


@pytest.mark.parametrize("changes", [{"image_shared": 0.2}, {"loss.bias": 1.0}, {"image_share": "a fifth"}])
def test_an_arm_that_names_no_setting_is_refused(changes):
    with pytest.raises(ValueError, match=r"image_share|bias"):
        with_changes(get_recipe("tiny").refine, changes)


def _flat(content: dict, before: str = "") -> dict:
    return {
        name: value
        for key, inner in content.items()
        for name, value in (
            _flat(inner, f"{before}{key}.") if isinstance(inner, dict) else {before + key: inner}
        ).items()
    }


def test_the_largest_sample_fits_the_budgets(recipe):
    visual = recipe.documents.max_pixels // recipe.documents.pixel_multiple**2
    text = recipe.backbone.max_text_tokens
    for engine in (recipe.pretrain.engine, recipe.refine.engine):
        assert visual <= engine.visual_tokens
        assert PROMPT + max(visual + text, 2 * text) <= engine.text_tokens


def test_images_and_adapters_fit_the_model(recipe):
    config = config_of(recipe)
    vision = config.vision_config
    assert recipe.documents.pixel_multiple == vision.patch_size * vision.spatial_merge_size
    assert recipe.documents.max_pixels == recipe.backbone.max_pixels
    projections = projection_shapes(FAMILIES[config.model_type].shape(config))
    assert set(recipe.refine.lora_targets) <= set(projections)
    longest = recipe.documents.max_pixels // recipe.documents.pixel_multiple**2
    longest = PROMPT + recipe.backbone.max_text_tokens + max(longest, recipe.backbone.max_text_tokens)
    assert longest <= config.text_config.max_position_embeddings


def test_the_papers_settings_of_refinement():
    """LCO-Emb (arXiv 2510.11693), text-only CL."""
    for name in ("paper-3b", "paper-7b"):
        recipe = get_recipe(name)
        refine = recipe.refine
        assert refine.arms == ("text-only",)
        assert (refine.lora_rank, refine.lora_alpha, refine.loss.temperature) == (64, 16, 0.03)
        assert (refine.batch_size, refine.learning_rate, refine.warmup_steps) == (1_056, 4e-4, 100)
        assert refine.max_gradient_norm == 1.0 and recipe.mining.hard_negatives == 1
        assert refine.steps == pytest.approx(2 * 370_000 / 1_056, rel=0.01)


@pytest.mark.parametrize("name", sorted(BOOTSTRAPS))
def test_a_bootstrap_makes_its_steps(name):
    config = BOOTSTRAPS[name]
    *others, last = pretrain_configs(config, get_recipe(name).pretrain.engine)
    examples = sum(one.doses[-1] for one in (*others, last))
    assert examples == config.steps * config.batch_size
    assert last.decay_steps * config.batch_size == last.doses[-1]
    assert not any(one.decay_steps for one in others)


def test_the_committed_base_is_what_its_bootstrap_makes():
    config = model_config(get_recipe("tiny").backbone.location)
    text = config.text_config
    shape = BOOTSTRAPS["tiny"].shape
    assert (text.hidden_size, text.num_hidden_layers) == (shape.hidden_size, shape.num_layers)
    assert config.vision_config.depth == shape.vision_layers
    assert text.initializer_range == shape.initializer_range
