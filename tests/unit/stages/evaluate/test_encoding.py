"""Inputs that are made once and kept within bounds give every model the vectors it gives alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.evaluate import encoding
from stages.evaluate.encoding import KINDS, TaskEncoder, encode, prepared_images
from stages.evaluate.search_task import build_task
from stages.recipes import get_recipe
from stages.train.batches import collate
from stages.train.forward import embed
from stages.train.sequences import SequenceBuilder

CONFIG, SIZES = get_recipe("tiny").evaluate.search, {"geometry_samples": 5, "batch_size": 3}


def every_kind(encoder, backbone):
    return {kind: encoder.encode(backbone, kind) for kind in KINDS}


@pytest.mark.parametrize("kept", [0, 20_000, 2**30])
def test_images_are_kept_while_they_fit_and_made_again_otherwise(backbone, samples, monkeypatch, kept):
    monkeypatch.setattr(encoding, "KEPT_IMAGE_BYTES", kept)
    builder = SequenceBuilder(backbone)
    expected = [builder.summarize_image(sample.image()) for sample in samples]
    sizes = [one.patches.nbytes for one in expected]
    sequences = prepared_images(builder, samples)
    first, second = list(sequences), list(sequences)
    for one, again, alone in zip(first, second, expected, strict=True):
        assert one.ids == again.ids == alone.ids
        assert (one.patches == alone.patches).all() and (again.patches == alone.patches).all()
    reused = [one is again for one, again in zip(first, second, strict=True)]
    assert sum(size for size, kept_one in zip(sizes, reused, strict=True) if kept_one) <= kept
    assert all(reused) == (kept >= sum(sizes)) and any(reused) == (kept >= min(sizes))


@torch.no_grad()
def test_vectors_are_the_contracts_and_layers_the_last_positions_hidden_states(backbone, samples):
    builder, chosen = SequenceBuilder(backbone), [6, 0, 3]
    rows = [builder.summarize_image(sample.image()) for sample in samples]
    expected = embed(backbone, collate(rows, pad_token=builder.pad_token)).numpy()
    found = encode(backbone, prepared_images(builder, samples), 3, layer_rows=chosen)
    assert found.vectors == pytest.approx(expected, abs=1e-5)
    for number, row in enumerate(chosen):
        alone = collate([rows[row]], pad_token=builder.pad_token)
        output = backbone.family.hidden_states(backbone.model, alone, output_hidden_states=True)
        states = torch.stack([state[0, -1] for state in output.hidden_states])
        states[-1] = output.last_hidden_state[0, -1]
        assert found.layers[:, number] == pytest.approx(states.numpy(), abs=1e-4)


@pytest.mark.parametrize("prompt", [None, "\nIn one word:"])
@torch.no_grad()
def test_a_second_model_is_encoded_as_if_it_were_alone(backbone, split_folder, queries_folder, prompt):
    task = build_task(split_folder, queries_folder, CONFIG)
    encoder = TaskEncoder(task, **SIZES)
    first = every_kind(encoder, backbone)
    if prompt is None:
        for parameter in backbone.model.parameters():
            parameter.mul_(1.1)
    else:  # it takes other inputs
        contract = replace(backbone.contract, image_prompt=prompt, text_prompt=prompt, adapter_keys=("a",))
        backbone = replace(backbone, contract=contract)
    second, alone = every_kind(encoder, backbone), every_kind(TaskEncoder(task, **SIZES), backbone)
    for kind, one in second.items():
        assert (one.vectors == alone[kind].vectors).all() and (one.layers == alone[kind].layers).all()
        assert (one.vectors != first[kind].vectors).any()


@pytest.mark.parametrize("kept", [0, 2**30])
@torch.no_grad()
def test_a_model_with_the_same_vision_tower_takes_what_that_made_of_the_images(
    backbone, split_folder, queries_folder, monkeypatch, kept
):
    monkeypatch.setattr(encoding, "KEPT_IMAGE_BYTES", kept)
    made, image_features = [], backbone.family.image_features

    def counted(model, batch):
        made.append(batch)
        return image_features(model, batch)

    monkeypatch.setattr(backbone.family, "image_features", counted)
    task = build_task(split_folder, queries_folder, CONFIG)
    encoder = TaskEncoder(task, **SIZES)
    encoder.encode(backbone, "images")
    batches = len(made)
    for parameter in backbone.family.decoder(backbone.model).parameters():
        parameter.mul_(1.1)
    again = encoder.encode(backbone, "images").vectors
    assert len(made) == (batches if kept else 2 * batches)
    assert (again == TaskEncoder(task, **SIZES).encode(backbone, "images").vectors).all()
    seen = len(made)
    next(backbone.family.vision(backbone.model).parameters()).mul_(1.1)
    moved = encoder.encode(backbone, "images").vectors
    assert len(made) == seen + batches and (moved != again).any()


def test_compared_layers_are_of_the_same_pages_on_both_sides(backbone, split_folder, queries_folder):
    task = build_task(split_folder, queries_folder, CONFIG)
    encoded = every_kind(TaskEncoder(task, **SIZES), backbone)
    images, texts = encoded["images"], encoded["texts"]
    assert images.layers.shape == texts.layers.shape and images.layers.shape[1] == 5
    for side, rows in ((images, task.with_text[:5]), (texts, range(5))):
        last = side.layers[-1] / np.linalg.norm(side.layers[-1], axis=1, keepdims=True)
        assert last == pytest.approx(side.vectors[list(rows)], abs=1e-6)
