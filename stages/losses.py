"""The contrastive losses of stage 2: each an object made of its own settings, and the formula's only home.

A further loss is a `ContrastiveLoss` like `InfoNCE`, with a `kind` of its own, in the union `Loss`. Recipes
read these settings where no model is ever loaded: hence torch is imported inside functions only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """This rank's vectors of a global batch, and those of all ranks that they meet, with gradient to all.

    Not normalised yet: a prefix of a vector has a norm of its own.
    """

    anchors: torch.Tensor
    """[own anchors, hidden]."""
    candidates: torch.Tensor
    """[own candidates, hidden]: as many positives as anchors, then mined negatives."""
    all_anchors: torch.Tensor
    """[anchors, hidden], rank by rank."""
    all_candidates: torch.Tensor
    """[candidates, hidden], rank by rank."""
    first_anchor: int
    """Place of this rank's first anchor among all."""
    first_candidate: int
    answers: torch.Tensor
    """[anchors, candidates] bool over all ranks: a candidate that must not count as a negative."""


class ContrastiveLoss(ABC):
    """What is asked of a loss; one that learns nothing adds its settings, a `kind` and `__call__`."""

    temperature: float
    """Evaluation measures `L_cl(N)` at it, whatever the loss makes of it in training."""
    learned: ClassVar[bool] = False
    """Whether `parameters` are trained with the model."""

    def parameters(self) -> torch.Tensor:
        """What the loss itself holds at the start, one number at least: ZeRO 3 takes no empty parameter."""
        import torch

        return torch.zeros(1)

    def values(self, parameters: torch.Tensor) -> torch.Tensor:
        """What a call takes of them. A new tensor, made in the model's forward pass."""
        return parameters.clone()

    def facts(self, values: torch.Tensor) -> dict[str, float]:
        """The same by name, for people."""
        return {}

    @abstractmethod
    def __call__(self, batch: Gathered, values: torch.Tensor) -> torch.Tensor:
        """Return the summed loss of this rank's anchors, in nats."""


@dataclass(frozen=True, kw_only=True)
class InfoNCE(ContrastiveLoss):
    """Each anchor looks for its positive among all candidates of the global batch; softmax in float32."""

    kind: Literal["info-nce"] = "info-nce"
    temperature: float
    symmetric: bool = False
    """Also ask for the anchor given its positive, at half weight each."""
    learn_temperature: bool = False
    matryoshka_dimensions: tuple[int, ...] = ()
    """Prefix lengths of the vector that are trained beside the whole one, at equal weight (arXiv 2205.13147).
    """

    @property
    def learned(self) -> bool:
        """Whether `parameters` are trained with the model."""
        return self.learn_temperature

    def parameters(self) -> torch.Tensor:
        """What the loss itself holds at the start [1]: the logarithm of its temperature."""
        import torch

        return torch.tensor([math.log(self.temperature)])

    def values(self, parameters: torch.Tensor) -> torch.Tensor:
        """What a call takes of them [1]: the temperature. A new tensor, made in the model's forward pass."""
        return parameters.exp()

    def facts(self, values: torch.Tensor) -> dict[str, float]:
        """The same by name, for people."""
        return {"temperature": float(values)}

    def __call__(self, batch: Gathered, values: torch.Tensor) -> torch.Tensor:
        """Return the summed loss of this rank's anchors, in nats."""
        import torch
        from torch.nn.functional import normalize

        count = len(batch.anchors)
        rows = torch.arange(count) + batch.first_anchor
        columns = torch.arange(count) + batch.first_candidate
        losses = []
        for size in (batch.anchors.shape[-1], *self.matryoshka_dimensions):
            loss = info_nce(
                normalize(batch.anchors[:, :size], dim=-1),
                normalize(batch.all_candidates[:, :size], dim=-1),
                own=columns,
                same=batch.answers[rows],
                temperature=values,
            )
            if self.symmetric:
                backwards = info_nce(
                    normalize(batch.candidates[:count, :size], dim=-1),
                    normalize(batch.all_anchors[:, :size], dim=-1),
                    own=rows,
                    same=batch.answers[:, columns].T,
                    temperature=values,
                )
                loss = (loss + backwards) / 2
            losses.append(loss)
        return torch.stack(losses).mean()


Loss = InfoNCE
"""Every loss that a recipe may name: `InfoNCE | Another`; `kind` tells them apart in a job file."""


def info_nce(
    queries: torch.Tensor,
    candidates: torch.Tensor,
    *,
    own: torch.Tensor,
    same: torch.Tensor,
    temperature: torch.Tensor | float,
) -> torch.Tensor:
    """Sum over queries of -log softmax(cosine / temperature) at each query's own positive, in nats.

    Args:
        queries, candidates: L2-normalised, [Q, hidden] and [N, hidden].
        own: [Q] the column of each query's positive.
        same: [Q, N] bool, candidates that are left out of the denominator; the positive never is.
        temperature: [1], or a number.
    """
    import torch

    logits = (queries.float() @ candidates.float().T) / torch.as_tensor(temperature).float()
    masked = same.clone()
    masked[torch.arange(len(own)), own] = False
    return torch.nn.functional.cross_entropy(logits.masked_fill(masked, -torch.inf), own, reduction="sum")
