"""Model FLOPs by formula, against torch's own count of the matrix products that really ran."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.vision_utils import get_vision_window_index

from stages.backbones.qwen2_5_vl import shape
from stages.train.flops import TrainedParts, forward_flops, training_flops, workload
from tests.unit.stages.train.configs import IMAGE, PROJECTIONS, config_of, training


def small_config() -> Qwen2_5_VLConfig:
    vision = {"depth": 4, "hidden_size": 48, "intermediate_size": 112}
    # Plain matrix products, which torch counts exactly.
    return config_of(layers=3, vision=vision, attn_implementation="eager")


SHAPE = shape(small_config())


def counted(trained: TrainedParts, grid: tuple[int, int, int] | None, *, rows=2, length=70, labels=9):
    """FLOPs that torch counts, of the forward pass alone and with the backward pass; and our workload."""
    config = small_config()
    torch.manual_seed(0)
    inner = training(Qwen2_5_VLForConditionalGeneration(config), trained)
    input_ids = torch.randint(3, 300, (rows, length))
    inputs = {}
    if grid:
        input_ids[:, 1 : 1 + grid[1] * grid[2] // 4] = IMAGE
        inputs["pixel_values"] = torch.randn(rows * grid[1] * grid[2], 3 * 2 * 8**2)
        inputs["image_grid_thw"] = torch.tensor([grid] * rows)
    positions = torch.arange(length).expand(3, rows, length)
    with FlopCounterMode(display=False) as forward:
        hidden = inner.model(input_ids=input_ids, position_ids=positions, use_cache=False, **inputs)
        logits = inner.lm_head(hidden.last_hidden_state.flatten(0, 1)[:labels])
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    work = workload(
        shape(config), lengths=[length] * rows, label_positions=labels, grids=[grid] * rows if grid else []
    )
    return forward.get_total_flops(), backward.get_total_flops() + forward.get_total_flops(), work


# Full windows; windows cut at both edges.
GRIDS = [(1, 16, 8), (1, 10, 14)]


@pytest.mark.parametrize("grid", [None, *GRIDS])
@pytest.mark.parametrize(
    ("trained", "tolerance"),
    [
        (TrainedParts(), 1e-3),
        (TrainedParts(vision=False), 1e-3),
        (TrainedParts(vision=False, lora_rank=8, lora_targets=PROJECTIONS), 1e-3),
        # All but the keys of the first layer.
        (TrainedParts(vision=False, lora_rank=8, lora_targets=("q_proj", "v_proj", "o_proj")), 0.02),
    ],
)
def test_training_costs_what_torch_counts(grid, trained, tolerance):
    forward, both, work = counted(trained, grid)
    ours = forward_flops(SHAPE, work)
    if not trained.lora_rank:
        assert ours.decoder + ours.vision == pytest.approx(forward, rel=1e-4)
    assert training_flops(SHAPE, work, trained) == pytest.approx(both, rel=tolerance)


@given(rows=st.integers(1, 20), columns=st.integers(1, 20))
def test_windows_are_those_of_transformers(rows, columns):
    grid = (1, 2 * rows, 2 * columns)
    _, boundaries = get_vision_window_index(
        torch.tensor([grid]), spatial_merge_size=2, window_size=64, patch_size=8
    )
    sizes = boundaries.unique_consecutive().diff()
    assert SHAPE.window_side == 8
    assert workload(SHAPE, lengths=[], grids=[grid]).squared_windows == int((sizes**2).sum())


@given(
    first=st.lists(st.integers(1, 500), max_size=5),
    second=st.lists(st.integers(1, 500), max_size=5),
    vision=st.booleans(),
)
def test_two_batches_cost_as_much_as_one_with_both(first, second, vision):
    trained = TrainedParts(vision=vision)
    parts = [workload(SHAPE, lengths=lengths, grids=[(1, 8, 4)]) for lengths in (first, second)]
    whole = workload(SHAPE, lengths=first + second, grids=[(1, 8, 4)] * 2)
    assert parts[0] + parts[1] == whole
    separate = sum(training_flops(SHAPE, part, trained) for part in parts)
    assert training_flops(SHAPE, whole, trained) == pytest.approx(separate)
    assert training_flops(SHAPE, whole * 0.5, trained) == pytest.approx(separate / 2)


def test_a_language_model_alone_costs_palms_formula():
    """6 N + 12 L H Q T a token, N without the embeddings (arXiv 2204.02311, appendix B)."""
    length, decoder = 50, dataclasses.replace(SHAPE, key_value_heads=SHAPE.heads)
    matrices = 3 * (4 * 64**2 + 3 * 64 * 176) + 300 * 64
    palm = 6 * matrices + 12 * 3 * 64 * length
    work = workload(decoder, lengths=[length], label_positions=length)
    assert training_flops(decoder, work, TrainedParts()) == pytest.approx(palm * length)
