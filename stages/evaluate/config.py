"""Settings of what is measured. No torch here."""

from dataclasses import dataclass, field

from infra.fingerprint import NOT_IN_RESULT
from stages.backbones.config import BackboneConfig


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """What is searched on the test split, and with which queries."""

    max_corpus: int
    """Test samples searched; the first ones in the order of a digest of their keys."""
    max_queries: int
    critic_candidates: int = 128
    """N of the bound, at most: so many texts are scored under as many page images."""


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How much of the test split is read."""

    samples: int
    decoded_samples: int
    """Of the base language: of the target's, all that are searched are transcribed."""


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """What is told of a search beside its scores."""

    neighbours: int = 10
    geometry_samples: int = 300
    examples: int = 100
    """Queries that keep their best samples; the report chooses from them."""


@dataclass(frozen=True, kw_only=True)
class ReadingsConfig:
    """How a checkpoint is searched with beside its vectors (stages/evaluate/readings.py)."""

    kept_words: int = 512
    """Of a page, the likeliest ones; the others share what is left. Half as many find less on tiny's
    validation split; all 2,048 find no more."""
    validation_corpus: int = 200
    """Validation samples, at most, on which fusion chooses its weights."""
    validation_queries: int = 200
    weight_steps: int = 5
    """Weights are multiples of 1 / so many."""

    @property
    def validation(self) -> SearchConfig:
        return SearchConfig(max_corpus=self.validation_corpus, max_queries=self.validation_queries)


@dataclass(frozen=True, kw_only=True)
class LinearMapConfig:
    """How the linear maps are fitted that a sweep compares with CL."""

    samples: int = 1000
    """Training samples that whitening and the linear projection are fitted on, chosen by digest of key."""
    projection_steps: int = 300
    projection_learning_rate: float = 3e-4
    """Of 3e-4 and 1e-3, for 100 and 300 steps: best query -> text search of tiny's validation split."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is measured on the test split; each program takes the parts that it reads."""

    search: SearchConfig
    generation: GenerationConfig
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    readings: ReadingsConfig = field(default_factory=ReadingsConfig)
    linear_map: LinearMapConfig = field(default_factory=LinearMapConfig)
    batch_size: int = 64
    """Rows that are read, or embedded, at once."""


@dataclass(frozen=True, kw_only=True)
class TranscriptionSettings:
    """What transcribing takes of a recipe."""

    backbone: BackboneConfig
    test_samples: int
    """All that are searched."""
    validation_samples: int
    base_samples: int
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """What the measure of generation takes of a recipe."""

    backbone: BackboneConfig
    generation: GenerationConfig
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class CriticSettings:
    """What the generative critic takes of a recipe."""

    backbone: BackboneConfig
    search: SearchConfig


@dataclass(frozen=True, kw_only=True)
class LinearMapSettings:
    """What fits a linear map; batch size and negatives are refinement's, for the projection."""

    config: LinearMapConfig
    batch_size: int
    same_document_negatives: bool


@dataclass(frozen=True, kw_only=True)
class RetrievalSettings:
    """What page retrieval takes of a recipe."""

    backbone: BackboneConfig
    search: SearchConfig
    retrieval: RetrievalConfig
    readings: ReadingsConfig
    batch_size: int
    temperature: float
    """Of refinement's loss, for L_cl."""
    linear_map: LinearMapSettings = field(metadata=NOT_IN_RESULT)
    """Named by the key of the cells that are linear maps: no other cell reads it."""
