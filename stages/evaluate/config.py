"""Settings of what is measured. No torch here."""

from dataclasses import dataclass

from stages.backbones.config import BackboneConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is measured on the test split."""

    max_corpus: int
    """Test samples searched; the first ones in the order of a digest of their keys."""
    max_queries: int
    generation_samples: int
    decoded_samples: int
    batch_size: int = 64
    neighbours: int = 10
    geometry_samples: int = 300
    critic_candidates: int = 128
    """N of the bound, at most: so many texts are scored under as many page images."""
    examples: int = 100
    """Queries that keep their best samples; the report chooses from them."""
    fit_samples: int = 1000
    """Training samples that whitening and the linear projection are fitted on, chosen by digest of key."""
    projection_steps: int = 300
    projection_learning_rate: float = 3e-4
    """Of 3e-4 and 1e-3, for 100 and 300 steps: best query -> text search of tiny's validation split."""


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """What the measure of generation takes of a recipe; the generative critic takes the same."""

    backbone: BackboneConfig
    evaluate: EvaluateConfig


CriticSettings = GenerationSettings


@dataclass(frozen=True, kw_only=True)
class RetrievalSettings(GenerationSettings):
    """What page retrieval takes of a recipe; its own three are refinement's, for L_cl and the projection."""

    temperature: float
    batch_size: int
    same_document_negatives: bool
