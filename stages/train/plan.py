"""What a recipe's two trainings will need: memory of each GPU, time of a step, GPU-hours.

Pure functions; importing this module loads no torch. Time is FLOPs over an assumed share of the peak (MFU).
Data preparation and evaluation are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stages.recipes import EngineConfig, Recipe
from stages.train.devices import GIB, Device
from stages.train.flops import TrainedParts, Workload, forward_flops, training_flops
from stages.train.memory import (
    Memory,
    activation_bytes,
    adapter_parameters,
    feature_bytes,
    logit_bytes,
    state_bytes,
)
from stages.train.workloads import (
    PROMPT_TOKENS,
    PageSizes,
    largest_page,
    pretrain_workload,
    refine_workload,
)

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLConfig

ASSUMED_MFU = 0.35
RESERVED = 2 * GIB  # an allowance for the CUDA context, NCCL and fragmentation


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model to train: its configuration and how many parameters its two parts have."""

    config: Qwen2_5_VLConfig
    decoder_parameters: int
    vision_parameters: int


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One training stage: CGP is one training (cell), CL one for each dose, seed and arm."""

    stage: Literal["pretrain", "refine"]
    engine: EngineConfig
    processes: int
    """GPUs of one cell."""
    cells: int
    cells_at_once: int
    steps: int
    """Optimiser steps of one cell."""
    examples_per_step: int
    trained_parameters: int
    frozen_parameters: int
    memory: Memory
    flops_per_step: float
    """Of all GPUs of the cell; GradCache's first pass counts, padding does not."""
    step_seconds: float

    @property
    def seconds(self) -> float:
        """Of all cells, as many at once as there are GPUs for."""
        return math.ceil(self.cells / self.cells_at_once) * self.steps * self.step_seconds


def plan_pretrain(
    recipe: Recipe, model: Model, *, gpus: int, device: Device, mfu: float, page: PageSizes
) -> StagePlan:
    """Plan CGP up to the highest dose, on all GPUs. `page`: mean sizes; memory is that of the largest."""
    config, pretrain = model.config, recipe.pretrain
    trained = TrainedParts(vision=pretrain.train_vision)
    frozen = 0 if trained.vision else model.vision_parameters
    parameters = model.decoder_parameters + model.vision_parameters - frozen
    work = pretrain_workload(recipe, config, page) * pretrain.batch_size
    flops = training_flops(config, work, trained)
    return StagePlan(
        stage="pretrain",
        engine=pretrain.engine,
        processes=gpus,
        cells=1,
        cells_at_once=1,
        steps=max(pretrain.doses) // pretrain.batch_size,
        examples_per_step=pretrain.batch_size,
        trained_parameters=parameters,
        frozen_parameters=frozen,
        memory=_pretrain_memory(recipe, config, trained, parameters, frozen, processes=gpus, device=device),
        flops_per_step=flops,
        step_seconds=flops / (gpus * device.peak(pretrain.engine.precision) * mfu),
    )


def _pretrain_memory(
    recipe: Recipe,
    config: Qwen2_5_VLConfig,
    trained: TrainedParts,
    parameters: int,
    frozen: int,
    *,
    processes: int,
    device: Device,
) -> Memory:
    engine, page = recipe.pretrain.engine, largest_page(recipe)
    rows = math.ceil(recipe.pretrain.batch_size / processes)
    longest = PROMPT_TOKENS + page.text_tokens + max(page.visual_tokens, page.text_tokens)
    positions = min(engine.text_tokens, rows * longest)
    most_labels = page.text_tokens / (
        PROMPT_TOKENS + page.text_tokens + min(page.visual_tokens, page.text_tokens)
    )
    visual_tokens = min(engine.visual_tokens, rows * page.visual_tokens)
    return Memory(
        **state_bytes(engine, trained=parameters, frozen=frozen, processes=processes),
        activations=activation_bytes(
            config, trained, engine, positions=positions, visual_tokens=visual_tokens, longest=longest
        ),
        logits=logit_bytes(config, math.ceil(most_labels * positions)),
        vision_features=0,
        reserved=RESERVED if device.memory else 0,
    )


def plan_refine(
    recipe: Recipe, model: Model, *, gpus: int, device: Device, mfu: float, page: PageSizes
) -> StagePlan:
    """Plan all cells of CL, each on the GPUs that the recipe names, several side by side."""
    config, refine = model.config, recipe.refine
    trained = TrainedParts(vision=False, lora_rank=refine.lora_rank, lora_targets=refine.lora_targets)
    processes = min(refine.engine.processes, gpus)
    cells = len(recipe.pretrain.doses) * len(refine.seeds) * len(refine.arms)
    flops = [
        training_flops(config, work, trained)
        + _takes_two_passes(recipe, config, work, processes) * forward_flops(config, work).decoder
        for work in (refine_workload(recipe, config, page, arm) * refine.batch_size for arm in refine.arms)
    ]
    mean_flops = sum(flops) / len(flops)
    parameters = adapter_parameters(config, trained) + refine.learn_temperature
    frozen = model.decoder_parameters + model.vision_parameters
    return StagePlan(
        stage="refine",
        engine=refine.engine,
        processes=processes,
        cells=cells,
        cells_at_once=min(cells, gpus // processes),
        steps=refine.steps,
        examples_per_step=refine.batch_size,
        trained_parameters=parameters,
        frozen_parameters=frozen,
        memory=_refine_memory(
            recipe, config, trained, parameters, frozen, processes=processes, device=device
        ),
        flops_per_step=mean_flops,
        step_seconds=mean_flops / (processes * device.peak(refine.engine.precision) * mfu),
    )


def _takes_two_passes(recipe: Recipe, config: Qwen2_5_VLConfig, work: Workload, processes: int) -> bool:
    """Whether a rank's rows are more than one micro-batch, so that GradCache embeds them twice."""
    engine = recipe.refine.engine
    visual_tokens = work.patches / config.vision_config.spatial_merge_size**2
    return work.tokens / processes > engine.text_tokens or visual_tokens / processes > engine.visual_tokens


def _refine_memory(
    recipe: Recipe,
    config: Qwen2_5_VLConfig,
    trained: TrainedParts,
    parameters: int,
    frozen: int,
    *,
    processes: int,
    device: Device,
) -> Memory:
    engine, page = recipe.refine.engine, largest_page(recipe)
    works = [refine_workload(recipe, config, page, arm) for arm in recipe.refine.arms]
    rows = math.ceil(recipe.refine.batch_size / processes)
    own_positions = math.ceil(rows * max(work.tokens for work in works))
    own_patches = rows * max(work.patches for work in works)
    own_visual_tokens = math.ceil(own_patches / config.vision_config.spatial_merge_size**2)
    image = page.visual_tokens if own_visual_tokens else 0
    return Memory(
        **state_bytes(engine, trained=parameters, frozen=frozen, processes=processes),
        activations=activation_bytes(
            config,
            trained,
            engine,
            positions=min(engine.text_tokens, own_positions),
            visual_tokens=min(engine.visual_tokens, own_visual_tokens),
            longest=PROMPT_TOKENS + max(page.text_tokens, image),
        ),
        logits=0,
        vision_features=feature_bytes(config, engine, own_visual_tokens),
        reserved=RESERVED if device.memory else 0,
    )


def misfit(plan: StagePlan, device: Device) -> str | None:
    """Why a stage does not fit into the device's memory, and what to change; None if it fits."""
    if device.memory is None or plan.memory.total <= device.memory:
        return None
    engine, memory = f"{plan.stage}.engine", plan.memory
    advice = []
    if memory.total - memory.activations - memory.logits < device.memory:
        advice.append(f"lower {engine}.text_tokens or visual_tokens")
    if plan.engine.zero_stage < 3:
        advice.append(f"raise {engine}.zero_stage")
    advice.append("take more GPUs" if plan.stage == "pretrain" else f"raise {engine}.processes")
    return (
        f"{plan.stage} does not fit: needs {memory.total / GIB:.1f} GiB a GPU, {device.name} has "
        f"{device.memory / GIB:.1f} GiB; " + ", or ".join(advice)
    )
