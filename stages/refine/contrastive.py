"""The contrastive objective: InfoNCE of query texts against texts or page images.

Every rank embeds its own rows; positives are gathered over ranks with gradient, so that the gradient is that
of the whole batch on one process. The softmax runs in float32.
"""

from collections.abc import Sequence

import torch
from torch import distributed
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import cross_entropy, normalize

from stages.train.sequences import Batch


class ContrastiveLoss(torch.nn.Module):
    """The root module that the engine trains."""

    def __init__(self, model: torch.nn.Module, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(
        self, anchors: Batch, positives: Sequence[Batch], same: torch.Tensor, own: torch.Tensor
    ) -> torch.Tensor:
        """Return the summed InfoNCE loss of this rank's anchors, in nats.

        Args:
            anchors: this rank's queries.
            positives: this rank's positives, one batch a modality; concatenated they follow the anchors' order.
            same: [own rows, all rows] bool; True where a candidate is another positive of the same sample and
                must not count as a negative.
            own: [own rows] column of each anchor's own positive among the gathered candidates.
        """
        queries = self._embed(anchors)
        candidates = gather_rows(torch.cat([self._embed(batch) for batch in positives]))
        return info_nce(queries, candidates, own=own, same=same, temperature=self.temperature)

    def _embed(self, batch: Batch) -> torch.Tensor:
        hidden = decoder_of(self.model)(**batch.model_inputs(), use_cache=False).last_hidden_state
        return normalize(hidden[:, -1].float(), dim=-1)


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
