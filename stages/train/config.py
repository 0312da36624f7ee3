"""How the engine of both training stages runs. No torch here."""

from dataclasses import dataclass, field
from typing import Literal

from infra.fingerprint import NOT_IN_RESULT

BUCKET_ELEMENTS = 500_000_000
"""Gradients that are reduced at once, as DeepSpeed does by default."""
STEP_DIGITS = 9
MOST_STEPS = 10**STEP_DIGITS - 1
"""Of one training: checkpoints are ordered by name, which holds the number of steps in so many digits."""
LABELS_AT_ONCE = 4_096
"""Logits of a large vocabulary are the largest tensor there is: no more rows of them at a time."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How the DeepSpeed engine runs. `precision` changes the result; the others only in the last bits."""

    processes: int = field(default=1, metadata=NOT_IN_RESULT)
    zero_stage: Literal[0, 1, 2, 3] = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    text_tokens: int = 16_384
    """Budget of a micro-batch: decoder positions, visual tokens and padding included."""
    visual_tokens: int = 8_192
    """Budget of a micro-batch: visual tokens after the merger."""
    packing: bool = False
    """Several sequences in a row, each with its own attention, instead of rows of similar length. Pays where
    the attention kernel skips what is masked (on a GPU)."""
    checkpoint_steps: int = field(default=200, metadata=NOT_IN_RESULT)
    """Optimiser steps between two checkpoints of a training; the two newest are kept."""
