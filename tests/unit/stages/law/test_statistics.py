"""Bootstrap, correlation and trend against hand computations and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stages.law.statistics import (
    Bootstrap,
    Estimate,
    mean_over_queries,
    p_in_words,
    ratio_of_sums,
    resampled_means,
    spearman,
    trend_p,
)

HOW = Bootstrap(resamples=2000, confidence=0.95, seed=1)


def test_paired_difference_agrees_with_scipy_bootstrap_for_one_seed():
    rng = np.random.default_rng(0)
    before, after = rng.random((1, 150)), rng.random((1, 150)) + 0.1
    ours = mean_over_queries(after - before, HOW)
    theirs = stats.bootstrap(
        ((after - before)[0],), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.value == pytest.approx((after - before).mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (2, 300))
    agree = mean_over_queries(noise + 0.1, HOW)
    disagree = mean_over_queries(noise + np.array([[0.0], [0.2]]), HOW)
    assert disagree.high - disagree.low > 5 * (agree.high - agree.low)
    assert disagree.low < 0.01 and disagree.high > 0.19  # two seeds: a resample may hold only one of them


def test_documents_as_units_widen_the_interval():
    rng = np.random.default_rng(0)
    documents = np.repeat([f"d{i}" for i in range(20)], 15)
    scores = np.repeat(rng.random(20), 15)[None]  # all queries of a document behave alike
    alone, grouped = mean_over_queries(scores, HOW), mean_over_queries(scores, HOW, documents)
    assert alone.value == grouped.value
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(np.sqrt(15), rel=0.2)
    single = mean_over_queries(scores, HOW, np.arange(300))
    assert single == alone  # every query its own document


def test_resampling_sums_of_documents_is_resampling_documents():
    rng = np.random.default_rng(3)
    scores, groups = rng.random((2, 3, 40)), rng.integers(0, 6, 40)
    how = Bootstrap(resamples=20, seed=4)
    draws = resampled_means(scores, how, groups)
    rng = np.random.default_rng(4)
    seed_draws = rng.multinomial(3, np.full(3, 1 / 3), size=20)
    document_draws = rng.integers(6, size=(20, 6))
    for draw, seeds, documents in zip(draws, seed_draws, document_draws, strict=True):
        queries = np.concatenate([np.flatnonzero(groups == document) for document in documents])
        for mean, dose in zip(draw, scores, strict=True):
            assert mean == pytest.approx(np.average(dose[:, queries].mean(axis=1), weights=seeds))


def test_few_units_widen_the_interval_as_student_s_t_would():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1, (1, 13))
    found = mean_over_queries(scores, Bootstrap(resamples=200_000))
    exact = stats.t.interval(0.95, 12, loc=scores.mean(), scale=stats.sem(scores[0]))
    assert (found.low, found.high) == pytest.approx(exact, abs=0.1 * (exact[1] - exact[0]))
    assert HOW.for_units(13).confidence == pytest.approx(0.97667, abs=2e-4)  # t 2.17881 * sqrt(13/12)
    assert HOW.for_units(1) is HOW
    assert HOW.for_units(100_000).confidence == pytest.approx(0.95, abs=1e-4)


@pytest.mark.parametrize("documents", [True, False])
def test_intervals_hold_the_truth_as_often_as_they_say(documents):
    """Of 13 documents, and of queries and seeds alike."""
    rng, covered = np.random.default_rng(6), 0
    groups = np.repeat(np.arange(13), rng.integers(20, 80, 13)) if documents else None
    for _ in range(300):
        if documents:
            scores = rng.normal(0, 0.1, 13)[groups] + rng.normal(0, 0.3, (1, len(groups)))
        else:
            scores = rng.normal(0, 0.2, 120) + rng.normal(0, 0.01, (8, 1)) + rng.normal(0, 0.05, (8, 120))
        found = mean_over_queries(scores, Bootstrap(resamples=300), groups)
        covered += found.low <= 0 <= found.high
    assert 0.92 <= covered / 300 <= 0.98


@given(seed=st.integers(0, 500), doses=st.integers(1, 4), seeds=st.integers(1, 3), queries=st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_resampled_means_stay_inside_the_data(seed, doses, seeds, queries):
    scores = np.random.default_rng(seed).random((doses, seeds, queries))
    draws = resampled_means(scores, Bootstrap(resamples=40, seed=seed))
    assert draws.shape == (40, doses)
    assert (draws >= scores.min((1, 2)) - 1e-12).all() and (draws <= scores.max((1, 2)) + 1e-12).all()


def test_ratio_of_sums_weighs_by_size():
    estimate = ratio_of_sums(np.array([10.0, 0.0]), np.array([1.0, 9.0]), HOW)
    assert estimate.value == 1.0 and estimate.low == 0.0 and estimate.high == 10.0


def test_spearman_agrees_with_scipy_and_is_one_for_a_clear_order_and_zero_for_a_flat_line():
    rng = np.random.default_rng(0)
    scores = rng.random((6, 2, 80))
    quality = np.array([1.0, 2.0, 2.0, 5.0, 4.0, 9.0])
    estimate = spearman(quality, scores, HOW)
    assert estimate.value == pytest.approx(stats.spearmanr(quality, scores.mean((1, 2))).statistic)
    assert -1 <= estimate.low < estimate.high <= 1
    steps = np.arange(4.0)[:, None, None]
    clear = spearman(np.arange(4.0), np.broadcast_to(steps, (4, 2, 10)), HOW)
    assert (clear.value, clear.low, clear.high) == pytest.approx((1, 1, 1))
    flat = spearman(np.arange(4.0), np.ones((4, 2, 10)), HOW)
    assert (flat.value, flat.low, flat.high) == (0, 0, 0)


@pytest.mark.parametrize("count", [4, 7, 8])
def test_trend_agrees_with_scipy(count):
    means = np.random.default_rng(count).random(count) + np.arange(count) / 20
    theirs = stats.permutation_test(
        (means,), lambda x, axis: np.moveaxis(x, axis, -1) @ np.arange(count), permutation_type="pairings",
        alternative="greater", n_resamples=50_000, vectorized=True,
    )  # fmt: skip
    assert trend_p(means) == pytest.approx(theirs.pvalue)
    assert trend_p(np.arange(4.0)) == pytest.approx(1 / 24)
    assert trend_p(-np.arange(4.0)) == trend_p(np.ones(4)) == 1.0


def test_trend_is_rarely_significant_without_one_and_sampled_orders_are_reproducible():
    rng = np.random.default_rng(0)
    assert np.mean([trend_p(rng.random(5)) <= 0.1 for _ in range(150)]) <= 0.16
    assert trend_p(np.arange(12.0)) == trend_p(np.arange(12.0)) <= 0.001


def test_numbers_in_words():
    small = Estimate(value=-0.0001, low=-0.0504, high=0.1)
    assert small.plain() == "0.000 [−0.050, 0.100]"  # no minus before a zero
    assert small.signed() == "+0.000 [−0.050, +0.100]"
    assert small.in_words(0.9) == "+0.000, 90% interval −0.050 to +0.100"
    assert p_in_words(1 / 40_320) == "p < 0.001"
    assert p_in_words(0.0064) == "p = 0.006" and p_in_words(0.001) == "p = 0.001"
