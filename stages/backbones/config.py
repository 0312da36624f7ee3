"""Which model a run starts from, and the shape of the small one that we train ourselves. No torch here."""

from dataclasses import dataclass, field

from infra.fingerprint import NOT_IN_RESULT


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
    vision_layers: int = 1
    vision_heads: int = 4
    patch_size: int = 8
    merge_size: int = 2
    word_tokens: int = 2048
    """Word buckets that the one-word summary predicts; a word's bucket is a hash of the word, so that a
    language which the base has never seen has word tokens too."""
    initializer_range: float = 0.08
    """About 1 / sqrt(hidden size): with the usual 0.02 a width of 128 attends to everything alike."""
