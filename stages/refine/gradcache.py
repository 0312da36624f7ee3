"""The contrastive step, with the gradient of the whole global batch in bounded memory.

GradCache (Gao et al. 2021, arXiv 2101.06983): embed every chunk without a graph, take the loss's gradient by
the vectors, then embed again chunk by chunk and pull that gradient through. A batch that fits into one chunk
needs no second pass. A frozen vision tower runs once. Vectors are gathered over ranks with gradient, so that
the loss is that of one process.
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
from stages.train.batches import Batch, bucket_batch
from stages.train.config import EngineConfig
from stages.train.engine import global_sum, plan_passes, rank, step_engine
from stages.train.forward import embed_with
from stages.train.lean_deepspeed import deepspeed
from stages.train.sequences import SequenceBuilder, TokenSequence


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


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What one backward pass holds."""

    batches: list[Batch]
    keep: torch.Tensor
    """Positions, among the vectors of all batches, of this rank's own sequences (fillers are left out)."""
    numbers: torch.Tensor
    """Their places among this rank's rows."""


def chunks_of(
    sequences: Sequence[TokenSequence],
    builder: SequenceBuilder,
    config: EngineConfig,
    *,
    always_an_image: bool = False,
) -> list[Chunk]:
    """Chunk this rank's rows under the token budgets; a collective, since all ranks have as many chunks.

    `always_an_image`: see `plan_passes`.
    """
    chunks = []
    for micro_batch in plan_passes(sequences, config, always_an_image=always_an_image):
        batches = [bucket_batch(bucket, sequences, builder, packed=config.packing) for bucket in micro_batch]
        keep, numbers, first = [], [], 0
        for bucket, batch in zip(micro_batch, batches, strict=True):
            keep += range(first, first + len(bucket.numbers))
            numbers += bucket.numbers
            first += len(batch.ends)
        chunks.append(
            Chunk(
                batches=batches,
                keep=torch.tensor(keep, dtype=torch.long),
                numbers=torch.tensor(numbers, dtype=torch.long),
            )
        )
    return chunks


class Embedder(torch.nn.Module):
    """The root module that the engine trains: sequences to vectors, and what the loss needs beside them."""

    def __init__(self, backbone: Backbone, model: torch.nn.Module, loss: Loss) -> None:
        """`model`: the backbone's own, with an adapter around it or without."""
        super().__init__()
        self.backbone = backbone
        self.model = model
        self.loss = loss
        self.loss_parameters = torch.nn.Parameter(loss.parameters(), requires_grad=loss.learned)

    def forward(
        self, batches: Sequence[Batch], images: Sequence[Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the L2-normalised vectors of all sequences [sequences, hidden], and the loss's values.

        `images`: for each batch its image features, or None to run the vision tower here. The loss's values
        (its temperature) are made here because under ZeRO 3 a parameter is whole inside its module's forward
        pass only.
        """
        vectors = torch.cat(
            [
                embed_with(self.model, batch, images=features)
                for batch, features in zip(batches, images, strict=True)
            ]
        )
        return vectors, self.loss.values(self.loss_parameters)


def contrastive_step(engine: deepspeed.DeepSpeedEngine, chunks: Sequence[Chunk], rows: Rows) -> float:
    """Make one optimiser step; return the mean loss over the global batch, in nats per anchor."""
    root = engine.module
    images = [frozen_image_features(root.backbone.model, chunk) for chunk in chunks]
    anchors = sum(rows.anchors)
    one_pass = len(chunks) == 1
    with nullcontext() if one_pass else torch.no_grad():
        outputs = [engine(chunk.batches, features) for chunk, features in zip(chunks, images, strict=True)]
    vectors = torch.cat([output[chunk.keep] for chunk, (output, _) in zip(chunks, outputs, strict=True)])
    vectors = vectors[torch.cat([chunk.numbers for chunk in chunks]).argsort()]
    values = outputs[0][1]
    if one_pass:
        return step_engine(engine, [root.loss(rows.gathered(vectors), values)], anchors)
    vectors.requires_grad_()
    values = values.clone().requires_grad_()
    loss = root.loss(rows.gathered(vectors), values)
    loss.backward()
    value_gradient = torch.zeros_like(values) if values.grad is None else values.grad
    step_engine(engine, _surrogates(engine, chunks, images, vectors.grad, value_gradient), anchors)
    return global_sum(float(loss.detach())) / anchors


def _surrogates(
    engine: deepspeed.DeepSpeedEngine,
    chunks: Sequence[Chunk],
    images: Sequence[Sequence[Any]],
    vector_gradient: torch.Tensor,
    value_gradient: torch.Tensor,
) -> Iterator[torch.Tensor]:
    """One scalar a chunk whose gradient by the parameters is the loss's through that chunk's vectors."""
    for number, (chunk, features) in enumerate(zip(chunks, images, strict=True)):
        vectors, values = engine(chunk.batches, features)
        surrogate = (vectors[chunk.keep] * vector_gradient[chunk.numbers]).sum()
        # The values' gradient is of the whole loss: it is added once, the others keep the graph equal.
        yield surrogate + (values * value_gradient).sum() * (number == 0)


@torch.no_grad()
def frozen_image_features(model: torch.nn.Module, chunk: Chunk) -> list[Any]:
    """Run a frozen vision tower once, for both passes; None for a batch that must (or need) not.

    A tower that is trained runs inside each pass instead, with its graph.
    """
    family = family_of(model)
    if any(parameter.requires_grad for parameter in family.vision(model).parameters()):
        return [None] * len(chunk.batches)
    return [
        None if batch.pixel_values is None else family.image_features(model, batch) for batch in chunk.batches
    ]
