"""A second family of models is one file: one that only these tests know goes through both stages' parts."""

import dataclasses

import pytest
import torch

from stages.backbones.adapters import add_adapter, choose_trained, put_weights, trained_weights
from stages.backbones.backbone import FAMILIES, Backbone, load_backbone
from stages.recipes import get_recipe
from stages.train.batches import Pass, collate
from stages.train.flops import TrainedParts
from stages.train.forward import embed, embed_with, label_losses, probe_of
from stages.train.ledger import counts_of
from stages.train.sequences import SequenceBuilder
from tests.unit.stages.backbones import made_up

TINY = get_recipe("tiny")


@pytest.fixture
def other(backbone, monkeypatch) -> Backbone:
    monkeypatch.setitem(FAMILIES, "made_up", made_up)
    config = made_up.config_class(
        vocab_size=len(backbone.tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_token_id=backbone.tokenizer.convert_tokens_to_ids(made_up.IMAGE_TOKEN),
    )
    torch.manual_seed(0)
    return dataclasses.replace(backbone, model=made_up.model_class(config).eval())


def test_it_is_saved_loaded_embedded_and_trained(process_group, other, samples, tmp_path):
    other.save(tmp_path)
    loaded = load_backbone(tmp_path, TINY.backbone)
    builder = SequenceBuilder(loaded)
    pages = [builder.summarize_image(sample.image()) for sample in samples]
    together = collate(pages, pad_token=builder.pad_token)
    with torch.no_grad():
        vectors = embed(loaded, together)
        alone = [embed(other, collate([page], pad_token=builder.pad_token)) for page in pages]
        features = loaded.family.image_features(loaded.model, together)
        assert torch.allclose(vectors, torch.cat(alone), atol=1e-5)
        assert torch.equal(vectors, embed_with(loaded.model, together, images=features))
    rows = [builder.transcribe_image(sample.image(), sample.text) for sample in samples]
    batch = collate(rows, pad_token=builder.pad_token)
    losses = label_losses(loaded.model, batch)
    losses.sum().backward()
    assert torch.isfinite(losses).all() and loaded.family.vision(loaded.model).weight.grad.any()
    passes, labels = [Pass(batch=batch, numbers=list(range(len(rows))))], len(losses)
    counts = counts_of(rows, [passes], loaded.model, TrainedParts(), label_tokens=labels, logits=labels)
    assert counts["flops"] > 0


def test_its_decoder_takes_an_adapter(other, samples):
    probe = probe_of(samples[:2])
    before = probe(other)
    model = add_adapter(other, TINY.refine)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            assert ".model.layers." in name
            torch.nn.init.normal_(parameter, std=0.1)
    refinement = trained_weights(model)
    refined, weight_change = put_weights(dataclasses.replace(other, model=model.unload()), refinement, probe)
    assert weight_change > 0 and not torch.equal(probe(refined), before)
    choose_trained(other, dataclasses.replace(TINY.refine, trained="decoder"))
    assert not other.model.tower.weight.requires_grad and not other.model.lm_head.weight.requires_grad
