"""A refinement is committed as what it changed; the model that it gives is the same to the last digit."""

import copy
import dataclasses
import types

import peft
import pytest
import torch

from stages.backbones.adapters import (
    Refinement,
    RefinementError,
    add_adapter,
    choose_trained,
    open_model,
    open_refinement,
    put_weights,
    soup,
    trained_weights,
)
from stages.recipes import get_recipe
from stages.train.forward import probe_of

TINY = get_recipe("tiny")
CONFIG = dataclasses.replace(TINY.refine, lora_rank=4, lora_alpha=8)


def adapter(backbone, *, seed: int, scale: float = 0.1) -> Refinement:
    """An adapter as if it had been trained."""
    model = add_adapter(copy.deepcopy(backbone), CONFIG)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=scale)
    return trained_weights(model)


def whole(backbone) -> Refinement:
    """Weights of the decoder as if they had been trained."""
    model = choose_trained(copy.deepcopy(backbone), dataclasses.replace(CONFIG, trained="decoder"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * parameter.requires_grad
    return trained_weights(model)


def weights_of(backbone) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in backbone.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def kinds(backbone) -> dict[str, Refinement]:
    parts = [adapter(backbone, seed=seed) for seed in (1, 2, 3)]
    return {"adapter": parts[0], "soup": soup(parts), "whole": whole(backbone)}


@pytest.mark.parametrize("kind", ["adapter", "soup", "whole"])
def test_a_model_opened_from_its_files_is_the_one_that_was_made(backbone, kinds, kind, samples, tmp_path):
    (tmp_path / "base" / "model").mkdir(parents=True)
    backbone.save(tmp_path / "base" / "model")
    (tmp_path / "refined").mkdir()
    kinds[kind].save(tmp_path / "refined")
    inputs = {name: types.SimpleNamespace(path=tmp_path / name) for name in ("base", "refined")}
    config = TINY.backbone
    opened = open_model({"model": inputs["base"], "adapter": inputs["refined"]}, config)
    made, _ = put_weights(copy.deepcopy(backbone), kinds[kind], probe_of(samples[:3]))
    assert same(weights_of(opened), weights_of(made)) and opened.contract == made.contract
    assert not same(weights_of(opened), weights_of(backbone))
    assert not opened.model.training
    assert same(weights_of(open_model({"model": inputs["base"]}, config)), weights_of(backbone))


@pytest.mark.parametrize("kind", ["adapter", "soup", "whole"])
def test_equal_refinements_give_equal_bytes_that_name_no_place(backbone, kinds, kind, tmp_path):
    backbone.model.name_or_path = str(tmp_path)  # peft would write where the base lies
    again = {"adapter": adapter(backbone, seed=1), "whole": whole(backbone)}.get(kind, kinds[kind])
    for folder, refinement in (("first", kinds[kind]), ("second", again)):
        (tmp_path / folder).mkdir()
        refinement.save(tmp_path / folder)
    files = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    whole_weights, adapters = {"weights.safetensors"}, {"adapter_config.json", "adapter_model.safetensors"}
    assert files.keys() == (whole_weights if kind == "whole" else adapters)
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    assert not any(str(tmp_path).encode() in content for content in files.values())
    read = open_refinement(tmp_path / "first")
    assert same(read.weights, kinds[kind].weights) and (read.lora is None) == (kind == "whole")


def test_peft_opens_the_files_without_us(backbone, kinds, tmp_path):
    kinds["adapter"].save(tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(backbone.model), tmp_path).merge_and_unload()
    assert same(theirs.state_dict(), weights_of(put_weights(backbone, kinds["adapter"])[0]))


def test_a_soup_is_the_one_that_peft_would_cook(backbone):
    parts = [adapter(backbone, seed=seed) for seed in (1, 2, 3)]
    model = peft.get_peft_model(copy.deepcopy(backbone.model), parts[0].lora, adapter_name="0")
    for number, part in enumerate(parts):
        if number:
            model.add_adapter(str(number), part.lora)
        peft.set_peft_model_state_dict(model, part.weights, adapter_name=str(number))
    model.add_weighted_adapter(["0", "1", "2"], [1 / 3] * 3, "soup", combination_type="cat")
    model.set_adapter("soup")
    expected = model.merge_and_unload().state_dict()
    one, two, three = (put_weights(copy.deepcopy(backbone), part)[0] for part in parts)
    mixed, _ = put_weights(backbone, soup(parts))
    assert same(weights_of(mixed), expected) and mixed.contract == one.contract
    for name in mixed.contract.adapter_keys:
        mean = sum(model.model.state_dict()[name].double() for model in (one, two, three)) / 3
        assert torch.allclose(expected[name].double(), mean, atol=1e-6)


def test_what_does_not_fit_the_model_is_refused(backbone, kinds):
    with pytest.raises(ValueError, match="qkv"):
        add_adapter(copy.deepcopy(backbone), dataclasses.replace(CONFIG, lora_targets=("qkv",)))
    for kind in ("adapter", "whole"):
        renamed = {name.replace("layers.0", "layers.7"): value for name, value in kinds[kind].weights.items()}
        with pytest.raises(RefinementError, match=r"(does|do) not fit"):
            put_weights(copy.deepcopy(backbone), dataclasses.replace(kinds[kind], weights=renamed))
    lacking = dict(list(kinds["adapter"].weights.items())[1:])
    with pytest.raises(RefinementError, match="does not fit"):
        put_weights(backbone, dataclasses.replace(kinds["adapter"], weights=lacking))


def test_a_merge_that_changes_vectors_is_refused(backbone, kinds):
    vectors = iter([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])])
    with pytest.raises(RefinementError, match=r"cosine 0\.0"):
        put_weights(backbone, kinds["adapter"], lambda model: next(vectors))
