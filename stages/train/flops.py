"""Model FLOPs by formula: for the utilisation that the ledger reports, and for `lco plan`. No torch here.

A product of [m, k] and [k, n] counts 2 m k n. Attention counts its whole square, causal or not; look-ups,
norms, rotations and softmax count nothing, and neither does work that is done twice (recomputation,
GradCache's first pass) or for padding. The convention is that of PaLM (arXiv 2204.02311, appendix B), where
training costs 6 FLOPs a parameter and token plus 12 x layers x width x length for attention; written out per
matrix here, because the vision tower, LoRA and a head at label positions only do not fit that short form.
torch's FlopCounterMode counts the same (tests hold it), also on the meta device, but has to trace the model
for every shape of a batch; a formula costs a step nothing.

Backward, each matrix product costs its forward again for the gradient of its input, and again for the
gradient of its weight, where these are needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from stages.backbones.config import ModelShape

QUERY_KEY_VALUE = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What passes through a model, padding left out. Workloads add up, and can be scaled to a mean."""

    tokens: float
    """Decoder positions, visual tokens included."""
    squared_lengths: float
    """Sum over sequences of length squared."""
    label_positions: float = 0
    """Positions whose logits are computed."""
    patches: float = 0
    """Patches before the merger."""
    squared_images: float = 0
    """Sum over images of patches squared: blocks with full attention."""
    squared_windows: float = 0
    """Sum over attention windows of patches squared: the other blocks."""

    def __add__(self, other: Workload) -> Workload:
        return Workload(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __mul__(self, factor: float) -> Workload:
        return Workload(**{f.name: getattr(self, f.name) * factor for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class TrainedParts:
    """Which weights get gradients."""

    vision: bool = True
    """The vision tower and its projector. False: they only run forward."""
    lora_rank: int = 0
    """0: every weight of the decoder, its embeddings and its head. Above: adapters of this rank only."""
    lora_targets: tuple[str, ...] = ()
    """Projections of the decoder with an adapter."""


@dataclass(frozen=True, kw_only=True)
class ForwardFlops:
    """FLOPs of one forward pass by part."""

    decoder_matrices: float
    decoder_attention: float
    head: float
    patch_embedding: float
    vision: float
    """The whole tower with its merger, the embedding of patches included."""

    @property
    def decoder(self) -> float:
        return self.decoder_matrices + self.decoder_attention + self.head


def workload(
    shape: ModelShape,
    *,
    lengths: Iterable[int],
    label_positions: int = 0,
    grids: Iterable[Sequence[int]] = (),
) -> Workload:
    """Return the workload of a batch.

    Args:
        lengths: decoder positions of each sequence, visual tokens included, padding left out.
        label_positions: positions whose logits are computed.
        grids: (frames, rows, columns) of patches of each image.
    """

    def pieces(length: int) -> int:
        side = shape.window_side
        return length // side * side**2 + (length % side) ** 2

    lengths, grids = list(lengths), [tuple(int(side) for side in grid) for grid in grids]
    images = [rows * columns for frames, rows, columns in grids for _ in range(frames)]
    return Workload(
        tokens=sum(lengths),
        squared_lengths=sum(length**2 for length in lengths),
        label_positions=label_positions,
        patches=sum(images),
        squared_images=sum(patches**2 for patches in images),
        # The sum over an image's windows factors into rows and columns.
        squared_windows=sum(frames * pieces(rows) * pieces(columns) for frames, rows, columns in grids),
    )


def projection_shapes(shape: ModelShape) -> dict[str, tuple[int, int]]:
    """Return {name: (inputs, outputs)} of the matrices of one decoder layer."""
    width, inner = shape.width, shape.inner_width
    key_value = width // shape.heads * shape.key_value_heads
    return {
        "q_proj": (width, width),
        "k_proj": (width, key_value),
        "v_proj": (width, key_value),
        "o_proj": (width, width),
        "gate_proj": (width, inner),
        "up_proj": (width, inner),
        "down_proj": (inner, width),
    }


def forward_flops(shape: ModelShape, work: Workload) -> ForwardFlops:
    """Return the FLOPs of one forward pass, adapters left out."""
    layer = sum(inputs * outputs for inputs, outputs in projection_shapes(shape).values())
    width, merged = shape.vision_width, shape.vision_width * shape.merge_size**2
    block = 4 * width**2 + 3 * width * shape.vision_inner_width
    merger = merged * (merged + shape.vision_output) / shape.merge_size**2
    full, windowed = shape.full_attention_layers, shape.vision_layers - shape.full_attention_layers
    patch_embedding = 2 * work.patches * shape.patch_values * width
    vision_matrices = 2 * work.patches * (shape.vision_layers * block + merger)
    vision_attention = 4 * width * (full * work.squared_images + windowed * work.squared_windows)
    return ForwardFlops(
        decoder_matrices=2 * work.tokens * shape.layers * layer,
        decoder_attention=4 * work.squared_lengths * shape.layers * shape.width,
        head=2 * work.label_positions * shape.vocabulary * shape.width,
        patch_embedding=patch_embedding,
        vision=patch_embedding + vision_matrices + vision_attention,
    )


def training_flops(shape: ModelShape, work: Workload, trained: TrainedParts) -> float:
    """Return the model FLOPs of a forward and a backward pass."""
    forward = forward_flops(shape, work)
    decoder = _adapted_decoder(shape, work, trained) if trained.lora_rank else 3 * forward.decoder
    if not trained.vision:
        return decoder + forward.vision
    # Nobody needs the gradient of the pixels.
    return decoder + 3 * forward.vision - forward.patch_embedding


def _adapted_decoder(shape: ModelShape, work: Workload, trained: TrainedParts) -> float:
    """A decoder with adapters: its own weights get no gradient, and neither does the first layer's input."""
    forward, shapes = forward_flops(shape, work), projection_shapes(shape)
    layers, rank = shape.layers, trained.lora_rank
    adapters = sum(2 * work.tokens * rank * sum(shapes[name]) for name in trained.lora_targets)
    unneeded = sum(2 * work.tokens * shapes[name][0] * shapes[name][1] for name in QUERY_KEY_VALUE) + sum(
        2 * work.tokens * rank * shapes[name][0] for name in QUERY_KEY_VALUE if name in trained.lora_targets
    )
    return (
        2 * (forward.decoder_matrices + forward.head)
        + 3 * (forward.decoder_attention + layers * adapters)
        - unneeded
    )
