"""The contrastive objective: InfoNCE of query texts against texts or page images.

Every rank embeds its own rows, anchors and positives in one pass; positives are gathered over ranks with
gradient, so that the gradient is that of the whole batch on one process. The softmax runs in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import distributed
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import cross_entropy

from stages.train.sequences import Batch, SequenceBuilder, TokenSequence, embed_with


@dataclass(frozen=True, kw_only=True)
class EmbeddedRows:
    """Rows to embed, in batches of similar length, and how to put their vectors back in order."""

    batches: tuple[Batch, ...]
    order: torch.Tensor
    """[rows] position of each row among the concatenated batches."""


def rows_by_length(
    builder: SequenceBuilder, sequences: Sequence[TokenSequence], rows_per_batch: int
) -> EmbeddedRows:
    """Batch sequences so that they need little padding; images apart from texts."""
    places = sorted(
        range(len(sequences)), key=lambda i: (sequences[i].patches is None, len(sequences[i].ids))
    )
    images = sum(sequence.patches is not None for sequence in sequences)
    cuts = [*range(0, images, rows_per_batch), *range(images, len(places), rows_per_batch), len(places)]
    batches = tuple(
        builder.collate([sequences[index] for index in places[start:end]]) for start, end in pairwise(cuts)
    )
    return EmbeddedRows(batches=batches, order=torch.tensor(places).argsort())


class ContrastiveLoss(torch.nn.Module):
    """The root module that the engine trains."""

    def __init__(self, model: torch.nn.Module, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, rows: EmbeddedRows, same: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Return the summed InfoNCE loss of this rank's anchors, in nats.

        Args:
            rows: this rank's anchors, then its positives, one each.
            same: [own rows, all rows] bool; True where a candidate answers the anchor too and must not count
                as a negative.
            own: [own rows] column of each anchor's own positive among the gathered candidates.
        """
        decoder = decoder_of(self.model)
        vectors = torch.cat([embed_with(decoder, batch) for batch in rows.batches])[rows.order]
        queries, positives = vectors[: len(own)], vectors[len(own) :]
        candidates = gather_rows(positives)
        return info_nce(queries, candidates, own=own, same=same, temperature=self.temperature)


def decoder_of(model: torch.nn.Module) -> torch.nn.Module:
    """The base model below an optional LoRA wrapper and the generation head: no logits are computed."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.model


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Concatenate every rank's rows in rank order, with gradient to all of them. Row counts must be equal."""
    if distributed.get_world_size() == 1:
        return rows
    return torch.cat(all_gather(rows))


def info_nce(
    queries: torch.Tensor,
    candidates: torch.Tensor,
    *,
    own: torch.Tensor,
    same: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Sum over queries of -log softmax(cosine / temperature) at each query's own positive.

    Args:
        queries, candidates: L2-normalised, [Q, d] and [N, d].
        own: [Q] the column of each query's positive.
        same: [Q, N] candidates that are left out of the denominator.
    """
    logits = (queries.float() @ candidates.float().T) / temperature
    masked = same.clone()
    masked[torch.arange(len(own)), own] = False
    return cross_entropy(logits.masked_fill(masked, -torch.inf), own, reduction="sum")
