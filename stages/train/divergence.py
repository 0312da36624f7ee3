"""When a training has gone wrong for good: too many steps whose loss or gradient is not finite.

Such a step is skipped: weights and moments stay, data order and learning rate go on. One may be a bad sample;
several are a training that no longer learns, and what it would commit is worth nothing. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.train.ledger import Step

RECENT_STEPS = 100
MOST_SKIPPED = 3
"""Of the recent steps; and fewer than half of all steps up to a milestone."""
ADVICE = (
    "likely causes are a learning rate that is too high, bfloat16 where float32 is needed, a base model with "
    "broken weights, or a bad sample: lower learning_rate, lengthen warmup_steps or set engine.precision to "
    "float32 in the recipe, or correct the base model or the documents; nothing of this was committed, and a "
    "run goes on from before it"
)


class DivergenceError(Exception):
    """A training no longer learns; nothing that came of it is committed. The message is one line."""


def skipped(steps: Sequence[Step]) -> list[Step]:
    """Those that were not made."""
    return [step for step in steps if step.skipped]


def streak_begins(steps: Sequence[Step]) -> int:
    """Number of the first skipped step among the recent ones; of the next step where none is."""
    recent = skipped(steps[-RECENT_STEPS:])
    return recent[0].number if recent else len(steps) + 1


def divergence(steps: Sequence[Step], *, at_milestone: bool) -> str | None:
    """Why a training must end after these steps, in one line; None if it may go on."""
    recent, last = skipped(steps[-RECENT_STEPS:]), len(steps)
    if len(recent) <= MOST_SKIPPED and not (at_milestone and 2 * len(skipped(steps)) >= last):
        return None
    told = ", ".join(f"{step.number} ({step.skipped})" for step in recent)
    return (
        f"training ended after step {last}: {len(recent)} of its last {min(last, RECENT_STEPS)} steps were "
        f"skipped, since loss or gradient was not finite: {told}; {ADVICE}"
    )


def broken_weights(step: int) -> str:
    """The same where the weights themselves are lost."""
    return f"training ended after step {step}: weights are not finite; {ADVICE}"
