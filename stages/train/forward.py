"""What is read from the decoder's hidden states: embeddings, and logits where there are labels."""

from collections.abc import Sequence

import torch
from torch.utils.checkpoint import checkpoint
from transformers import Qwen2_5_VLForConditionalGeneration

from stages.backbone import Backbone
from stages.recipes import EngineConfig
from stages.train.batches import IGNORED_LABEL, Batch, collate, plan_micro_batches
from stages.train.sequences import TokenSequence

LABELS_AT_ONCE = 4096
"""Logits of a large vocabulary are the largest tensor there is: no more rows of them at a time."""


def embed(backbone: Backbone, batch: Batch) -> torch.Tensor:
    """Return a backbone's embedding of every sequence; see `embed_with`."""
    return embed_with(backbone.model.model, batch)


@torch.no_grad()
def encode(backbone: Backbone, sequences: Sequence[TokenSequence], config: EngineConfig) -> torch.Tensor:
    """Return the embeddings of many sequences [sequences, hidden], in their order, under a token budget."""
    vectors: list[torch.Tensor | None] = [None] * len(sequences)
    for buckets in plan_micro_batches(sequences, config):
        for bucket in buckets:
            batch = collate(
                [sequences[number] for number in bucket],
                pad_token=backbone.tokenizer.pad_token_id,
                packed=config.packing,
            )
            for number, vector in zip(bucket, embed(backbone, batch), strict=True):
                vectors[number] = vector
    return torch.stack(vectors)


def embed_with(base_model: torch.nn.Module, batch: Batch, **inputs) -> torch.Tensor:
    """Return one L2-normalised vector a sequence [sequences, hidden]: last token, after the final norm.

    `base_model` is the one below the generation class: no logits are computed. `inputs` replace the batch's.
    """
    return torch.nn.functional.normalize(last_hidden(base_model, batch, **inputs).float(), dim=-1)


def last_hidden(base_model: torch.nn.Module, batch: Batch, **inputs) -> torch.Tensor:
    """Return the hidden state of every sequence's last position [sequences, hidden]."""
    hidden = base_model(**(batch.model_inputs() | inputs), use_cache=False).last_hidden_state
    return hidden.flatten(0, 1)[batch.ends]


def label_logits(
    model: Qwen2_5_VLForConditionalGeneration, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits [labels, vocabulary] (float32) and labels [labels], at label positions, in row order."""
    hidden, labels = label_states(model, batch)
    return model.lm_head(hidden).float(), labels


def label_losses(model: Qwen2_5_VLForConditionalGeneration, batch: Batch) -> torch.Tensor:
    """Return the negative log-likelihood in nats of every label token [labels], in row order.

    Logits are made for label positions only, a few thousand at a time, and again in the backward pass.
    """
    hidden, labels = label_states(model, batch)
    if len(labels) <= LABELS_AT_ONCE:
        return _losses(model.lm_head, hidden, labels)
    pieces = zip(hidden.split(LABELS_AT_ONCE), labels.split(LABELS_AT_ONCE), strict=True)
    return torch.cat([checkpoint(_losses, model.lm_head, *piece, use_reentrant=False) for piece in pieces])


def label_states(
    model: Qwen2_5_VLForConditionalGeneration, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the hidden states [labels, hidden] that predict labels, and the labels [labels]."""
    hidden = model.model(**batch.model_inputs(), use_cache=False).last_hidden_state
    places = batch.labels != IGNORED_LABEL
    return hidden[places], batch.labels[places]


def _losses(head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(head(hidden).float(), labels, reduction="none")
