"""The ceiling of one dose: where retrieval levels off when contrastive learning is given more steps.

Retrieval by CL steps is fitted with a saturating exponential, `y(t) = A - (A - y0) exp(-t / k)`, whose y0 is
the score before CL. `A` is the ceiling. It is determined only where the measured budgets show the plateau;
otherwise the highest measured score stands in its place, and the reading says why.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from stages.law.evidence import BEFORE_CL, Evidence
from stages.law.laboratory import BudgetCurve, Laboratory
from stages.law.statistics import Bootstrap, Estimate, count_units, resampled_means, trend_p

_FEWEST_BUDGETS = 3  # two parameters and one point to contradict them
_TIMES = 200  # values of k tried, evenly on a logarithmic scale


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What more CL makes of one dose; nDCG@10 of query -> image.

    Attributes:
        determined: whether the budgets show a plateau.
        reason: why not, in words; empty where determined.
        plateau: A with its interval; None where not determined.
        best: the highest measured mean (before CL included), after `best_steps` CL steps, 0 for before CL.
            It is the largest of several noisy means, so a little too high.
        time_constant: k of the fit, CL steps; None where nothing was fitted.
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
    """Whether the ceilings rise over the doses: rank correlation with the dose, exact permutation p.

    `determined` of `doses` ceilings are plateaus; the others are the best measured values.
    """

    spearman: float
    p: float
    rise: float
    determined: int
    doses: int


def read_ceilings(
    evidence: Evidence, laboratory: Laboratory, how: Bootstrap, margin: float
) -> tuple[Ceiling, ...]:
    """The ceiling of every dose that was refined at several budgets, doses ascending."""
    return tuple(
        fit_ceiling(dose, curve, evidence.scores(dose, BEFORE_CL), how, margin, evidence.documents)
        for dose, curve in sorted(laboratory.ceilings.items())
    )


def fit_ceiling(
    dose: int,
    curve: BudgetCurve,
    before: np.ndarray,
    how: Bootstrap,
    margin: float,
    groups: np.ndarray | None = None,
) -> Ceiling:
    """Fit one dose; intervals by resampling queries (in their `groups`) and seeds, all budgets together.

    Args:
        before: nDCG@10 before CL ``[1, queries]``.
        margin: nDCG@10 by which the plateau may lie above the highest measured mean, upper end of the
            interval, and by which retrieval may fall again after its highest.
    """
    steps = np.array([0, *sorted(curve.scores)])
    seeds = len(next(iter(curve.scores.values())))
    scores = np.stack([np.repeat(before, seeds, axis=0), *(curve.scores[count] for count in steps[1:])])
    means, draws = scores.mean(axis=(1, 2)), resampled_means(scores, how, groups)
    how = how.for_units(count_units(scores.shape[2], groups))
    points = [how.interval(mean, drawn) for mean, drawn in zip(means, draws.T, strict=True)]
    best = int(means.argmax())
    times, heights = _fit(steps, np.vstack([means, draws]))
    reason = _undetermined(steps, means, draws, times[0], heights, how, margin)
    fitted = len(steps) > _FEWEST_BUDGETS
    return Ceiling(
        dose=dose,
        determined=not reason,
        reason=reason,
        plateau=None if reason else how.interval(heights[0], heights[1:]),
        best=points[best],
        best_steps=int(steps[best]),
        time_constant=float(times[0]) if fitted else None,
        curve={int(count): point for count, point in zip(steps, points, strict=True)},
        learning_rate=curve.learning_rate,
    )


def ceiling_trend(ceilings: tuple[Ceiling, ...]) -> CeilingTrend | None:
    """The order of the ceilings over the doses; None below three doses."""
    if len(ceilings) < 3:
        return None
    heights = np.array([ceiling.height.value for ceiling in ceilings])
    flat = np.ptp(heights) == 0
    return CeilingTrend(
        spearman=0.0 if flat else float(stats.spearmanr(np.arange(len(heights)), heights).statistic),
        p=trend_p(heights),
        rise=float(heights[-1] - heights[0]),
        determined=sum(ceiling.determined for ceiling in ceilings),
        doses=len(ceilings),
    )


def _fit(steps: np.ndarray, curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """k and A of every curve ``[curves, budgets]``, least squares over the budgets above 0.

    For a given k the model is linear in A, so every k of a grid is solved at once: many curves cost no more
    than one, and there is no start to choose and nothing that fails to converge. k runs from a tenth of the
    first budget (flat from there on) to ten times the last (a straight line).
    """
    times = np.geomspace(steps[1] / 10, steps[-1] * 10, _TIMES)
    decay = np.exp(-steps[None, 1:] / times[:, None])
    gains, reach = curves[:, 1:] - curves[:, :1], 1 - decay
    rises = gains @ reach.T / (reach**2).sum(axis=1)
    errors = (gains**2).sum(axis=1, keepdims=True) - rises**2 * (reach**2).sum(axis=1)
    chosen = errors.argmin(axis=1)
    rows = np.arange(len(curves))
    return times[chosen], curves[:, 0] + rises[rows, chosen]


def _undetermined(
    steps: np.ndarray,
    means: np.ndarray,
    draws: np.ndarray,
    time_constant: float,
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
    if beyond.high > margin:
        return (
            f"may still rise after {steps[-1]:,} steps: the fitted plateau lies {beyond.value:+.3f}, at most "
            f"{beyond.high:+.3f}, from the highest measured, time constant {time_constant:,.0f} steps"
        )
    return ""
