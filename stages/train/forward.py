"""What is read from the decoder's hidden states: embeddings, and logits where there are labels.

`model` is a generation model, with or without a LoRA wrapper; no logits are made but those asked for.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from data_prep.samples import Sample
from stages.backbones.backbone import Backbone, family_of
from stages.train.batches import IGNORED_LABEL, Batch, collate, plan_micro_batches
from stages.train.config import LABELS_AT_ONCE, EngineConfig
from stages.train.sequences import SequenceBuilder, TokenSequence


def hidden_states(model: torch.nn.Module, batch: Batch, **options: Any) -> Any:
    """Run a batch through everything below the head; `.last_hidden_state` is [rows, length, hidden].

    `options` are those of a family's `hidden_states`.
    """
    below = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters stay at work
    return family_of(model).hidden_states(below, batch, **options)


def last_hidden(model: torch.nn.Module, batch: Batch, **options: Any) -> torch.Tensor:
    """Return the hidden state of every sequence's last position [sequences, hidden]."""
    return hidden_states(model, batch, **options).last_hidden_state.flatten(0, 1)[batch.ends]


def embed_with(model: torch.nn.Module, batch: Batch, **options: Any) -> torch.Tensor:
    """Return one L2-normalised vector a sequence [sequences, hidden]: last token, after the final norm."""
    return torch.nn.functional.normalize(last_hidden(model, batch, **options).float(), dim=-1)


def embed(backbone: Backbone, batch: Batch) -> torch.Tensor:
    """Return a backbone's embedding of every sequence; see `embed_with`."""
    return embed_with(backbone.model, batch)


@torch.no_grad()
def encode(backbone: Backbone, sequences: Sequence[TokenSequence], config: EngineConfig) -> torch.Tensor:
    """Return the embeddings of many sequences [sequences, hidden], in their order, under a token budget.

    Raises ValueError for one that is not finite: compared with others it would only look unlike all.
    """
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
    stacked = torch.stack(vectors)
    if not bool(stacked.isfinite().all()):
        raise ValueError("the model's embeddings hold NaN or infinity: its weights are broken; make it again")
    return stacked


def probe_of(samples: Sequence[Sample]) -> Callable[[Backbone], torch.Tensor]:
    """Return what gives a model's vectors of some samples' texts, then of their images [2 x samples, hidden].

    For `stages.backbones.adapters.put_weights`.
    """

    def vectors(backbone: Backbone) -> torch.Tensor:
        builder = SequenceBuilder(backbone)
        batches = (
            [builder.summarize_text(sample.text) for sample in samples],
            [builder.summarize_image(sample.image()) for sample in samples],
        )
        return torch.cat([embed(backbone, collate(rows, pad_token=builder.pad_token)) for rows in batches])

    return vectors


def label_logits(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits [labels, vocabulary] (float32) and labels [labels], at label positions, in row order."""
    hidden, labels = _label_states(model, batch)
    return family_of(model).head(model)(hidden).float(), labels


def label_losses(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return the negative log-likelihood in nats of every label token [labels], in row order.

    Logits are made for label positions only, a few thousand at a time, and again in the backward pass.
    """
    head = family_of(model).head(model)
    hidden, labels = _label_states(model, batch)
    if len(labels) <= LABELS_AT_ONCE:
        return _losses(head, hidden, labels)
    pieces = zip(hidden.split(LABELS_AT_ONCE), labels.split(LABELS_AT_ONCE), strict=True)
    return torch.cat([checkpoint(_losses, head, *piece, use_reentrant=False) for piece in pieces])


def _label_states(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The hidden states [labels, hidden] that predict labels, and the labels [labels]."""
    places = batch.labels != IGNORED_LABEL
    return hidden_states(model, batch).last_hidden_state[places], batch.labels[places]


def _losses(head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(head(hidden).float(), labels, reduction="none")
