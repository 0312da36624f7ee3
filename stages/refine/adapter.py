"""The LoRA adapter of stage 2: put on the decoder, taken off an engine, merged into the weights."""

import re
from collections.abc import Sequence
from dataclasses import replace

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


def adapter_weights(model: peft.PeftModel) -> dict[str, torch.Tensor]:
    """Copy the adapter's weights, by peft's names."""
    return {
        name: tensor.detach().float().cpu().clone()
        for name, tensor in peft.get_peft_model_state_dict(model).items()
    }


@torch.no_grad()
def merge_adapters(
    backbone: Backbone,
    adapters: Sequence[dict[str, torch.Tensor]],
    config: RefineConfig,
    source: ShardSource,
) -> Backbone:
    """Merge an adapter into a backbone; vectors before and after are compared on a few samples.

    Of several adapters (of several seeds: a LoRA soup) the mean change of the weights is merged.

    Raises:
        RefinementError: some cosine between unmerged and merged vectors is below 0.9999, or the adapter does
            not fit the model.
    """
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
    after = torch.cat([embed(merged, probe) for probe in probes])
    cosine = float((before * after).sum(dim=-1).min())
    if cosine < MINIMUM_MERGE_COSINE:
        raise RefinementError(f"merging the adapter changed its vectors: cosine {cosine:.6f}")
    return merged
