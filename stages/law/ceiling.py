"""The ceiling of one dose: where retrieval levels off when contrastive learning is given more steps.

Retrieval by CL steps is fitted with a saturating exponential, `y(t) = A - (A - y0) exp(-t / k)`, whose y0 is
the score before CL. `A` is the ceiling. It is determined only where the measured budgets show the plateau;
otherwise the highest measured score stands in its place, and the reading says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from stages.cells import BEFORE_CL
from stages.law.config import best_learning_rate
from stages.law.measurements import EvidenceError, Measurements
from stages.law.statistics import Bootstrap, Estimate, count_units, resampled_means, trend_p

_FEWEST_BUDGETS = 3  # two parameters and one point to contradict them
_TIMES = 200  # values of k tried, evenly on a logarithmic scale


@dataclass(frozen=True, kw_only=True)
class BudgetCurve:
    """Retrieval of one dose by CL budget, at the learning rate that validation documents chose.

    Attributes:
        scores: CL steps -> nDCG@10 of query -> image ``[seeds, queries]``; 0: before CL ``[1, queries]``.
        learning_rate: the chosen one.
        validation: learning rate -> best nDCG@10 over the budgets on validation documents, first seed.
    """

    scores: dict[int, np.ndarray]
    learning_rate: float
    validation: dict[float, float]


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What more CL makes of one dose; nDCG@10 of query -> image.

    Attributes:
        determined: whether the budgets show a plateau.
        reason: why not, in words; empty where determined.
        plateau: A with its interval; None where not determined.
        best: the highest measured mean (before CL included), after `best_steps` CL steps, 0 for before CL.
            It is the largest of several noisy means, so a little too high.
        time_constant: k of the fit, CL steps; None where nothing was fitted or a straight line fits as well.
        curve: CL steps -> mean, 0 for before CL.
        learning_rate: the one that validation documents chose.
    """

    dose: int
    determined: bool
    reason: str
    plateau: Estimate | None
    best: Estimate
    best_steps: int
    time_constant: float | None
    curve: dict[int, Estimate]
    learning_rate: float

    @property
    def height(self) -> Estimate:
        """The plateau, or the best measured value where there is none."""
        return self.plateau or self.best


@dataclass(frozen=True, kw_only=True)
class CeilingTrend:
    """Whether the ceilings rise over the doses: rank correlation with the dose, permutation p (`trend_p`).

    `rise`: the highest dose's ceiling minus that of dose 0. `determined` of `doses` ceilings are plateaus;
    the others are the best measured values.
    """

    spearman: float
    p: float
    rise: Estimate
    determined: int
    doses: int


def read_budgets(found: Measurements) -> dict[int, BudgetCurve]:
    """Every dose's budgets, of a sweep.

    Raises:
        EvidenceError: a dose was not searched on validation documents, or not on the test documents at the
            learning rate that these chose, or with other seeds.
    """
    return {dose: _budgets(found, dose) for dose in found.doses}


def read_ceilings(
    found: Measurements, budgets: Mapping[int, BudgetCurve], how: Bootstrap, margin: float
) -> tuple[tuple[Ceiling, ...], CeilingTrend | None]:
    """The ceiling of every dose that was refined at several budgets, doses ascending; and their trend."""
    groups = found.test.documents
    how = how.for_units(count_units(found.test.queries, groups))
    fitted = [fit_ceiling(dose, curve, how, margin, groups) for dose, curve in budgets.items()]
    ceilings, draws = zip(*fitted, strict=True) if fitted else ((), ())
    return ceilings, ceiling_trend(ceilings, draws, how)


def fit_ceiling(
    dose: int, curve: BudgetCurve, how: Bootstrap, margin: float, groups: np.ndarray | None = None
) -> tuple[Ceiling, np.ndarray]:
    """Fit one dose; intervals by resampling queries (in their `groups`) and seeds, all budgets together.

    Returns the ceiling and the draws of its height ``[resamples]``: doses of one shape share their resamples.

    `how`: with the confidence for the units; `margin`: nDCG@10 by which the plateau may lie above the highest
    measured mean, upper end of the interval, and by which retrieval may fall again after its highest.
    """
    steps = np.array(sorted(curve.scores))
    shape = curve.scores[steps[-1]].shape
    scores = np.stack([np.broadcast_to(curve.scores[count], shape) for count in steps])
    means, draws = scores.mean(axis=(1, 2)), resampled_means(scores, how, groups)
    points = [how.interval(mean, drawn) for mean, drawn in zip(means, draws.T, strict=True)]
    best = int(means.argmax())
    constant, heights = _fit(steps, np.vstack([means, draws]))
    reason = _undetermined(steps, means, draws, constant, heights, how, margin)
    ceiling = Ceiling(
        dose=dose,
        determined=not reason,
        reason=reason,
        plateau=None if reason else how.interval(heights[0], heights[1:]),
        best=points[best],
        best_steps=int(steps[best]),
        time_constant=constant,
        curve={int(count): point for count, point in zip(steps, points, strict=True)},
        learning_rate=curve.learning_rate,
    )
    return ceiling, draws[:, best] if reason else heights[1:]


def ceiling_trend(
    ceilings: Sequence[Ceiling], draws: Sequence[np.ndarray], how: Bootstrap
) -> CeilingTrend | None:
    """The order of the ceilings over the doses; None below three doses.

    `draws`: of their heights, `[resamples]` each; `how`: with the confidence for their units.
    """
    if len(ceilings) < 3:
        return None
    heights = np.array([ceiling.height.value for ceiling in ceilings])
    flat = np.ptp(heights) == 0
    return CeilingTrend(
        spearman=0.0 if flat else float(stats.spearmanr(np.arange(len(heights)), heights).statistic),
        p=trend_p(heights, seed=how.seed),
        rise=how.interval(heights[-1] - heights[0], draws[-1] - draws[0]),
        determined=sum(ceiling.determined for ceiling in ceilings),
        doses=len(ceilings),
    )


def _fit(steps: np.ndarray, curves: np.ndarray) -> tuple[float | None, np.ndarray]:
    """k of the first and A of every curve ``[curves, budgets]``, least squares over the budgets above 0.

    For a given k the model is linear in A, so every k of a grid is solved at once: many curves cost no more
    than one, and there is no start to choose and nothing that fails to converge. k runs from a tenth of the
    first budget (flat from there on) to ten times the last (a straight line: no k, `None`).
    """
    times = np.geomspace(steps[1] / 10, steps[-1] * 10, _TIMES)
    decay = np.exp(-steps[None, 1:] / times[:, None])
    gains, reach = curves[:, 1:] - curves[:, :1], 1 - decay
    rises = gains @ reach.T / (reach**2).sum(axis=1)
    errors = (gains**2).sum(axis=1, keepdims=True) - rises**2 * (reach**2).sum(axis=1)
    chosen = errors.argmin(axis=1)
    rows = np.arange(len(curves))
    straight = len(steps) <= _FEWEST_BUDGETS or chosen[0] == _TIMES - 1
    return None if straight else float(times[chosen[0]]), curves[:, 0] + rises[rows, chosen]


def _undetermined(
    steps: np.ndarray,
    means: np.ndarray,
    draws: np.ndarray,
    time_constant: float | None,
    heights: np.ndarray,
    how: Bootstrap,
    margin: float,
) -> str:
    """Why the budgets do not determine a plateau; empty where they do."""
    if len(steps) <= _FEWEST_BUDGETS:
        return f"{len(steps) - 1} CL budgets; a saturating curve needs {_FEWEST_BUDGETS} or more"
    best = int(means.argmax())
    fall = how.interval(means[best] - means[-1], draws[:, best] - draws[:, -1])
    if fall.low > 0 and fall.value > margin:
        after = f"after {steps[best]:,} steps" if best else "with CL"
        return f"retrieval falls again {after}, by {fall.value:.3f} up to {steps[-1]:,} steps: no plateau"
    beyond = how.interval(heights[0] - means.max(), heights[1:] - draws.max(axis=1))
    if beyond.value < -margin:
        return f"the curve does not fit: its plateau lies {-beyond.value:.3f} below the highest measured"
    if time_constant is None:
        return f"may still rise after {steps[-1]:,} steps: a straight line fits as well"
    if beyond.high > margin:
        return (
            f"may still rise after {steps[-1]:,} steps: the fitted plateau lies {beyond.signed()} from the "
            f"highest measured, time constant {time_constant:,.0f} steps"
        )
    return ""


def _budgets(found: Measurements, dose: int) -> BudgetCurve:
    rates = {
        cell.arm: found.contents["refine", cell]["learning_rate"]
        for cell in found.cells("refine", dose=dose, pages="target")
        if cell.arm == found.primary or cell.arm.kind == "learning rate"
    }
    validation: dict[float, list[float]] = {}
    searched = found.cells("retrieval", dose=dose, pages="target", split="validation", seed=found.seeds[0])
    for cell in searched:
        if cell.arm in rates:
            first_seed = found.scores(dose, cell.arm, steps=cell.steps, split="validation")[0]
            validation.setdefault(rates[cell.arm], []).append(float(first_seed.mean()))
    if not validation:
        raise EvidenceError(f"dose {dose} has no retrieval on validation documents; run these cells.")
    best = {rate: max(means) for rate, means in sorted(validation.items())}
    chosen = best_learning_rate(best)
    cells = found.cells("retrieval", dose=dose, pages="target", split="test")
    arms = {cell.steps: cell.arm for cell in cells if rates.get(cell.arm) == chosen}
    if not arms:
        raise EvidenceError(f"dose {dose}, learning rate {chosen:g}: no retrieval on the test documents.")
    scores = {steps: found.paired(dose, arms[steps], steps=steps) for steps in sorted(arms)}
    return BudgetCurve(
        scores={0: found.scores(dose, BEFORE_CL)} | scores, learning_rate=chosen, validation=best
    )
