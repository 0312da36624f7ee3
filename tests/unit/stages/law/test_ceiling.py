"""Ceilings: a known plateau is found, and where the budgets do not show one the reading says so."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import curve_fit

from stages.law.ceiling import BudgetCurve, ceiling_trend, fit_ceiling
from stages.law.statistics import Bootstrap, trend_p

HOW = Bootstrap(resamples=400)
BUDGETS = (5, 10, 30, 60, 120)
MARGIN = 0.02
DIP = {5: 0.5, 10: 0.5, 30: 0.5, 60: 0.3, 120: 0.5}


def saturating(steps, plateau, start, time):
    return plateau - (plateau - start) * np.exp(-steps / time)


def fitted(mean_at, rng=0, *, start=0.3, budgets=BUDGETS, noise=0.05, queries=300, seeds=3, dose=0):
    """Fit curves whose mean is known: queries differ from each other, and a little from budget to budget."""
    rng = np.random.default_rng(rng)
    query = rng.normal(0, 0.3, queries)
    scores = {}
    for steps in budgets:
        of_seed, of_query = rng.normal(0, 0.01, (seeds, 1)), rng.normal(0, noise, (seeds, queries))
        scores[steps] = mean_at(steps) + query + of_seed + of_query
    before = (start + query + rng.normal(0, noise, queries))[None]
    curve = BudgetCurve(scores={0: before} | scores, learning_rate=1e-3, validation={1e-3: 0.4})
    return *fit_ceiling(dose, curve, HOW, MARGIN), curve


def of_dose(dose, plateau):
    """The ceiling of a curve that levels off, and the draws of its height."""
    return fitted(lambda steps: saturating(steps, plateau, 0.3, 10), dose=dose)[:2]


def test_the_fit_is_that_of_scipy():
    found, _, curve = fitted(lambda steps: saturating(steps, 0.5, 0.3, 20))
    steps = np.array(BUDGETS)
    means = np.array([curve.scores[count].mean() for count in BUDGETS])
    start = curve.scores[0].mean()
    (plateau, time), _ = curve_fit(lambda t, a, k: saturating(t, a, start, k), steps, means, p0=(0.5, 10))
    assert found.determined and found.reason == ""
    assert found.plateau.value == pytest.approx(plateau, abs=5e-4)
    assert found.time_constant == pytest.approx(time, rel=0.02)
    assert found.height == found.plateau
    assert list(found.curve) == [0, *BUDGETS]
    assert found.curve[30].value == pytest.approx(means[2])
    at_once, _, _ = fitted(lambda steps: 0.5)
    assert at_once.determined and at_once.plateau.value == pytest.approx(0.5, abs=0.05)


def test_the_interval_holds_the_plateau_as_often_as_it_says():
    covered = 0
    for rng in range(80):
        found, _, _ = fitted(lambda steps: saturating(steps, 0.5, 0.3, 15), rng)
        covered += found.plateau is not None and found.plateau.low <= 0.5 <= found.plateau.high
    assert covered >= 70  # 95% of 80, less 2.6 standard deviations


NO_PLATEAU = {
    "straight": (
        lambda steps: 0.3 + 0.2 * steps / 120, {}, "^may still rise .*: a straight line fits as well$"
    ),
    "later": (
        lambda steps: saturating(steps, 0.5, 0.3, 100), {"noise": 0.02},
        r"plateau lies \+0\.\d{3} \[.*\] from the .* time constant \d+ steps$",
    ),
    "a dip": (DIP.get, {}, "does not fit: its plateau lies 0.0"),
    "a clear dip": (DIP.get, {"noise": 0.001}, "below the highest measured"),
    "a fall": ({5: 0.4, 10: 0.45, 30: 0.5, 60: 0.42, 120: 0.3}.get, {}, "falls again after 30 steps"),
    "harm": (lambda steps: 0.3 - 0.002 * steps, {}, "falls again with CL"),
    "two budgets": (lambda steps: saturating(steps, 0.5, 0.3, 10), {"budgets": (10, 60)}, "2 CL budgets"),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_PLATEAU)
def test_no_plateau_where_the_budgets_show_none(case):
    mean_at, changes, reason = NO_PLATEAU[case]
    found, draws, curve = fitted(mean_at, **changes)
    assert not found.determined and found.plateau is None and re.search(reason, found.reason)
    assert found.height == found.best == found.curve[found.best_steps]
    best_steps = {"straight": 120, "a fall": 30, "harm": 0}.get(case, found.best_steps)
    assert found.best_steps == best_steps and found.best.value == np.mean(curve.scores[best_steps])
    if case == "straight":
        assert found.time_constant is None  # the last of the grid is no estimate
    if case == "later":
        assert found.time_constant == pytest.approx(100, rel=0.3)
    # The height of a ceiling without plateau is its best budget, in every draw.
    assert tuple(np.quantile(draws, [0.025, 0.975])) == pytest.approx((found.best.low, found.best.high))


def test_trend_of_the_ceilings_over_doses():
    ceilings, draws = zip(
        *(of_dose(dose, top) for dose, top in enumerate((0.4, 0.45, 0.5, 0.55))), strict=True
    )
    trend = ceiling_trend(ceilings, draws, HOW)
    assert (trend.spearman, trend.determined, trend.doses) == (1.0, 4, 4)
    assert trend.p == pytest.approx(1 / 24)
    assert trend.rise.value == pytest.approx(ceilings[-1].plateau.value - ceilings[0].plateau.value)
    assert (trend.rise.low, trend.rise.high) == pytest.approx(
        tuple(np.quantile(draws[-1] - draws[0], [0.025, 0.975]))
    )
    # Doses share their queries, and here their noise too: what is left is far less than either ceiling's own.
    plateau = ceilings[0].plateau
    assert trend.rise.high - trend.rise.low < (plateau.high - plateau.low) / 10
    assert ceiling_trend(ceilings[::-1], draws[::-1], HOW).spearman == -1.0
    assert ceiling_trend(ceilings[:2], draws[:2], HOW) is None


def test_many_doses_sample_orders_with_the_seed_of_the_law():
    heights = np.random.default_rng(1).random(9)
    one, draws = of_dose(0, 0.5)
    ceilings = [replace(one, plateau=replace(one.plateau, value=height)) for height in heights]
    seeds = [ceiling_trend(ceilings, [draws] * 9, replace(HOW, seed=seed)).p for seed in (3, 4)]
    assert seeds == [trend_p(heights, seed=3), trend_p(heights, seed=4)] and seeds[0] != seeds[1]
