"""Which model a run starts from, the shape of the small one that we train ourselves, and a model's sizes.

No torch here.
"""

from dataclasses import dataclass, field

from infra.fingerprint import NOT_IN_RESULT

WORD_TOKEN_PREFIX = "<|word_"
"""Tokens that stand for words, in vocabularies that have such."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which model to start from, and the limits of its inputs."""

    location: str = field(metadata=NOT_IN_RESULT)
    """Folder or hub id."""
    max_pixels: int
    max_text_tokens: int


@dataclass(frozen=True, kw_only=True)
class TinyShape:
    """Shape of the model that `lco bootstrap` trains: Qwen2.5-VL in small."""

    hidden_size: int = 128
    intermediate_size: int = 384
    num_layers: int = 3
    num_heads: int = 4
    vision_hidden_size: int = 96
    vision_layers: int = 2
    vision_heads: int = 4
    patch_size: int = 8
    merge_size: int = 2
    word_tokens: int = 2048
    """Word buckets that the one-word summary predicts; a word's bucket is a hash of the word, so that a
    language which the base has never seen has word tokens too."""
    initializer_range: float = 0.08
    """About 1 / sqrt(hidden size): with the usual 0.02 a width of 128 attends to everything alike."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A model's sizes, as the formulas of its FLOPs and its memory take them; each family fills it in."""

    layers: int
    """Of the decoder: projections of query, key, value and output, and a feed-forward of three matrices."""
    width: int
    inner_width: int
    heads: int
    key_value_heads: int
    vocabulary: int
    vision_layers: int
    vision_width: int
    vision_inner_width: int
    vision_heads: int
    full_attention_layers: int
    """Vision layers whose patches see the whole image; in the others they see a window."""
    window_side: int
    """Patches along one side of a window; at the image's edges windows are smaller."""
    patch_values: int
    """Numbers of one patch."""
    merge_size: int
    """A visual token is made of merge_size x merge_size patches."""
    vision_output: int
    """Width of a visual token, as the decoder takes it."""
