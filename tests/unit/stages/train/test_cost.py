"""Predicted bytes, against those of real models, optimisers and graphs."""

import pytest
import torch
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from stages.backbones.config import TinyShape
from stages.backbones.qwen2_5_vl import shape
from stages.backbones.tiny import build_tiny_backbone
from stages.recipes import get_recipe
from stages.refine.gradcache import frozen_image_features
from stages.train.config import BUCKET_ELEMENTS, LABELS_AT_ONCE, EngineConfig
from stages.train.cost import (
    LIVE_ELEMENTS,
    activation_bytes,
    adapter_parameters,
    feature_bytes,
    logit_bytes,
    state_bytes,
)
from stages.train.engine import plan_passes
from stages.train.flops import TrainedParts
from stages.train.sequences import SequenceBuilder
from tests.unit.stages.train.configs import PROJECTIONS, config_of, moments, sizes, training

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def tiny_model() -> Qwen2_5_VLForConditionalGeneration:
    return build_tiny_backbone(TinyShape(), get_recipe("tiny").backbone, seed=0).model


def test_a_plain_float32_training_is_predicted_to_the_byte():
    model = tiny_model()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters)
    sum(parameter.sum() for parameter in parameters).backward()
    optimizer.step()
    trained = sum(parameter.numel() for parameter in parameters)
    predicted = state_bytes(EngineConfig(zero_stage=0), trained=trained, frozen=0, processes=1)
    assert predicted == {
        "weights": sizes(parameters),
        "gradients": sizes(parameter.grad for parameter in parameters),
        "optimizer": moments(optimizer),
        "buckets": 0,
    }


def test_shards_are_those_of_the_zero_paper():
    """7.5 billion parameters on 64 GPUs: 120 GB without ZeRO, 31.4 with stage 1 (arXiv 1910.02054, figure 1).

    Without ZeRO 16 bytes each: 2 + 2 for weights and gradients, 4 + 4 + 4 for AdamW over a float32 copy.
    """

    def without_buckets(stage: int) -> dict[str, float]:
        engine = EngineConfig(zero_stage=stage, precision="bfloat16")
        states = state_bytes(engine, trained=7_500_000_000, frozen=0, processes=64)
        return {name: size / 1e9 for name, size in states.items() if name != "buckets"}

    assert sum(without_buckets(0).values()) == pytest.approx(120)
    assert sum(without_buckets(1).values()) == pytest.approx(31.4, abs=0.05)
    assert without_buckets(2) == without_buckets(1)  # gradients are reduced once, at the end of a step
    assert without_buckets(3)["weights"] == pytest.approx(15 / 64)


def test_adapters_are_counted_as_peft_makes_them(backbone):
    trained = TrainedParts(vision=False, lora_rank=4, lora_targets=("q_proj", "v_proj", "down_proj"))
    model = training(backbone.model, trained)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert adapter_parameters(backbone.shape, trained) == count


def deep_config() -> Qwen2_5_VLConfig:
    """Deep, so that what a model has once (embeddings, merger, last norm) weighs little beside its layers."""
    vision = {"depth": 12, "hidden_size": 96, "intermediate_size": 200, "temporal_patch_size": 1}
    return config_of(layers=10, vision=vision)


DEEP = shape(deep_config())


def saved_bytes(trained: TrainedParts, engine: EngineConfig, *, grid: tuple[int, int, int] | None) -> int:
    """Bytes that torch keeps for the backward pass, weights left out; two sequences of 60 and 57."""
    config, length = deep_config(), 60
    model = Qwen2_5_VLForConditionalGeneration(config).to(DTYPES[engine.precision]).train()
    inner = training(model, trained).model
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)  # kept, or its address would be used again
        return tensor

    rows = [torch.randint(3, 300, (length,)), torch.randint(3, 300, (length - 3,))]
    inputs = {}
    if grid:
        for row in rows:
            row[1 : 1 + grid[1] * grid[2] // 4] = 2
        inputs["pixel_values"] = torch.randn(2 * grid[1] * grid[2], 3 * 8**2, dtype=inner.dtype)
        inputs["image_grid_thw"] = torch.tensor([grid, grid])
    if engine.packing:
        input_ids, mask = torch.cat(rows)[None], None
        positions = torch.cat([torch.arange(len(row)) for row in rows]).expand(4, 1, -1)
    else:
        input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side="left")
        mask = (input_ids != 0).int()
        positions = torch.arange(length).expand(3, 2, length)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        inner(input_ids=input_ids, attention_mask=mask, position_ids=positions, use_cache=False, **inputs)
    return sum(size for size, _ in saved.values())


FULL = TrainedParts()
FROZEN_VISION = TrainedParts(vision=False)
ADAPTED = TrainedParts(vision=False, lora_rank=8, lora_targets=PROJECTIONS)


BATCH = {"positions": 120, "visual_tokens": 64, "longest": 60}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("trained", [FULL, ADAPTED])
def test_a_decoder_saves_what_is_predicted(precision, packing, trained):
    engine = EngineConfig(precision=precision, packing=packing)
    positions = 117 if packing else 120
    predicted = activation_bytes(DEEP, trained, engine, positions=positions, visual_tokens=0, longest=60)
    assert predicted == pytest.approx(saved_bytes(trained, engine, grid=None), rel=0.03)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_trained_vision_tower_saves_what_is_predicted(precision):
    engine = EngineConfig(precision=precision)
    predicted = activation_bytes(DEEP, FULL, engine, **BATCH)
    assert predicted == pytest.approx(saved_bytes(FULL, engine, grid=(1, 16, 8)), rel=0.05)


def test_a_frozen_vision_tower_saves_nothing():
    engine = EngineConfig()
    assert saved_bytes(FROZEN_VISION, engine, grid=(1, 16, 8)) == pytest.approx(
        saved_bytes(FROZEN_VISION, engine, grid=None), rel=0.01
    )
    block, tower = (
        activation_bytes(DEEP, trained, engine, **BATCH)
        - activation_bytes(DEEP, trained, engine, **BATCH | {"visual_tokens": 0})
        for trained in (FROZEN_VISION, FULL)
    )
    assert block * DEEP.vision_layers == tower


def test_a_frozen_towers_outputs_are_what_gradcache_keeps(process_group, backbone, samples):
    backbone.model.requires_grad_(False)
    builder = SequenceBuilder(backbone)
    sequences = [builder.summarize_image(sample.image()) for sample in samples]
    engine = EngineConfig(text_tokens=150)
    micro_batches = plan_passes(sequences, builder, engine)
    kept = [one for passes in micro_batches for one in frozen_image_features(backbone.model, passes)]
    held = sum(image.nbytes for one in kept for images in one.values() for image in images)
    visual_tokens = sum(sequence.visual_tokens for sequence in sequences)
    assert feature_bytes(backbone.shape, engine, visual_tokens) == held


def test_a_loss_saves_one_float32_number_for_each_logit():
    labels = 50
    head = torch.nn.Linear(64, 300, bias=False, dtype=torch.bfloat16)
    hidden = torch.randn(labels, 64, dtype=torch.bfloat16, requires_grad=True)
    saved = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        torch.nn.functional.cross_entropy(head(hidden).float(), torch.zeros(labels, dtype=torch.long))
    one = sizes(tensor for tensor in saved.values() if tensor.shape == (labels, 300))
    assert logit_bytes(DEEP, labels) == 3 * one
    many = 10 * LABELS_AT_ONCE
    assert logit_bytes(DEEP, many) == (many + 2 * LABELS_AT_ONCE) * one / labels


def test_the_sizes_are_those_that_the_engine_uses():
    """Planning does not load DeepSpeed, so it repeats two of its numbers."""
    zero = DeepSpeedZeroConfig()
    assert zero.reduce_bucket_size == BUCKET_ELEMENTS
    assert zero.max_live_parameters == LIVE_ELEMENTS
