"""The planned bytes of weights, gradients and optimiser are those that two DeepSpeed processes hold."""

import json
from pathlib import Path

import pytest
import torch

from stages.backbones.config import TinyShape
from stages.backbones.tiny import build_tiny_backbone
from stages.recipes import get_recipe
from stages.train.config import EngineConfig
from stages.train.cost import state_bytes
from stages.train.engine import rank, start_process_group
from stages.train.lean_deepspeed import deepspeed
from tests.unit.stages.train.configs import moments, sizes

PARAMETERS = 1_452_832  # recipe tiny
VISION = 457_760  # not reached by a text: no gradients
CASES = [(1, "float32"), (1, "bfloat16"), (2, "bfloat16"), (3, "bfloat16")]


def main(job_path: Path) -> None:
    job = json.loads(job_path.read_text())
    start_process_group(job["processes"])
    held = [weigh(zero_stage, precision) for zero_stage, precision in CASES]
    if rank() == 0:
        Path(job["output"]).write_text(json.dumps(held))


def weigh(zero_stage: int, precision: str) -> dict[str, int]:
    """Bytes that this rank holds after two backward passes and a step; gradients before their reduction."""
    model = build_tiny_backbone(TinyShape(), get_recipe("tiny").backbone, seed=0).model
    parameters = list(model.parameters())
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(parameters),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "zero_optimization": {"stage": zero_stage, "stage3_param_persistence_threshold": 0},
            "zero_allow_untested_optimizer": True,
            "bf16": {"enabled": precision == "bfloat16"},
        },
    )
    ids = torch.arange(300, 320)[None]
    with engine.coalesce_grad_reduction():
        for _ in range(2):
            engine.backward(engine(input_ids=ids, labels=ids, use_cache=False).loss)
        gradients = sizes(parameter.grad for parameter in parameters)
    engine.step()
    optimizer = engine.optimizer
    if zero_stage == 3:
        weights = sizes(parameter.ds_tensor for parameter in parameters)
        copies = optimizer.fp32_partitioned_groups_flat
    else:
        weights = sizes(parameters)
        copies = optimizer.single_partition_of_fp32_groups
    held = sizes(copies) + moments(optimizer.optimizer)
    engine.destroy()
    return {"weights": weights, "gradients": gradients, "optimizer": held}


@pytest.fixture(scope="module")
def held(tmp_path_factory, launch) -> dict[tuple[int, str], dict[str, int]]:
    folder = tmp_path_factory.mktemp("memory")
    launch("tests.integration.test_memory", {"processes": 2, "output": str(folder / "held.json")}, folder)
    return dict(zip(CASES, json.loads((folder / "held.json").read_text()), strict=True))


@pytest.mark.parametrize(("zero_stage", "precision"), CASES)
def test_deepspeed_holds_what_is_planned(held, zero_stage, precision):
    engine = EngineConfig(zero_stage=zero_stage, precision=precision)
    planned = state_bytes(engine, trained=PARAMETERS, frozen=0, processes=2)
    width = 4 if precision == "float32" else 2
    # Shards are rounded up a little; a vision tower would have gradients if it had had an image.
    assert held[zero_stage, precision]["weights"] == pytest.approx(planned["weights"], rel=1e-3)
    assert held[zero_stage, precision]["optimizer"] == pytest.approx(planned["optimizer"], rel=1e-3)
    assert held[zero_stage, precision]["gradients"] == planned["gradients"] - width * VISION
