"""The law in each reading: the same checkpoints searched in other ways, judged by the same conditions.

The verdict is that of the primary one: the pooled vector after the primary CL, as in the paper. What a
reading is: stages/evaluate/readings.py.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from stages.cells import BEFORE_CL, PRIMARY_METRIC, Arm
from stages.law.config import LawConfig
from stages.law.measurements import Measurements
from stages.law.statistics import (
    Bootstrap,
    Estimate,
    mean_over_queries,
    means_over_queries,
    slope,
    spearman,
    trend_p,
)

POOLED, FUSED = "pooled", "fused"
SINGLE = (POOLED, "lexical", "transcribed", "trigrams")
"""What can be fused."""
READINGS = (*SINGLE, FUSED, "fused equally", "late interaction")
"""In the order in which they are shown; those that were measured are."""
_QUANTITIES = {POOLED: "query_to_image"}
"""What retrieval.json calls them; others by their own name."""


@dataclass(frozen=True, kw_only=True)
class LawInReading:
    """What pretraining did to one way of searching, before CL or after it.

    Attributes:
        curve: nDCG@10 by dose, ascending.
        gain: highest dose minus dose 0.
        per_halving: nDCG@10 gained by each halving of the nats per byte: slope of a line over the doses.
        by_cl: after CL minus before it, at the highest dose; None before CL, or where not measured there.
        shown: whether effect, order and chance hold as the verdict requires them.
    """

    reading: str
    arm: str
    doses: tuple[int, ...]
    curve: tuple[Estimate, ...]
    gain: Estimate
    per_halving: Estimate
    spearman: Estimate
    trend_p: float
    steps_up: int
    by_cl: Estimate | None
    shown: bool


@dataclass(frozen=True, kw_only=True)
class BestReading:
    """What to search with at the highest dose.

    Attributes:
        best: the fused one where it is shown to find more than `single`, else `single`. That one step, and
            none before it, looks at the test.
        single: the way alone that validation documents prefer.
        over_pooled: best minus the pooled vector after the primary CL.
        fused_over_single: the fused one that validation documents prefer minus `single`; None where nothing
            was fused.
    """

    best: LawInReading
    single: LawInReading
    over_pooled: Estimate
    fused_over_single: Estimate | None


def read_readings(found: Measurements, thresholds: LawConfig) -> tuple[LawInReading, ...]:
    """Judge every reading that was measured at every dose, before CL and after the primary one.

    Empty where only the vector was read.
    """
    places = [
        (reading, arm)
        for reading in READINGS
        for arm in (BEFORE_CL, found.primary)
        if _is_measured(found, reading, arm)
    ]
    if {reading for reading, _ in places} <= {POOLED}:
        return ()
    return tuple(_judge(found, thresholds, *place) for place in places)


def best_reading(
    found: Measurements, thresholds: LawConfig, readings: tuple[LawInReading, ...]
) -> BestReading | None:
    """None without validation documents: what finds most on the test would be chosen by its luck too."""
    preferred = _validation(found)
    if not readings or not preferred:
        return None
    how, arms = Bootstrap.of(thresholds), {arm.name: arm for arm in (BEFORE_CL, found.primary)}

    def at_top(reading: str, arm: str) -> np.ndarray:
        return found.scores(found.top, arms[arm], _QUANTITIES.get(reading, reading))

    def difference(one: LawInReading, reading: str, arm: str) -> Estimate:
        return mean_over_queries(
            at_top(one.reading, one.arm) - at_top(reading, arm), how, found.test.documents
        )

    def choose(names: Collection[str]) -> LawInReading | None:
        among = [one for one in readings if one.reading in names and (one.reading, one.arm) in preferred]
        return max(among, key=lambda one: preferred[one.reading, one.arm], default=None)

    single, fused = choose(SINGLE), choose((FUSED,))
    over_single = difference(fused, single.reading, single.arm) if fused else None
    best = fused if over_single is not None and over_single.low > 0 else single
    return BestReading(
        best=best,
        single=single,
        over_pooled=difference(best, POOLED, found.primary.name),
        fused_over_single=over_single,
    )


def _is_measured(found: Measurements, reading: str, arm: Arm) -> bool:
    quantity = _QUANTITIES.get(reading, reading)
    return all(found.scores(dose, arm, quantity) is not None for dose in found.doses)


def _judge(found: Measurements, thresholds: LawConfig, reading: str, arm: Arm) -> LawInReading:
    how, documents = Bootstrap.of(thresholds), found.test.documents
    quantity = _QUANTITIES.get(reading, reading)
    curve = found.curve(arm, quantity)
    means = curve.mean(axis=(1, 2))
    losses = np.array([found.nats_per_byte(dose) for dose in found.doses])
    gain, order = (
        mean_over_queries(curve[-1] - curve[0], how, documents),
        spearman(-losses, curve, how, documents),
    )
    p = trend_p(means, seed=thresholds.random_seed)
    levels = tuple(means_over_queries(curve, how, documents))
    chance = float(found.test.baselines["random"][PRIMARY_METRIC].mean())
    before = found.scores(found.top, BEFORE_CL, quantity) if arm.kind != "none" else None
    return LawInReading(
        reading=reading,
        arm=arm.name,
        doses=found.doses,
        curve=levels,
        gain=gain,
        per_halving=slope(-np.log2(losses), curve, how, documents),
        spearman=order,
        trend_p=p,
        steps_up=int((np.diff(means) > 0).sum()),
        by_cl=None if before is None else mean_over_queries(curve[-1] - before, how, documents),
        shown=gain.low >= thresholds.minimum_effect
        and order.value >= thresholds.minimum_spearman
        and p <= thresholds.maximum_trend_p
        and levels[-1].low >= thresholds.minimum_times_random * chance,
    )


def _validation(found: Measurements) -> Mapping[tuple[str, str], float]:
    """nDCG@10 on validation documents at the highest dose, by reading and arm; empty where there are none."""
    preferred = {}
    for arm in (BEFORE_CL, found.primary):
        steps = None if arm.kind == "none" else found.steps
        cells = found.cells("retrieval", dose=found.top, arm=arm, pages="target", split="test", steps=steps)
        fusions = [found.contents["retrieval", cell].get("fusion", {}) for cell in cells]
        measured = [one["validation"] for one in fusions if one.get("validation")]
        for name in measured[0] if measured else ():
            preferred[name, arm.name] = float(np.mean([one[name] for one in measured]))
    return preferred
