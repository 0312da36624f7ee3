"""The contrastive objective: InfoNCE of anchors against positives, over the whole global batch.

Negatives are the other positives of the batch and mined ones; candidates are gathered over ranks with
gradient, so that the loss is that of one process. The softmax runs in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import distributed
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import cross_entropy, normalize

from stages.train.engine import rank


@dataclass(frozen=True, kw_only=True)
class Rows:
    """How the rows of a global batch lie on the ranks: on each, anchors, then as many positives, then mined
    negatives."""

    anchors: list[int]
    """Anchors of each rank."""
    candidates: list[int]
    """Positives and negatives of each rank."""
    answers: torch.Tensor
    """[anchors, candidates] bool over all ranks, rank by rank: a candidate that must not count as a
    negative."""


def loss_of_rank(
    vectors: torch.Tensor,
    rows: Rows,
    temperature: torch.Tensor,
    *,
    symmetric: bool,
    dimensions: Sequence[int],
) -> torch.Tensor:
    """Return the summed loss of this rank's anchors, in nats; every rank calls it.

    Args:
        vectors: of this rank's rows [anchors + candidates, hidden].
        symmetric: mean of both directions; backwards, each positive looks for its anchor among all anchors.
        dimensions: prefixes trained beside the whole vector (Matryoshka, arXiv 2205.13147); mean over them.
    """
    own_anchors = rows.anchors[rank()]
    anchors, candidates = vectors[:own_anchors], vectors[own_anchors:]
    all_candidates = gather_rows(candidates, rows.candidates)
    all_anchors = gather_rows(anchors, rows.anchors) if symmetric else None
    own_rows = torch.arange(own_anchors) + sum(rows.anchors[: rank()])
    own_columns = torch.arange(own_anchors) + sum(rows.candidates[: rank()])
    losses = []
    for size in (vectors.shape[-1], *dimensions):
        queries, found = normalize(anchors[:, :size], dim=-1), normalize(all_candidates[:, :size], dim=-1)
        loss = info_nce(queries, found, own=own_columns, same=rows.answers[own_rows], temperature=temperature)
        if symmetric:
            positives = normalize(candidates[:own_anchors, :size], dim=-1)
            backwards = info_nce(
                positives,
                normalize(all_anchors[:, :size], dim=-1),
                own=own_rows,
                same=rows.answers[:, own_columns].T,
                temperature=temperature,
            )
            loss = (loss + backwards) / 2
        losses.append(loss)
    return torch.stack(losses).mean()


def gather_rows(rows: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Concatenate every rank's rows [counts[rank], hidden] in rank order, with gradient to all of them."""
    if distributed.get_world_size() == 1:
        return rows
    padded = torch.nn.functional.pad(rows, (0, 0, 0, max(counts) - len(rows)))
    gathered = all_gather(padded.contiguous())
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])


def info_nce(
    queries: torch.Tensor,
    candidates: torch.Tensor,
    *,
    own: torch.Tensor,
    same: torch.Tensor,
    temperature: torch.Tensor,
) -> torch.Tensor:
    """Sum over queries of -log softmax(cosine / temperature) at each query's own positive.

    Args:
        queries, candidates: L2-normalised, [Q, d] and [N, d].
        own: [Q] the column of each query's positive.
        same: [Q, N] candidates that are left out of the denominator.
        temperature: [1].
    """
    logits = (queries.float() @ candidates.float().T) / temperature.float()
    masked = same.clone()
    masked[torch.arange(len(own)), own] = False
    return cross_entropy(logits.masked_fill(masked, -torch.inf), own, reduction="sum")
