"""Settings of stage 1, continual generative pretraining (CGP). No torch here."""

from dataclasses import dataclass, field

from infra.fingerprint import NOT_IN_RESULT
from stages.backbones.config import BackboneConfig
from stages.train.config import EngineConfig


@dataclass(frozen=True, kw_only=True)
class ObjectiveMixture:
    """Shares of the generative objectives; one objective a step."""

    transcribe_image: float
    summarize_image: float
    summarize_text: float
    repeat_text: float


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Stage 1, continual generative pretraining (CGP)."""

    doses: tuple[int, ...] = field(metadata=NOT_IN_RESULT)
    """Examples seen at each checkpoint; 0 is the base itself. Multiples of `batch_size`."""
    batch_size: int
    learning_rate: float
    warmup_steps: int
    decay_steps: int = 0
    """Last steps before the highest dose, over which the learning rate falls to zero; 0 keeps it constant, so
    that a checkpoint does not depend on how long the run goes on after it."""
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    train_vision: bool = True
    """False: the vision tower and its projector stay as they are."""
    replay_share: float
    """Share of base-language examples."""
    mixture: ObjectiveMixture
    engine: EngineConfig = field(default_factory=EngineConfig)
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """What the program of stage 1 takes of a recipe."""

    backbone: BackboneConfig
    pretrain: PretrainConfig
