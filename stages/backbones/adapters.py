"""What stage 2 trains: chosen in a model, taken off it, committed, and put into a freshly loaded model.

A LoRA adapter on the decoder as a rule; every weight of the decoder, or of the whole model, for comparison.
A model is committed once, and a refinement as what it changed: peft's own two files, or the changed weights.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import peft
import torch
from safetensors.torch import load_file, save_file

from stages.backbones.backbone import Backbone, load_backbone
from stages.backbones.config import BackboneConfig

if TYPE_CHECKING:
    from stages.program import Input
    from stages.refine.config import RefineConfig

WHOLE_WEIGHTS = "weights.safetensors"
MINIMUM_MERGE_COSINE = 0.9999


class RefinementError(Exception):
    """The refinement has no data to train on, does not fit its model, or does not survive its merge."""


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """What CL learned, in float32: an adapter by peft's names, or whole parameters by the model's."""

    weights: dict[str, torch.Tensor]
    lora: peft.LoraConfig | None
    """None: whole parameters."""

    def save(self, folder: Path) -> None:
        """Write it into a folder; equal refinements give equal bytes."""
        if self.lora is None:
            save_file(self.weights, Path(folder) / WHOLE_WEIGHTS)
            return
        replace(self.lora, base_model_name_or_path=None).save_pretrained(folder)
        save_file(self.weights, Path(folder) / peft.utils.SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})


def open_refinement(folder: Path) -> Refinement:
    """Read what `Refinement.save` wrote."""
    if (whole := Path(folder) / WHOLE_WEIGHTS).is_file():
        return Refinement(weights=load_file(whole), lora=None)
    weights = load_file(Path(folder) / peft.utils.SAFETENSORS_WEIGHTS_NAME)
    return Refinement(weights=weights, lora=peft.LoraConfig.from_pretrained(folder))


def open_model(inputs: "Mapping[str, Input]", config: BackboneConfig) -> Backbone:
    """Load the model of a cell's inputs and, where there is one, put its refinement into it.

    Raises ContractMismatch and RefinementError.
    """
    backbone = load_backbone(inputs["model"].path / "model", config)
    if "adapter" not in inputs:
        return backbone
    refined, _ = put_weights(backbone, open_refinement(inputs["adapter"].path))
    return refined


def choose_trained(backbone: Backbone, config: "RefineConfig") -> torch.nn.Module:
    """Return the model with gradients on what `config` trains, never the head: CL has no logits."""
    if config.trained == "adapter":
        return add_adapter(backbone, config)
    backbone.model.requires_grad_(False)
    backbone.family.decoder(backbone.model).requires_grad_(True)
    if config.trained == "model":
        backbone.family.vision(backbone.model).requires_grad_(True)
    return backbone.model


def add_adapter(backbone: Backbone, config: "RefineConfig") -> peft.PeftModel:
    """Put LoRA on the decoder's projections and freeze everything else.

    Raises ValueError for a projection that the decoder has not.
    """
    lora = peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=backbone.family.DECODER_LAYERS + rf".*({'|'.join(config.lora_targets)})",
    )
    return peft.get_peft_model(backbone.model, lora)


def trained_weights(model: torch.nn.Module) -> Refinement:
    """Copy what was trained; under ZeRO 3 inside `stages.train.engine.gathered`."""
    lora = None
    if isinstance(model, peft.PeftModel):
        lora = model.peft_config[model.active_adapter]
        named = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    else:
        named = {name: value for name, value in model.named_parameters() if value.requires_grad}
    copied = {name: tensor.detach().float().cpu().clone() for name, tensor in named.items()}
    return Refinement(weights=copied, lora=lora)


def soup(adapters: Sequence[Refinement]) -> Refinement:
    """Return the mean change of several adapters of one shape (of several seeds) as one adapter.

    Ranks are put side by side, as peft's combination "cat" does: the mean of the products, not the product of
    the means.
    """
    first = adapters[0].lora
    scale, rank = first.lora_alpha / first.r, first.r * len(adapters)
    weights = {}
    for name in adapters[0].weights:
        parts = [adapter.weights[name] for adapter in adapters]
        if ".lora_A." in name:
            weights[name] = torch.cat([part * (1 / len(adapters)) * scale for part in parts], dim=0)
        else:
            weights[name] = torch.cat(parts, dim=1)
    return Refinement(weights=weights, lora=replace(first, r=rank, lora_alpha=rank))


@torch.no_grad()
def put_weights(
    backbone: Backbone, refinement: Refinement, probe: Callable[[Backbone], torch.Tensor] | None = None
) -> tuple[Backbone, float]:
    """Put a refinement into a freshly loaded backbone; return it and the Frobenius norm of the change.

    Args:
        probe: gives a few vectors [n, hidden] of a model; those of the adapted model are compared with those
            of the merged one. None: this was done when the refinement was made.

    Raises:
        RefinementError: some cosine between unmerged and merged vectors is below 0.9999, or the refinement
            does not fit the model.
    """
    parameters = dict(backbone.model.named_parameters())
    if refinement.lora is not None:
        return _merge(backbone, refinement, parameters, probe)
    if unknown := sorted(set(refinement.weights) - set(parameters)):
        raise RefinementError(f"the trained weights do not fit the model: it has no {unknown[0]}")
    change = frobenius_norm(refinement.weights[name] - parameters[name] for name in refinement.weights)
    for name, weight in refinement.weights.items():
        parameters[name].copy_(weight)
    return backbone, change


def _merge(
    backbone: Backbone,
    refinement: Refinement,
    parameters: Mapping[str, torch.nn.Parameter],
    probe: Callable[[Backbone], torch.Tensor] | None,
) -> tuple[Backbone, float]:
    prefix = "base_model.model."  # of peft
    changed = {name.split(".lora_")[0].removeprefix(prefix) + ".weight" for name in refinement.weights}
    if unknown := sorted(changed - set(parameters)):
        raise RefinementError(f"the adapter does not fit the model: it has no {unknown[0]}")
    before_merge = {name: parameters[name].clone() for name in sorted(changed)}
    model = peft.get_peft_model(backbone.model, refinement.lora).eval()
    report = peft.set_peft_model_state_dict(model, refinement.weights)
    if report.unexpected_keys or any(".lora_" in key for key in report.missing_keys):
        raise RefinementError(f"the adapter does not fit the model: {report}")
    before = probe(replace(backbone, model=model.get_base_model())) if probe else None
    merged = replace(
        backbone,
        model=model.merge_and_unload().eval(),
        contract=replace(backbone.contract, adapter_keys=tuple(sorted(changed))),
    )
    weights = dict(merged.model.named_parameters())
    change = frobenius_norm(weights[name] - before_merge[name] for name in before_merge)
    if probe:
        cosine = float((before * probe(merged)).sum(dim=-1).min())
        if cosine < MINIMUM_MERGE_COSINE:
            raise RefinementError(f"merging the adapter changed its vectors: cosine {cosine:.6f}")
    return merged, change


def frobenius_norm(matrices: Iterable[torch.Tensor]) -> float:
    """Return the norm of all matrices together."""
    return math.sqrt(sum(float(matrix.double().square().sum()) for matrix in matrices))
