"""The contrastive step, with the gradient of the whole global batch in bounded memory.

GradCache (Gao et al. 2021, arXiv 2101.06983): embed every chunk without a graph, take the loss's gradient by
the vectors, then embed again chunk by chunk and pull that gradient through. A batch that fits into one chunk
needs no second pass. A frozen vision tower runs once.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from stages.recipes import EngineConfig
from stages.refine.contrastive import Rows, loss_of_rank
from stages.train.batches import Batch, bucket_batch
from stages.train.engine import global_sum, plan_passes, step_engine
from stages.train.forward import embed_with
from stages.train.lean_deepspeed import deepspeed
from stages.train.sequences import SequenceBuilder, TokenSequence


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
    """The root module that the engine trains: sequences to vectors, and the temperature of their cosines."""

    def __init__(self, model: torch.nn.Module, *, temperature: float, learn_temperature: bool) -> None:
        super().__init__()
        self.model = model
        self.log_temperature = torch.nn.Parameter(
            torch.tensor([math.log(temperature)]), requires_grad=learn_temperature
        )

    def forward(
        self, batches: Sequence[Batch], images: Sequence[BaseModelOutputWithPooling | None]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the L2-normalised vectors of all sequences [sequences, hidden], and the temperature [1].

        `images`: for each batch its image features, or None to run the vision tower here. The temperature
        is made here because under ZeRO 3 a parameter is whole inside its module's forward pass only.
        """
        decoder = decoder_of(self.model)
        vectors = torch.cat(
            [
                embed_with(decoder, batch)
                if features is None
                else embed_with(decoder, batch, pixel_values=None, mm_encoder_outputs={"image": features})
                for batch, features in zip(batches, images, strict=True)
            ]
        )
        return vectors, self.log_temperature.exp()


def decoder_of(model: torch.nn.Module) -> torch.nn.Module:
    """The base model below an optional LoRA wrapper and the generation head: no logits are computed."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.model


def contrastive_step(
    engine: deepspeed.DeepSpeedEngine,
    chunks: Sequence[Chunk],
    rows: Rows,
    *,
    symmetric: bool,
    dimensions: Sequence[int],
) -> float:
    """Make one optimiser step; return the mean loss over the global batch, in nats per anchor."""
    images = [frozen_image_features(engine.module.model, chunk) for chunk in chunks]
    options = {"symmetric": symmetric, "dimensions": dimensions}
    anchors = sum(rows.anchors)
    one_pass = len(chunks) == 1
    with nullcontext() if one_pass else torch.no_grad():
        outputs = [engine(chunk.batches, features) for chunk, features in zip(chunks, images, strict=True)]
    vectors = torch.cat([output[chunk.keep] for chunk, (output, _) in zip(chunks, outputs, strict=True)])
    vectors = vectors[torch.cat([chunk.numbers for chunk in chunks]).argsort()]
    temperature = outputs[0][1]
    if one_pass:
        return step_engine(engine, [loss_of_rank(vectors, rows, temperature, **options)], anchors)
    vectors.requires_grad_()
    temperature = temperature.clone().requires_grad_()
    loss = loss_of_rank(vectors, rows, temperature, **options)
    loss.backward()
    step_engine(engine, _surrogates(engine, chunks, images, vectors.grad, temperature.grad), anchors)
    return global_sum(float(loss.detach())) / anchors


def _surrogates(
    engine: deepspeed.DeepSpeedEngine,
    chunks: Sequence[Chunk],
    images: list[list[BaseModelOutputWithPooling | None]],
    vector_gradient: torch.Tensor,
    temperature_gradient: torch.Tensor,
) -> Iterator[torch.Tensor]:
    """One scalar a chunk whose gradient by the parameters is the loss's through that chunk's vectors."""
    for number, (chunk, features) in enumerate(zip(chunks, images, strict=True)):
        vectors, temperature = engine(chunk.batches, features)
        surrogate = (vectors[chunk.keep] * vector_gradient[chunk.numbers]).sum()
        # The temperature's gradient is of the whole loss: it is added once, the others keep the graph equal.
        yield surrogate + (temperature * temperature_gradient).sum() * (number == 0)


@torch.no_grad()
def frozen_image_features(model: torch.nn.Module, chunk: Chunk) -> list[BaseModelOutputWithPooling | None]:
    """Run a frozen vision tower once, for both passes; None for a batch that must (or need) not.

    A tower that is trained runs inside each pass instead, with its graph.
    """
    decoder = decoder_of(model)
    if any(parameter.requires_grad for parameter in decoder.visual.parameters()):
        return [None] * len(chunk.batches)
    features = []
    for batch in chunk.batches:
        if batch.pixel_values is None:
            features.append(None)
            continue
        tower = decoder.get_image_features(batch.pixel_values, batch.image_grid_thw, return_dict=True)
        # Only what the decoder takes: the states before the merger are several times as large.
        features.append(BaseModelOutputWithPooling(pooler_output=tower.pooler_output))
    return features
