"""Settings of stage 2, light contrastive refinement (CL). No torch here."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from infra.fingerprint import NOT_IN_RESULT
from stages.backbones.config import BackboneConfig
from stages.losses import Loss
from stages.train.config import EngineConfig

LARGEST_SEED = 2**32 - 1
"""What every library takes: NumPy's generators any number, PyTorch's 2^64 - 1, others 32 bits."""
NEGATIVES = "negatives.jsonl"
"""What mining commits: a query's identity and the keys of its hard negatives on each line."""


@dataclass(frozen=True, kw_only=True)
class MiningConfig:
    """Which samples are hard negatives of a query; stages/refine/mining.py says how they are chosen."""

    hard_negatives: int = 0
    """Mined negatives for each anchor, at most, beside those in the batch; 0: none are mined."""
    depth: int = 50
    """Best samples that BM25, and the model before refinement, each propose."""
    relative_margin: float = 0.05
    """A proposal whose cosine is above (1 - margin) times the positive's may answer the query: left out."""


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """Stage 2, light contrastive refinement (CL): LoRA on the language decoder unless `trained` says more."""

    seeds: tuple[int, ...] = field(metadata=NOT_IN_RESULT)
    arms: tuple[str, ...] = field(metadata=NOT_IN_RESULT)
    """Names of `stages.recipes.ARMS`: ways to refine that are compared."""
    steps: int = field(metadata=NOT_IN_RESULT)
    batch_size: int
    learning_rate: float
    warmup_steps: int
    loss: Loss
    lora_rank: int
    lora_alpha: int
    lora_targets: tuple[str, ...]
    anchors: Literal["queries", "texts"] = "queries"
    """`texts`: each page's own text looks for its page, as in CLIP."""
    image_share: float = 0.0
    """Share of positives (with their negatives) that are page images; the others are texts."""
    trained: Literal["adapter", "decoder", "model"] = "adapter"
    """LoRA on the decoder's projections; every weight of the decoder; or the vision tower too."""
    same_document_negatives: bool = False
    """Whether other samples of the positive's document count as negatives."""
    max_gradient_norm: float = 1.0
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass(frozen=True, kw_only=True)
class RefineSettings:
    """What stage 2 takes of a recipe; a cell's arm changes `refine`."""

    backbone: BackboneConfig
    refine: RefineConfig


@dataclass(frozen=True, kw_only=True)
class MiningSettings:
    """What the mining of hard negatives takes of a recipe; its last two are refinement's."""

    backbone: BackboneConfig
    mining: MiningConfig
    same_document_negatives: bool
    engine: EngineConfig


def with_changes(config: RefineConfig, changes: Mapping[str, Any]) -> RefineConfig:
    """Return `config` with an arm's changes; a dotted name changes a nested field: ``loss.symmetric``.

    Raises ValueError for a field that does not exist or a value that does not fit.
    """
    content = asdict(config)
    for name, value in changes.items():
        *path, last = name.split(".")
        place = content
        for part in path:
            place = place[part] if isinstance(place, dict) and part in place else None
        if not isinstance(place, dict) or last not in place:
            raise ValueError(f"an arm changes {name!r}, which refinement has not: correct stages/recipes.py")
        place[last] = asdict(value) if is_dataclass(value) else value
    return TypeAdapter(RefineConfig).validate_python(content)
