"""Settings of stage 2, light contrastive refinement (CL). No torch here."""

from dataclasses import dataclass, field
from typing import Literal

from infra.fingerprint import NOT_IN_RESULT
from stages.backbones.config import BackboneConfig
from stages.train.config import EngineConfig



@dataclass(frozen=True, kw_only=True)
class MiningConfig:
    """Which samples are hard negatives of a query; stages/refine/mining.py says how they are chosen."""

    depth: int = 50
    """Best samples that BM25, and the model before refinement, each propose."""
    relative_margin: float = 0.05
    """A proposal whose cosine is above (1 - margin) times the positive's may answer the query: left out."""


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """Stage 2, light contrastive refinement (CL): LoRA on the language decoder unless `trained` says more."""

    seeds: tuple[int, ...] = field(metadata=NOT_IN_RESULT)
    arms: tuple[str, ...] = field(metadata=NOT_IN_RESULT)
    """Names of `ARMS`: ways to refine that are compared."""
    steps: int = field(metadata=NOT_IN_RESULT)
    batch_size: int
    learning_rate: float
    warmup_steps: int
    temperature: float
    lora_rank: int
    lora_alpha: int
    lora_targets: tuple[str, ...]
    anchors: Literal["queries", "texts"] = "queries"
    """`texts`: each page's own text looks for its page, as in CLIP."""
    image_share: float = 0.0
    """Share of positives (with their negatives) that are page images; the others are texts."""
    trained: Literal["adapter", "decoder", "model"] = "adapter"
    """LoRA on the decoder's projections; every weight of the decoder; or the vision tower too."""
    hard_negatives: int = 0
    """Mined negatives for each anchor, at most, beside those in the batch."""
    mining: MiningConfig = field(default_factory=MiningConfig)
    symmetric: bool = False
    """Also ask for the anchor given its positive, at half weight each."""
    learn_temperature: bool = False
    matryoshka_dimensions: tuple[int, ...] = ()
    """Prefix lengths of the vector that are trained beside the whole one, at equal weight."""
    same_document_negatives: bool = False
    """Whether other samples of the positive's document count as negatives."""
    max_gradient_norm: float = 1.0
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass(frozen=True, kw_only=True)
class RefineSettings:
    """What the program of stage 2 takes of a recipe; a cell's arm changes `refine`."""

    backbone: BackboneConfig
    refine: RefineConfig


@dataclass(frozen=True, kw_only=True)
class MineSettings:
    """What the mining of hard negatives takes of a recipe."""

    backbone: BackboneConfig
    refine: RefineConfig
