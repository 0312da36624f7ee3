"""What stage 2 trains: chosen in a model, taken off an engine, put into a freshly loaded model.

A LoRA adapter on the decoder as a rule; every weight of the decoder, or of the whole model, for comparison.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import peft
import torch

from data_prep.shards import ShardSource
from stages.backbone import Backbone
from stages.recipes import RefineConfig
from stages.train.batches import collate
from stages.train.forward import embed
from stages.train.sequences import SequenceBuilder

DECODER = r"model\.language_model\.layers\.\d+\."
MINIMUM_MERGE_COSINE = 0.9999
PROBED_SAMPLES = 8


class RefinementError(Exception):
    """The adapter does not train what it should, or does not survive its merge."""


@dataclass(frozen=True, kw_only=True)
class Refined:
    """A refined model, and the Frobenius norm of the change of its weights."""

    backbone: Backbone
    weight_change: float


def choose_trained(backbone: Backbone, config: RefineConfig) -> torch.nn.Module:
    """Return the model with gradients on what `config` trains, never the head: CL has no logits.

    Raises RefinementError; see `add_adapter`.
    """
    if config.trained == "adapter":
        return add_adapter(backbone, config)
    backbone.model.requires_grad_(False)
    trained = backbone.model.model
    (trained if config.trained == "model" else trained.language_model).requires_grad_(True)
    return backbone.model


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copy what was trained: an adapter by peft's names, or whole parameters by the model's."""
    if isinstance(model, peft.PeftModel):
        named = peft.get_peft_model_state_dict(model)
    else:
        named = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return {name: tensor.detach().float().cpu().clone() for name, tensor in named.items()}


def put_weights(
    backbone: Backbone, weights: dict[str, torch.Tensor], config: RefineConfig, source: ShardSource
) -> Refined:
    """Put trained weights into a freshly loaded backbone. Raises RefinementError; see `merge_adapters`."""
    if config.trained == "adapter":
        return merge_adapters(backbone, [weights], config, source)
    before = dict(backbone.model.named_parameters())
    if unknown := sorted(set(weights) - set(before)):
        raise RefinementError(f"the trained weights do not fit the model: it has no {unknown[0]}")
    with torch.no_grad():
        change = frobenius_norm(weights[name] - before[name] for name in weights)
        for name, weight in weights.items():
            before[name].copy_(weight)
    return Refined(backbone=backbone, weight_change=change)


def frobenius_norm(matrices: Iterable[torch.Tensor]) -> float:
    """Return the norm of all matrices together."""
    return math.sqrt(sum(float(matrix.double().square().sum()) for matrix in matrices))


def add_adapter(backbone: Backbone, config: RefineConfig) -> peft.PeftModel:
    """Put LoRA on the decoder's projections and freeze everything else.

    Raises:
        RefinementError: a trainable parameter is not a LoRA weight of the decoder.
    """
    lora = peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=DECODER + rf".*({'|'.join(config.lora_targets)})",
    )
    model = peft.get_peft_model(backbone.model, lora)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    outside = [name for name in trainable if not re.search(DECODER + r".*\.lora_[AB]\.", name)]
    if outside or not trainable:
        raise RefinementError(f"trainable outside the decoder's LoRA: {outside or 'nothing is trainable'}")
    return model


@torch.no_grad()
def merge_adapters(
    backbone: Backbone,
    adapters: Sequence[dict[str, torch.Tensor]],
    config: RefineConfig,
    source: ShardSource,
) -> Refined:
    """Merge an adapter into a backbone; vectors before and after are compared on a few samples.

    Of several adapters (of several seeds: a LoRA soup) the mean change of the weights is merged.

    Raises:
        RefinementError: some cosine between unmerged and merged vectors is below 0.9999, or the adapter does
            not fit the model.
    """
    before_merge = {name: value.clone() for name, value in backbone.model.named_parameters()}
    model = add_adapter(backbone, config)
    names = [model.active_adapter, *(f"soup-{number}" for number in range(1, len(adapters)))]
    for name in names[1:]:
        model.add_adapter(name, model.peft_config[names[0]])
    for name, adapter in zip(names, adapters, strict=True):
        report = peft.set_peft_model_state_dict(model, adapter, adapter_name=name)
        if report.unexpected_keys or any(f"lora_A.{name}" in key for key in report.missing_keys):
            raise RefinementError(f"the adapter does not fit the model: {report}")
    if len(adapters) > 1:
        # Ranks are put side by side: the mean of the products, not the product of the means.
        model.add_weighted_adapter(names, [1 / len(names)] * len(names), "soup", combination_type="cat")
        model.set_adapter("soup")
    model.eval()
    builder = SequenceBuilder(backbone)
    samples = [source[position] for position in range(min(PROBED_SAMPLES, len(source)))]
    probes = [
        collate(sequences, pad_token=builder.pad_token)
        for sequences in (
            [builder.summarize_text(sample.text) for sample in samples],
            [builder.summarize_image(sample.image()) for sample in samples],
        )
    ]
    unmerged = replace(backbone, model=model.get_base_model())
    before = torch.cat([embed(unmerged, probe) for probe in probes])
    changed = {
        name.removeprefix("base_model.model.").split(".lora_A")[0] + ".weight"
        for name, _ in model.named_parameters()
        if ".lora_A." in name
    }
    merged = replace(
        backbone,
        model=model.merge_and_unload().eval(),
        contract=replace(backbone.contract, adapter_keys=tuple(sorted(changed))),
    )
    weights = dict(merged.model.named_parameters())
    change = frobenius_norm(weights[name] - before_merge[name] for name in sorted(changed))
    after = torch.cat([embed(merged, probe) for probe in probes])
    cosine = float((before * after).sum(dim=-1).min())
    if cosine < MINIMUM_MERGE_COSINE:
        raise RefinementError(f"merging the adapter changed its vectors: cosine {cosine:.6f}")
    return Refined(backbone=merged, weight_change=change)
