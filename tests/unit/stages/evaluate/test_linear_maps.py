"""Whitening against scikit-learn, projection against a hand-written float64 loss and its differences."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from data_prep.queries import Query
from stages.evaluate.config import LinearMapConfig, LinearMapSettings
from stages.evaluate.linear_maps import fit_projection, fit_whitening, positives_of
from stages.evaluate.search_task import SearchTask
from tests.unit.stages.conftest import make_sample

TEMPERATURE = 0.1


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def cone(seed, count, width):
    """Directions with a common part and unequal variances, as embeddings have."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((width, width)) * np.geomspace(1, 0.05, width)
    return unit(2 + rng.standard_normal((count, width)) @ mixing)


@pytest.mark.parametrize("count", [500, 20])  # 20 vectors span 19 of 48 dimensions
def test_fitted_whitening_is_the_mahalanobis_cosine_of_the_shrunk_covariance(count):
    training, searched = cone(2, count, 48), cone(3, 30, 48)
    estimate = LedoitWolf().fit(training.astype(np.float64))
    centred = searched - estimate.location_
    products = centred @ estimate.precision_ @ centred.T
    lengths = np.sqrt(products.diagonal())
    ours = fit_whitening(training).vectors(searched)
    assert ours @ ours.T == pytest.approx(products / np.outer(lengths, lengths), abs=1e-5)


def loss_by_hand(matrix, queries, texts, masked):
    """The definition, one query at a time, in float64."""
    mapped_queries, mapped_texts = queries @ matrix, texts @ matrix
    losses = []
    for row, query in enumerate(mapped_queries):
        weights = [
            np.exp(query @ text / np.linalg.norm(query) / np.linalg.norm(text) / TEMPERATURE)
            for text in mapped_texts
        ]
        allowed = [weight for column, weight in enumerate(weights) if not masked[row, column]]
        losses.append(-np.log(weights[row] / sum(allowed)))
    return np.mean(losses)


def fitted_projection(queries, texts, own, same, steps=100):
    config = LinearMapConfig(projection_steps=steps, projection_learning_rate=1e-2)
    settings = LinearMapSettings(config=config, batch_size=32, same_document_negatives=True)
    return fit_projection(queries, texts, own, same, settings, temperature=TEMPERATURE, seed=0)


def test_projection_is_adam_on_the_loss_by_hand():
    rng = np.random.default_rng(5)
    queries, texts = (unit(rows) for rows in rng.standard_normal((2, 6, 4)))
    same = np.eye(6, dtype=bool)
    same[0, 3] = same[3, 0] = same[2, 5] = True
    masked = same & ~np.eye(6, dtype=bool)
    expected, first, second = np.eye(4), np.zeros((4, 4)), np.zeros((4, 4))
    for step in range(1, 6):
        gradient = np.zeros((4, 4))
        for place in np.ndindex(4, 4):
            moved = np.zeros((4, 4))
            moved[place] = 1e-5
            higher, lower = (loss_by_hand(expected + s * moved, queries, texts, masked) for s in (1, -1))
            gradient[place] = (higher - lower) / 2e-5
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        expected -= 1e-2 * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    found = fitted_projection(queries, texts, np.arange(6), same, steps=5)
    assert found.matrix == pytest.approx(expected, abs=1e-4)
    assert (found.mean == 0).all()


def test_projection_lowers_the_loss_of_pairs_that_it_has_not_seen_and_repeats_itself():
    rng = np.random.default_rng(6)
    meaning = rng.standard_normal((300, 8))

    def noisy():  # what queries and texts share fills a half of the dimensions
        return unit(np.concatenate([meaning, 2 * rng.standard_normal((300, 8))], axis=1))

    queries, texts = noisy(), noisy()
    pairs = (queries[:200], texts[:200], np.arange(200), np.eye(200, dtype=bool))
    fitted, untouched = fitted_projection(*pairs), fitted_projection(*pairs, steps=0)
    assert (untouched.matrix == np.eye(16)).all()
    none = np.zeros((100, 100), dtype=bool)
    before, after = (
        loss_by_hand(one.matrix, queries[200:], texts[200:], none) for one in (untouched, fitted)
    )
    assert after < 0.7 * before
    assert (fitted_projection(*pairs).matrix == fitted.matrix).all()


def test_positives_by_hand():
    samples = [make_sample(number, text) for number, text in enumerate(["one", "two", "one", "three"])]
    keys = [sample.key for sample in samples]
    queries = [
        Query(identity="a", text="?", relevant=(keys[0],)),
        Query(identity="b", text="?", relevant=("elsewhere", keys[3], keys[1])),
    ]
    task = SearchTask(corpus=samples, queries=queries)
    own, same = positives_of(task, same_document_negatives=True)
    assert own.tolist() == [0, 1]
    assert same.tolist() == [[True, False, True, False], [False, True, False, True]]
    _, one_document = positives_of(task, same_document_negatives=False)
    assert one_document.all()
