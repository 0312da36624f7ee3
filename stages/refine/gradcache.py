"""The contrastive step, with the gradient of the whole global batch in bounded memory.

GradCache (Gao et al. 2021, arXiv 2101.06983): embed every micro-batch without a graph, take the loss's
gradient by the vectors, then embed again one by one and pull that gradient through. Rows that fit into one
micro-batch are embedded once. A frozen vision tower runs once. Vectors are gathered over ranks with gradient,
so that the loss is that of one process.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed
from torch.distributed.nn.functional import all_gather

from stages.backbones.backbone import Backbone, family_of
from stages.losses import Gathered, Loss
from stages.train.batches import Pass
from stages.train.engine import global_sum, rank, spoiled_if_not_finite, step_engine
from stages.train.forward import embed_with
from stages.train.lean_deepspeed import deepspeed


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

    def gathered(self, vectors: torch.Tensor) -> Gathered:
        """Return this rank's vectors [anchors + candidates, hidden] and those of all; a collective."""
        anchors, candidates = vectors[: self.anchors[rank()]], vectors[self.anchors[rank()] :]
        return Gathered(
            anchors=anchors,
            candidates=candidates,
            all_candidates=gather_rows(candidates, self.candidates),
            all_anchors=gather_rows(anchors, self.anchors),
            first_anchor=sum(self.anchors[: rank()]),
            first_candidate=sum(self.candidates[: rank()]),
            answers=self.answers,
        )


def gather_rows(rows: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Concatenate every rank's rows [counts[rank], hidden] in rank order, with gradient to all of them."""
    if distributed.get_world_size() == 1:
        return rows
    padded = torch.nn.functional.pad(rows, (0, 0, 0, max(counts) - len(rows)))
    gathered = all_gather(padded.contiguous())
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])


class Embedder(torch.nn.Module):
    """The root module that the engine trains: sequences to vectors, and what the loss needs beside them."""

    def __init__(self, backbone: Backbone, model: torch.nn.Module, loss: Loss) -> None:
        """`model`: the backbone's own, with an adapter around it or without."""
        super().__init__()
        self.backbone = backbone
        self.model = model
        self.loss = loss
        self.loss_parameters = torch.nn.Parameter(loss.parameters(), requires_grad=loss.learned)

    def forward(self, passes: Sequence[Pass], images: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the L2-normalised vectors [sequences, hidden], fillers left out, and the loss's values.

        `images`: for each pass its image features, or None to run the vision tower here. The loss's values
        (its temperature) are made here because under ZeRO 3 a parameter is whole inside its module's forward
        pass only.
        """
        vectors = [
            embed_with(self.model, one.batch, images=features)[: len(one.numbers)]
            for one, features in zip(passes, images, strict=True)
        ]
        return torch.cat(vectors), self.loss.values(self.loss_parameters)


def contrastive_step(
    engine: deepspeed.DeepSpeedEngine, micro_batches: Sequence[Sequence[Pass]], rows: Rows
) -> tuple[float, bool]:
    """Make one optimiser step; return the mean loss over the global batch, in nats per anchor, and whether it
    was made: see `step_engine`."""
    root = engine.module
    images = [frozen_image_features(root.backbone.model, passes) for passes in micro_batches]
    numbers = [
        torch.tensor([number for one in passes for number in one.numbers], dtype=torch.long)
        for passes in micro_batches
    ]
    anchors = sum(rows.anchors)
    one_pass = len(micro_batches) == 1
    with nullcontext() if one_pass else torch.no_grad():
        outputs = [engine(passes, features) for passes, features in zip(micro_batches, images, strict=True)]
    vectors = torch.cat([output for output, _ in outputs])[torch.cat(numbers).argsort()]
    values = outputs[0][1]
    if one_pass:
        return step_engine(engine, [root.loss(rows.gathered(vectors), values)], anchors)
    vectors.requires_grad_()
    values = values.clone().requires_grad_()
    loss = root.loss(rows.gathered(vectors), values)
    spoiled_if_not_finite(loss).backward()
    value_gradient = torch.zeros_like(values) if values.grad is None else values.grad

    def surrogates() -> Iterator[torch.Tensor]:
        """One scalar a micro-batch whose gradient by the parameters is the loss's through its vectors."""
        for place, (passes, features) in enumerate(zip(micro_batches, images, strict=True)):
            own, again = engine(passes, features)
            surrogate = (own * vectors.grad[numbers[place]]).sum()
            # The values' gradient is of the whole loss: it is added once, the others keep the graph equal.
            yield surrogate + (again * value_gradient).sum() * (place == 0)

    _, made = step_engine(engine, surrogates(), anchors)
    return global_sum(float(loss.detach())) / anchors, made


@torch.no_grad()
def frozen_image_features(model: torch.nn.Module, passes: Sequence[Pass]) -> list[Any]:
    """Run a frozen vision tower once, for both embeddings; None for a batch that must (or need) not.

    A tower that is trained runs inside each embedding instead, with its graph.
    """
    family = family_of(model)
    if any(parameter.requires_grad for parameter in family.vision(model).parameters()):
        return [None] * len(passes)
    return [
        None if one.batch.pixel_values is None else family.image_features(model, one.batch) for one in passes
    ]
