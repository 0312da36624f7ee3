"""What a recipe's two trainings will need: memory of each GPU part by part, time of a step, GPU-hours.

Pure functions; importing this module loads no torch. Time is FLOPs over an assumed share of the peak (MFU).
Data preparation and evaluation are left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infra.devices import GIB, Device
from stages.backbones.config import ModelShape
from stages.pretrain.config import PretrainConfig
from stages.recipes import ARMS, BOOTSTRAPS, Recipe
from stages.refine.config import RefineConfig
from stages.train.config import EngineConfig
from stages.train.cost import (
    Memory,
    activation_bytes,
    adapter_parameters,
    feature_bytes,
    logit_bytes,
    state_bytes,
)
from stages.train.flops import TrainedParts, Workload, forward_flops, training_flops

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ASSUMED_MFU = 0.35
RESERVED = 2 * GIB  # an allowance for the CUDA context, NCCL and fragmentation
PROMPT_TOKENS = 32  # chat template and prompt around a text or an image
QUERY_TOKENS = 32


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model to train: its sizes, and how many parameters its two parts have."""

    shape: ModelShape
    decoder_parameters: int
    vision_parameters: int


@dataclass(frozen=True, kw_only=True)
class PageSizes:
    """Tokens of one page, or of one block."""

    visual_tokens: int
    """Of its image, after the merger."""
    text_tokens: int


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


def config_of(recipe: Recipe) -> "PreTrainedConfig":
    """Return the configuration of the model that a recipe starts from; a base need not be trained yet.

    Loads torch. Raises ValueError for a hub id whose sizes are not known here.
    """
    from stages.backbones.backbone import model_config
    from stages.backbones.tiny import build_tiny_tokenizer, tiny_model_config

    location = recipe.backbone.location
    if recipe.name not in BOOTSTRAPS or Path(location).is_dir():
        return model_config(location)
    tiny = BOOTSTRAPS[recipe.name].shape
    return tiny_model_config(tiny, build_tiny_tokenizer(tiny))


def model_of(recipe: Recipe) -> Model:
    """Return the sizes of the model that a recipe starts from; see `config_of`."""
    from stages.backbones.backbone import FAMILIES, parameter_counts

    config = config_of(recipe)
    decoder, vision = parameter_counts(config)
    shape = FAMILIES[config.model_type].shape(config)
    return Model(shape=shape, decoder_parameters=decoder, vision_parameters=vision)


def largest_page(recipe: Recipe) -> PageSizes:
    """The largest page that the recipe lets pass; a block is taken to have a token a character at most."""
    documents, text = recipe.documents, recipe.backbone.max_text_tokens
    if documents.unit == "block":
        text = min(text, documents.max_block_characters)
    return PageSizes(visual_tokens=documents.max_pixels // documents.pixel_multiple**2, text_tokens=text)


def pretrain_workload(recipe: Recipe, shape: ModelShape, page: PageSizes) -> Workload:
    """Mean workload of an example of CGP, over the mixture of objectives."""
    image, text, mixture = page.visual_tokens, page.text_tokens, recipe.pretrain.mixture
    return _mean(
        [
            (mixture.transcribe_image, _sequence(shape, text=text, image=image, labels=text)),
            (mixture.summarize_image, _sequence(shape, image=image, labels=1)),
            (mixture.summarize_text, _sequence(shape, text=text, labels=1)),
            (mixture.repeat_text, _sequence(shape, text=2 * text, labels=text)),
        ]
    )


def refine_workload(recipe: Recipe, shape: ModelShape, page: PageSizes, arm: str) -> Workload:
    """Mean workload of an anchor of CL with its positive and its mined negatives."""
    image_share = ARMS[arm].changes.get("image_share", recipe.refine.image_share)
    text, image = _sequence(shape, text=page.text_tokens), _sequence(shape, image=page.visual_tokens)
    candidate = _mean([(1 - image_share, text), (image_share, image)])
    return _sequence(shape, text=QUERY_TOKENS) + candidate * (1 + recipe.mining.hard_negatives)


def _sequence(shape: ModelShape, *, text: int = 0, image: int = 0, labels: int = 0) -> Workload:
    patches = image * shape.merge_size**2
    length = PROMPT_TOKENS + text + image
    return Workload(
        tokens=length,
        squared_lengths=length**2,
        label_positions=labels,
        patches=patches,
        squared_images=patches**2,
        squared_windows=patches * min(patches, shape.window_side**2),
    )


def _mean(parts: Sequence[tuple[float, Workload]]) -> Workload:
    """Mean of workloads by weight."""
    total = sum(weight for weight, _ in parts)
    nothing = Workload(tokens=0, squared_lengths=0)
    return sum((work * (weight / total) for weight, work in parts), start=nothing)


def plan_pretrain(
    recipe: Recipe, model: Model, *, gpus: int, device: Device, mfu: float, page: PageSizes
) -> StagePlan:
    """Plan CGP up to the highest dose, on all GPUs. `page`: mean sizes; memory is that of the largest."""
    shape, pretrain, engine = model.shape, recipe.pretrain, recipe.pretrain.engine
    trained = TrainedParts(vision=pretrain.train_vision)
    frozen = 0 if trained.vision else model.vision_parameters
    largest, rows = largest_page(recipe), math.ceil(pretrain.batch_size / gpus)
    text, image = largest.text_tokens, largest.visual_tokens
    longest = PROMPT_TOKENS + text + max(image, text)
    positions = min(engine.text_tokens, rows * longest)
    most_labels = text / (PROMPT_TOKENS + text + min(image, text))  # a position
    visual_tokens = min(engine.visual_tokens, rows * image)
    sizes = {"positions": positions, "visual_tokens": visual_tokens, "longest": longest}
    return _plan(
        pretrain,
        device,
        mfu,
        stage="pretrain",
        processes=gpus,
        cells=1,
        cells_at_once=1,
        steps=max(pretrain.doses) // pretrain.batch_size,
        trained_parameters=model.decoder_parameters + model.vision_parameters - frozen,
        frozen_parameters=frozen,
        activations=activation_bytes(shape, trained, engine, **sizes),
        logits=logit_bytes(shape, math.ceil(most_labels * positions)),
        flops=training_flops(shape, pretrain_workload(recipe, shape, page) * pretrain.batch_size, trained),
    )


def plan_refine(
    recipe: Recipe, model: Model, *, gpus: int, device: Device, mfu: float, page: PageSizes
) -> StagePlan:
    """Plan all cells of CL, each on the GPUs that the recipe names, several side by side."""
    shape, refine, engine = model.shape, recipe.refine, recipe.refine.engine
    trained = TrainedParts(vision=False, lora_rank=refine.lora_rank, lora_targets=refine.lora_targets)
    processes = min(engine.processes, gpus)
    cells = len(recipe.pretrain.doses) * len(refine.seeds) * len(refine.arms)

    def flops_of(arm: str) -> float:
        work = refine_workload(recipe, shape, page, arm) * refine.batch_size
        visual_tokens = work.patches / shape.merge_size**2
        budgets = (work.tokens, engine.text_tokens), (visual_tokens, engine.visual_tokens)
        # More than one micro-batch on a rank: GradCache embeds its rows twice.
        twice = any(amount / processes > budget for amount, budget in budgets)
        return training_flops(shape, work, trained) + twice * forward_flops(shape, work).decoder

    largest, rows = largest_page(recipe), math.ceil(refine.batch_size / processes)
    works = [refine_workload(recipe, shape, largest, arm) for arm in refine.arms]
    positions = math.ceil(rows * max(work.tokens for work in works))
    visual_tokens = math.ceil(rows * max(work.patches for work in works) / shape.merge_size**2)
    sizes = {
        "positions": min(engine.text_tokens, positions),
        "visual_tokens": min(engine.visual_tokens, visual_tokens),
        "longest": PROMPT_TOKENS + max(largest.text_tokens, largest.visual_tokens if visual_tokens else 0),
    }
    return _plan(
        refine,
        device,
        mfu,
        stage="refine",
        processes=processes,
        cells=cells,
        cells_at_once=min(cells, gpus // processes),
        steps=refine.steps,
        trained_parameters=adapter_parameters(shape, trained) + refine.loss.learned,
        frozen_parameters=model.decoder_parameters + model.vision_parameters,
        activations=activation_bytes(shape, trained, engine, **sizes),
        vision_features=feature_bytes(shape, engine, visual_tokens),
        flops=sum(map(flops_of, refine.arms)) / len(refine.arms),
    )


def _plan(
    config: PretrainConfig | RefineConfig,
    device: Device,
    mfu: float,
    *,
    activations: int,
    logits: int = 0,
    vision_features: int = 0,
    flops: float,
    **plan: Any,
) -> StagePlan:
    processes, trained, frozen = (plan[f] for f in ("processes", "trained_parameters", "frozen_parameters"))
    return StagePlan(
        **plan,
        engine=config.engine,
        examples_per_step=config.batch_size,
        memory=Memory(
            **state_bytes(config.engine, trained=trained, frozen=frozen, processes=processes),
            activations=activations,
            logits=logits,
            vision_features=vision_features,
            reserved=RESERVED if device.memory else 0,
        ),
        flops_per_step=flops,
        step_seconds=flops / (processes * device.peak(config.engine.precision) * mfu),
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
