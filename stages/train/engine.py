"""The DeepSpeed engine that both training stages use, and the few facts about ranks that they need.

A stage hands over a root module whose forward returns a *sum* of losses, and says by how many label tokens
(or rows), counted over all ranks, the sum is divided. The gradient is then that of the mean over the global
batch, whatever the number of ranks and however the rows are spread over them.
"""

import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import deepspeed
import numpy as np
import torch
from deepspeed.ops import __compatible_ops__ as compatible_ops
from torch import distributed

from stages.recipes import EngineConfig
from stages.train.job import worker

Row = TypeVar("Row")


def start_process_group(processes: int = 1) -> None:
    """Join the other ranks of this worker: `processes` consecutive ones of those that torchrun started.

    DeepSpeed's shared-memory operator would be compiled here (minutes, and a compiler); gloo does its work.
    """
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    compatible_ops["deepspeed_shm_comm"] = False
    os.environ.setdefault("LOCAL_RANK", "0")
    store = distributed.HashStore()
    if processes > 1:
        common, _, _ = next(distributed.rendezvous("env://"))
        store = distributed.PrefixStore(f"worker-{worker(processes)}", common)
    distributed.init_process_group(
        "gloo", store=store, rank=int(os.environ.get("RANK", "0")) % processes, world_size=processes
    )
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)


def rank() -> int:
    return distributed.get_rank()


def world_size() -> int:
    return distributed.get_world_size()


def own_rows(rows: Sequence[Row]) -> list[Row]:
    """Return this rank's rows of a global batch: every world-size-th, so that lengths are spread evenly."""
    return list(rows[rank() :: world_size()])


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch, the same on every rank."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def warmup_then_constant(warmup_steps: int) -> Callable[[int], float]:
    """Learning-rate factor: a linear warm-up, then 1. It does not depend on where the run ends."""
    return lambda step: min(1.0, (step + 1) / max(1, warmup_steps))


def warmup_then_decay(warmup_steps: int, decay_steps: int, total_steps: int) -> Callable[[int], float]:
    """Learning-rate factor: a linear warm-up, 1, and a linear fall to 0 over the last `decay_steps`."""
    warmup = warmup_then_constant(warmup_steps)
    return lambda step: min(warmup(step), max(0.0, (total_steps - step) / decay_steps))


def build_engine(
    root: torch.nn.Module,
    config: EngineConfig,
    *,
    learning_rate: float,
    schedule: Callable[[int], float],
    weight_decay: float,
    max_gradient_norm: float,
) -> deepspeed.DeepSpeedEngine:
    """Wrap `root` for training with AdamW under the ZeRO stage and precision of `config`."""
    parameters = [parameter for parameter in root.parameters() if parameter.requires_grad]
    # The micro batch only feeds DeepSpeed's bookkeeping: token budgets decide how many rows a step has.
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_gradient_norm,
        "zero_optimization": {"stage": config.zero_stage},
        "bf16": {"enabled": config.precision == "bfloat16"},
        "zero_allow_untested_optimizer": True,
    }
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    engine, *_ = deepspeed.initialize(
        model=root, model_parameters=parameters, optimizer=optimizer, lr_scheduler=scheduler, config=settings
    )
    return engine


def global_sum(value: float) -> float:
    """Sum a number over all ranks."""
    total = torch.tensor(float(value), dtype=torch.float64)
    distributed.all_reduce(total)
    return float(total)


def step_engine(engine: deepspeed.DeepSpeedEngine, loss_sum: torch.Tensor, global_count: float) -> None:
    """Descend along the gradient of `loss_sum` (summed over ranks) divided by `global_count`.

    DeepSpeed averages gradients over ranks, hence the factor.
    """
    engine.backward(loss_sum * (world_size() / global_count))
    engine.step()


@contextmanager
def gathered(module: torch.nn.Module) -> Iterator[None]:
    """Have whole parameters on every rank inside the block; under ZeRO 3 they are sharded otherwise."""
    with deepspeed.zero.GatheredParameters(list(module.parameters()), modifier_rank=None):
        yield
