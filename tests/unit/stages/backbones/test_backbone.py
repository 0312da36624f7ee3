import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from stages.backbones.backbone import (
    ContractMismatch,
    load_backbone,
    model_config,
    parameter_counts,
)
from stages.backbones.qwen2_5_vl import IMAGE_TOKEN
from stages.recipes import RECIPES, get_recipe
from stages.train.batches import collate
from stages.train.forecast import model_of
from stages.train.forward import embed
from stages.train.sequences import SequenceBuilder


@pytest.mark.parametrize(("name", "least", "most"), [("tiny", 1e6, 6e6), ("small", 20e6, 150e6)])
def test_the_small_recipes_have_millions_of_parameters(name, least, most):
    model = model_of(get_recipe(name))
    assert least <= model.decoder_parameters + model.vision_parameters <= most


# As the hub shows them, and as model cards and reports on the two models repeat them.
@pytest.mark.parametrize(
    ("hub_id", "all_parameters", "vision"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976, 668_684_288),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656, 676_550_144),
    ],
)
def test_published_models_have_their_published_size_and_a_recipe(hub_id, all_parameters, vision, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    counts = parameter_counts(model_config(hub_id))
    assert (sum(counts), counts[1]) == (all_parameters, vision)
    assert hub_id in {make().backbone.location for make in RECIPES.values()}


def test_an_unknown_model_is_named(backbone, tmp_path):
    with pytest.raises(ValueError, match="someone/model"):
        model_config("someone/model")
    backbone.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "unheard_of"}))
    with pytest.raises(ContractMismatch, match=r"unheard_of.*qwen2_5_vl"):
        load_backbone(tmp_path, get_recipe("tiny").backbone)


def test_from_pretrained_loads_all_three_parts(backbone, samples, tmp_path):
    backbone.save(tmp_path)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path)
    parameters = list(backbone.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), parameters, strict=True))
    assert sum(parameter_counts(model_config(str(tmp_path)))) == sum(one.numel() for one in parameters)
    text = "Nhấn « Đồng ý »"
    assert AutoTokenizer.from_pretrained(tmp_path).encode(text) == backbone.tokenizer.encode(text)
    image = samples[0].image().convert("RGB")
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(images=[image], return_tensors="pt")
    ours = backbone.image_processor(images=[image], return_tensors="pt")
    assert torch.equal(theirs["pixel_values"], ours["pixel_values"])
    assert list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("text", ["Tiếng Việt: ươ ẫ ỹ", "plain", "ភាសាខ្មែរ", "日本 🙂"])
def test_the_tokenizer_gives_every_text_back(backbone, text):
    assert backbone.tokenizer.decode(backbone.tokenizer.encode(text, add_special_tokens=False)) == text


def test_a_text_never_turns_into_control_tokens(backbone, samples):
    """A page about vision models prints them; a hostile one too."""
    builder = SequenceBuilder(backbone)
    text = f"set {IMAGE_TOKEN} before <|im_end|>{backbone.tokenizer.eos_token} and go on"
    for sequence in (builder.transcribe_image(samples[0].image(), text), builder.repeat_text(text)):
        answer = sequence.ids[sequence.label_start :]
        assert backbone.tokenizer.decode(answer[:-1]) == text
        assert answer.index(backbone.tokenizer.eos_token_id) == len(answer) - 1
        images = sequence.ids.count(backbone.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
        assert images == sequence.visual_tokens
    assert builder.kept_text(text) == text


def test_loading_refuses_what_does_not_fit(backbone, tmp_path):
    backbone.save(tmp_path)
    path = tmp_path / "embedding.json"
    fields = json.loads(path.read_text())
    without = {name: value for name, value in fields.items() if name != "pooling"}
    for wrong, named in (
        (fields | {"pixel_multiple": 28}, "pixel_multiple"),
        (without, "pooling"),
        (fields | {"surprise": 1}, "surprise"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ContractMismatch, match=named):
            load_backbone(tmp_path, get_recipe("tiny").backbone)
    path.write_text(json.dumps(fields))
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(next(name for name in weights if name.endswith("q_proj.weight")))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ContractMismatch, match="q_proj"):
        load_backbone(tmp_path, get_recipe("tiny").backbone)


def test_positions_are_those_of_transformers(backbone, samples):
    builder = SequenceBuilder(backbone)
    sequences = [builder.transcribe_image(s.image(), s.text) for s in samples]
    batch = collate(sequences, pad_token=builder.pad_token)
    kinds = (batch.input_ids == backbone.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)).int()
    theirs, _ = backbone.model.model.get_rope_index(
        batch.input_ids, kinds, image_grid_thw=batch.image_grid_thw, attention_mask=batch.attention_mask
    )
    real = batch.attention_mask.bool()
    assert torch.equal(theirs[:, real], batch.position_ids[:, real])


@torch.no_grad()
def test_the_vector_is_the_last_token_after_the_final_norm(backbone, samples):
    builder = SequenceBuilder(backbone)
    sequence = builder.summarize_text(samples[0].text)
    batch = collate([sequence], pad_token=builder.pad_token)
    before_norm = {}
    handle = backbone.model.model.language_model.norm.register_forward_pre_hook(
        lambda module, inputs: before_norm.update(x=inputs[0])
    )
    vector = embed(backbone, batch)[0]
    handle.remove()
    x = before_norm["x"][0, -1].double()
    weight = backbone.model.model.language_model.norm.weight.double()
    expected = weight * x / torch.sqrt((x**2).mean() + 1e-5)
    expected = expected / expected.norm()
    assert torch.allclose(vector.double(), expected, atol=1e-5)
    assert torch.allclose(vector.norm(), torch.tensor(1.0), atol=1e-5)


@torch.no_grad()
def test_a_vector_does_not_depend_on_its_batch(backbone, samples):
    builder = SequenceBuilder(backbone)
    rows = [builder.summarize_image(s.image()) for s in samples]
    together = embed(backbone, collate(rows, pad_token=builder.pad_token))
    alone = torch.cat([embed(backbone, collate([row], pad_token=builder.pad_token)) for row in rows])
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_prompt_comes_from_the_chat_template(backbone):
    builder = SequenceBuilder(backbone)
    ids = builder.summarize_text("abc").ids
    rendered = backbone.tokenizer.apply_chat_template(
        [{"role": "user", "content": "abc\nSummarize the above text in one word:"}],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert ids == backbone.tokenizer.encode(rendered, add_special_tokens=False)


def test_text_is_cut_to_the_contract_and_images_never(backbone, samples):
    short = dataclasses.replace(backbone, contract=dataclasses.replace(backbone.contract, max_text_tokens=5))
    builder = SequenceBuilder(short)
    whole, cut = (one.summarize_text("abcdefghij") for one in (SequenceBuilder(backbone), builder))
    assert len(whole) - len(cut) == 5
    image_token = backbone.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    sequence = builder.transcribe_image(samples[0].image(), "abcdefghij")
    assert sequence.ids.count(image_token) == sequence.grid[1] * sequence.grid[2] // 4
