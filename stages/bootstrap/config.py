"""How `lco bootstrap` trains the base of a recipe. No torch here."""

from dataclasses import dataclass, field, replace

from data_prep.config import ReadingConfig
from infra.fingerprint import NOT_IN_RESULT
from stages.backbones.config import BackboneConfig, TinyShape
from stages.pretrain.config import ObjectiveMixture
from stages.train.config import EngineConfig

STAGE = "bootstrap"
READING = ObjectiveMixture(transcribe_image=0.9, summarize_image=0.0, summarize_text=0.04, repeat_text=0.06)
SUMMARISING = ObjectiveMixture(
    transcribe_image=0.45, summarize_image=0.34, summarize_text=0.18, repeat_text=0.03
)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a bootstrap."""

    share: float
    """Of all steps."""
    longest: int
    """Characters of a passage."""
    longer: float = 0.0
    """Share of passages that are longer all the same: those of several rows."""
    scans: float = 0.0
    """Share of pictures with scan noise."""
    mixture: ObjectiveMixture = READING


PHASES = (
    Phase(share=0.05, longest=16),
    Phase(share=0.06, longest=24),
    Phase(share=0.06, longest=32),
    Phase(share=0.13, longest=48, scans=0.05),
    Phase(share=0.35, longest=48, longer=0.8, scans=0.15),
    Phase(share=0.35, longest=48, longer=0.7, scans=0.3, mixture=SUMMARISING),
)
"""From random weights: first reading, from short lines to passages of several rows."""
FURTHER_PHASES = (replace(PHASES[-2], share=0.5), replace(PHASES[-1], share=0.5))
"""From a base that reads rows already."""


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """The model, and how long it is trained."""

    shape: TinyShape
    steps: int
    batch_size: int
    learning_rate: float
    base: str = field(default="", metadata=NOT_IN_RESULT)
    """Folder of the model to go on from; empty for random weights."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What is trained, one after the other."""
        return FURTHER_PHASES if self.base else PHASES


@dataclass(frozen=True, kw_only=True)
class BootstrapJob:
    """What one bootstrap does; `name` is that of the training, whoever interrupts it."""

    name: str
    config: BootstrapConfig
    backbone: BackboneConfig
    engine: EngineConfig
    reading: ReadingConfig
    documents: str
    """Folder of the committed training split."""
    store: str
    journal: str
