"""Retrieval metrics against hand computations, scikit-learn and properties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from stages.evaluate.score import METRICS, Metric, ndcg, random_scores, recall, score_retrieval


def ids(count):
    return [f"page-{number:04d}" for number in range(count)]


def random_case(seed, queries=12, corpus=30, answers=3):
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(corpus, rng.integers(1, answers + 1), replace=False) for _ in range(queries)]
    relevant = [{f"page-{column:04d}" for column in columns} for columns in drawn]
    return rng.standard_normal((queries, corpus)).astype(np.float32), relevant


def test_by_hand():
    scores = np.array([[0.9, 0.5, 0.1, 0.0], [0.1, 0.9, 0.5, 0.3]], dtype=np.float32)
    result = score_retrieval(scores, corpus_ids=ids(4), relevant=[{"page-0000"}, {"page-0002", "page-0000"}])
    second = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))  # relevant at ranks 2 and 4
    expected = {"ndcg@10": pytest.approx([1.0, second]), "mrr": [1.0, 0.5]}
    expected |= {"recall@1": [1.0, 0.0], "recall@5": [1.0, 1.0], "recall@10": [1.0, 1.0]}
    assert {name: result["per_query"][name] for name in expected} == expected
    assert list(result["means"]) == list(METRICS)
    assert result["means"] == {name: pytest.approx(np.mean(row)) for name, row in result["per_query"].items()}


@pytest.mark.parametrize("seed", range(5))
def test_ndcg_agrees_with_scikit_learn(seed):
    scores, relevant = random_case(seed)
    truth = np.array([[page in answers for page in ids(30)] for answers in relevant], dtype=float)
    expected = [ndcg_score(truth[row : row + 1], scores[row : row + 1], k=10) for row in range(12)]
    result = score_retrieval(scores, corpus_ids=ids(30), relevant=relevant)
    assert result["per_query"]["ndcg@10"] == pytest.approx(expected)


@given(seed=st.integers(0, 10_000), corpus=st.integers(3, 40), levels=st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_bounded_and_independent_of_corpus_order_even_with_ties(seed, corpus, levels):
    rng = np.random.default_rng(seed)
    scores = rng.integers(levels, size=(6, corpus)).astype(np.float32)
    relevant = [{f"page-{rng.integers(corpus):04d}"} for _ in range(6)]
    order = rng.permutation(corpus)
    straight = score_retrieval(scores, corpus_ids=ids(corpus), relevant=relevant)
    shuffled = score_retrieval(
        scores[:, order], corpus_ids=[ids(corpus)[i] for i in order], relevant=relevant
    )
    assert straight == shuffled
    assert all(0 <= value <= 1 for name in METRICS for value in straight["per_query"][name])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (np.eye(50), {"recall@1": 1.0, "ndcg@10": 1.0, "mrr": 1.0}),
        (-np.eye(50), {"recall@10": 0.0, "ndcg@10": 0.0, "mrr": 1 / 50}),
        # A collapsed model is not flattered: what ties is ranked as by chance.
        (np.ones((50, 50)), random_scores(relevant_counts=[1] * 50, corpus_size=50)["means"]),
    ],
    ids=["perfect", "worst", "collapsed"],
)
def test_extremes(scores, expected):
    found = score_retrieval(scores, corpus_ids=ids(50), relevant=[{page} for page in ids(50)])["means"]
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.fixture
def further_metrics(monkeypatch):
    """What a further metric takes: a family's next cut, a measure of trec_eval, a function of ranked hits."""

    def no_hit(answers, corpus):
        return math.comb(corpus - answers, 5) / math.comb(corpus, 5)

    further = {
        "recall@20": recall(20),
        "ndcg@3": ndcg(3),
        "hit@5": Metric(measured="success.5", by_chance=lambda *sizes: 1 - no_hit(*sizes)),
        "misses@5": Metric(measured=lambda hits: ~hits[:, :5].any(axis=1), by_chance=no_hit),
    }
    for name, metric in further.items():
        monkeypatch.setitem(METRICS, name, metric)


def test_a_further_metric_is_one_entry(further_metrics):
    scores, relevant = random_case(2)
    found = score_retrieval(scores, corpus_ids=ids(30), relevant=relevant)
    assert list(found["means"]) == list(found["per_query"]) == list(METRICS)
    for row, answers in enumerate(relevant):
        ranked = [ids(30)[column] for column in np.argsort(-scores[row])]
        per_query = {name: values[row] for name, values in found["per_query"].items()}
        assert per_query["recall@20"] == pytest.approx(len(answers & set(ranked[:20])) / len(answers))
        assert per_query["hit@5"] == 1 - per_query["misses@5"] == bool(answers & set(ranked[:5]))


def test_random_expectation_agrees_with_simulation(further_metrics):
    rng = np.random.default_rng(0)
    counts = [1, 2, 5, 1]
    relevant = [set(ids(23)[:count]) for count in counts]
    repeats = 800
    scores = rng.random((4 * repeats, 23)).astype(np.float32)
    simulated = score_retrieval(scores, corpus_ids=ids(23), relevant=relevant * repeats)
    expected = random_scores(relevant_counts=counts, corpus_size=23)
    for name in METRICS:
        assert expected["means"][name] == pytest.approx(simulated["means"][name], abs=0.015), name


def test_random_reciprocal_rank_by_hand():
    harmonic = sum(1 / rank for rank in range(1, 8))
    assert random_scores(relevant_counts=[1], corpus_size=7)["means"]["mrr"] == pytest.approx(harmonic / 7)
    assert random_scores(relevant_counts=[7], corpus_size=7)["means"]["ndcg@10"] == pytest.approx(1.0)


def test_a_broken_model_is_named():
    with pytest.raises(ValueError, match="NaN or infinity"):
        score_retrieval(np.full((1, 3), np.nan), corpus_ids=ids(3), relevant=[{"page-0000"}])
