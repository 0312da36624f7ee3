"""Sizes of the recipes' models, known without network."""

import dataclasses

import pytest

from stages.model_config import PUBLISHED, model_config, parameter_counts, published_config
from stages.recipes import RECIPES, get_recipe


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


# As the hub shows them, and as model cards and reports on the two models repeat them.
@pytest.mark.parametrize(
    ("hub_id", "all_parameters", "vision"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976, 668_684_288),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656, 676_550_144),
    ],
)
def test_published_models_have_their_published_size(hub_id, all_parameters, vision):
    counts = parameter_counts(published_config(hub_id))
    assert (sum(counts), counts[1]) == (all_parameters, vision)


def test_every_published_model_has_a_recipe():
    assert set(PUBLISHED) <= {RECIPES[name]().backbone.location for name in RECIPES}


def test_the_small_recipe_has_20_to_150_million_parameters():
    assert 20e6 <= sum(parameter_counts(model_config(get_recipe("small")))) <= 150e6


def test_a_folder_is_asked_for_its_own_configuration(backbone, tmp_path):
    backbone.save(tmp_path)
    tiny = get_recipe("tiny")
    recipe = dataclasses.replace(tiny, backbone=dataclasses.replace(tiny.backbone, location=str(tmp_path)))
    counts = parameter_counts(model_config(recipe))
    assert sum(counts) == sum(parameter.numel() for parameter in backbone.model.parameters())


def test_an_unknown_model_is_named():
    tiny = get_recipe("tiny")
    recipe = dataclasses.replace(
        tiny, name="mine", backbone=dataclasses.replace(tiny.backbone, location="someone/model")
    )
    with pytest.raises(ValueError, match="someone/model"):
        model_config(recipe)
