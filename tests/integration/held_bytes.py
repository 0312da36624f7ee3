"""Weighs what DeepSpeed holds on rank 0 after two backward passes and a step; started by test_memory.py."""

import json
from pathlib import Path

import torch

from stages.backbones.config import TinyShape
from stages.backbones.tiny import build_tiny_backbone
from stages.recipes import get_recipe
from stages.train.engine import rank, start_process_group
from stages.train.lean_deepspeed import deepspeed


def main(job_path: Path) -> None:
    job = json.loads(job_path.read_text())
    start_process_group(job["processes"])
    held = [weigh(zero_stage, precision) for zero_stage, precision in job["cases"]]
    if rank() == 0:
        Path(job["output"]).write_text(json.dumps(held))


def weigh(zero_stage: int, precision: str) -> dict[str, int]:
    """Bytes of weights, gradients before their reduction, and optimiser under one ZeRO stage."""
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
    states = optimizer.optimizer.state.values()
    moments = sum(sizes([state["exp_avg"], state["exp_avg_sq"]]) for state in states)
    engine.destroy()
    return {"weights": weights, "gradients": gradients, "optimizer": sizes(copies) + moments}


def sizes(tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
