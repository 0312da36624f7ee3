"""Memory of a training on one GPU, part by part. Pure functions; importing this module loads no torch."""

import math
from dataclasses import dataclass, fields

from stages.backbones.config import ModelShape
from stages.train.config import BUCKET_ELEMENTS, LABELS_AT_ONCE, EngineConfig
from stages.train.flops import TrainedParts, projection_shapes

LIVE_ELEMENTS = 1_000_000_000  # DeepSpeed's stage3_max_live_parameters


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on each GPU at the height of a step."""

    weights: int
    gradients: int
    optimizer: int
    """Adam's two moments and the float32 copy of what is trained."""
    activations: int
    logits: int
    vision_features: int
    """Outputs of a frozen vision tower, kept between the two passes of GradCache."""
    buckets: int
    """DeepSpeed's buffers for communication; under ZeRO 3 also the weights gathered at a time."""
    reserved: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def adapter_parameters(shape: ModelShape, trained: TrainedParts) -> int:
    """Parameters of the LoRA adapters: rank x (inputs + outputs) each."""
    shapes = projection_shapes(shape)
    return shape.layers * sum(trained.lora_rank * sum(shapes[name]) for name in trained.lora_targets)


def state_bytes(engine: EngineConfig, *, trained: int, frozen: int, processes: int) -> dict[str, int]:
    """Return the bytes of weights, gradients, optimiser and buckets on each of `processes` ranks.

    ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054) as DeepSpeed does it and this engine uses it. With b
    bytes a number (4 in float32, 2 in bfloat16), T trained and F frozen parameters and N ranks: weights
    b (T + F), over N in ZeRO 3; gradients b T at every stage, since a step of several micro-batches reduces
    them once, at its end; Adam's moments 8 T and, in bfloat16 or with ZeRO, a float32 copy of 4 T, both over
    N from ZeRO 1 on. DeepSpeed rounds shards up to a few elements more.
    """
    width, stage = _bytes(engine), engine.zero_stage
    shard = math.ceil(trained / processes) if stage else trained
    master = 4 * shard if stage or engine.precision == "bfloat16" else 0
    weights = trained + frozen
    buckets = min(trained, BUCKET_ELEMENTS) if stage or processes > 1 else 0
    gathered = min(weights, LIVE_ELEMENTS) if stage == 3 else 0
    return {
        "weights": width * (math.ceil(weights / processes) if stage == 3 else weights),
        "gradients": width * trained,
        "optimizer": 8 * shard + master,
        "buckets": width * (buckets + gathered),
    }


def activation_bytes(
    shape: ModelShape,
    trained: TrainedParts,
    engine: EngineConfig,
    *,
    positions: int,
    visual_tokens: int,
    longest: int,
) -> int:
    """Return the bytes that torch saves for the backward pass of one micro-batch, without checkpointing.

    Args:
        positions: decoder positions of the micro-batch.
        visual_tokens: visual tokens of the micro-batch, after the merger.
        longest: positions of its longest sequence.

    Attention with scaled_dot_product_attention under a mask: no scores are kept, but each layer keeps its own
    copy of the mask, rows x length squared, and repeated keys and values.
    """
    row = positions if engine.packing else min(longest, positions)
    decoder = positions * decoder_bytes(shape, trained, engine) + _bytes(engine) * positions * row
    patches = visual_tokens * shape.merge_size**2
    # A frozen tower saves nothing: its memory is that of the block at work.
    blocks = shape.vision_layers if trained.vision else 1
    return shape.layers * decoder + blocks * patches * vision_bytes(shape, engine)


def decoder_bytes(shape: ModelShape, trained: TrainedParts, engine: EngineConfig) -> int:
    """Bytes that one decoder layer saves for each position; adapters count as if on every projection."""
    b, width = _bytes(engine), shape.width
    norms = 2 * 4 * width + 8 + 2 * b * width  # float32 inputs, their scales, outputs
    if not trained.lora_rank:
        norms += 2 * b * width  # normalised, for the gradients of the norms' weights
    attention = 4 * b * width + 4 * shape.heads  # query, keys, values, output; log-sum-exp
    adapters = 7 * b * trained.lora_rank
    return norms + attention + 4 * b * shape.inner_width + adapters


def vision_bytes(shape: ModelShape, engine: EngineConfig) -> int:
    """Bytes that one block of a trained vision tower saves for each patch."""
    b, width = _bytes(engine), shape.vision_width
    norms = 2 * 4 * width + 8 + 4 * b * width
    # Rotated query and key, the joint projection behind the values, outputs by window and joined.
    attention = 7 * b * width + 4 * shape.vision_heads
    return norms + attention + 4 * b * shape.vision_inner_width


def logit_bytes(shape: ModelShape, labels: int) -> int:
    """Bytes of the log-softmax of all labels of a micro-batch and, of those at work, of its two gradients."""
    return 4 * shape.vocabulary * (labels + 2 * min(LABELS_AT_ONCE, labels))


def feature_bytes(shape: ModelShape, engine: EngineConfig, visual_tokens: int) -> int:
    """Bytes of what is kept of a frozen tower's outputs: the merged ones, as the decoder takes them."""
    return _bytes(engine) * visual_tokens * shape.vision_output


def _bytes(engine: EngineConfig) -> int:
    return 4 if engine.precision == "float32" else 2
