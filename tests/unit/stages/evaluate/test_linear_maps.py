"""Whitening against scikit-learn, projection against a hand-written float64 loss and its differences."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from data_prep.queries import Query
from stages.evaluate.linear_maps import (
    LinearMap,
    Positives,
    fit_projection,
    fit_whitening,
    inverse_root,
    positives_of,
    projected_info_nce,
)
from tests.unit.stages.conftest import make_sample

TEMPERATURE = 0.1


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def cone(seed, count, width):
    """Directions with a common part and unequal variances, as embeddings have."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((width, width)) * np.geomspace(1, 0.05, width)
    return unit(2 + rng.standard_normal((count, width)) @ mixing)


def test_whitened_cosines_are_those_of_scikit_learn():
    training, searched = cone(0, 500, 12), cone(1, 40, 12)
    ours = LinearMap(mean=training.mean(axis=0), matrix=inverse_root(np.cov(training.T))).vectors(searched)
    theirs = PCA(whiten=True).fit(training.astype(np.float64)).transform(searched.astype(np.float64))
    assert ours @ ours.T == pytest.approx(cosine_similarity(theirs), abs=1e-5)


@pytest.mark.parametrize("count", [500, 20])  # 20 vectors span 19 of 48 dimensions
def test_fitted_whitening_is_the_mahalanobis_cosine_of_the_shrunk_covariance(count):
    training, searched = cone(2, count, 48), cone(3, 30, 48)
    estimate = LedoitWolf().fit(training.astype(np.float64))
    centred = searched - estimate.location_
    products = centred @ estimate.precision_ @ centred.T
    lengths = np.sqrt(products.diagonal())
    ours = fit_whitening(training).vectors(searched)
    assert ours @ ours.T == pytest.approx(products / np.outer(lengths, lengths), abs=1e-5)


def test_many_whitened_vectors_have_no_mean_and_covariance_one():
    training = cone(4, 40_000, 8)
    fitted = fit_whitening(training)
    mapped = (training - fitted.mean) @ fitted.matrix
    assert mapped.mean(axis=0) == pytest.approx(np.zeros(8), abs=1e-5)
    assert np.cov(mapped.T) == pytest.approx(np.eye(8), abs=0.05)


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


def test_projection_loss_and_gradient_by_hand():
    rng = np.random.default_rng(5)
    queries, texts = rng.standard_normal((2, 6, 4))
    matrix = np.eye(4) + 0.3 * rng.standard_normal((4, 4))
    masked = np.zeros((6, 6), dtype=bool)
    masked[0, 3] = masked[3, 0] = masked[2, 5] = True
    tensor = torch.tensor(matrix, requires_grad=True)
    loss = projected_info_nce(
        tensor, torch.tensor(queries), torch.tensor(texts), torch.tensor(masked), TEMPERATURE
    )
    loss.backward()
    assert loss.item() == pytest.approx(loss_by_hand(matrix, queries, texts, masked), rel=1e-10)
    step = 1e-5
    for place in np.ndindex(4, 4):
        moved = np.zeros((4, 4))
        moved[place] = step
        higher, lower = (loss_by_hand(matrix + s * moved, queries, texts, masked) for s in (1, -1))
        assert float(tensor.grad[place]) == pytest.approx((higher - lower) / (2 * step), abs=1e-6)


def fitted_projection(queries, texts, positives, steps=100):
    return fit_projection(
        queries,
        texts,
        positives,
        temperature=TEMPERATURE,
        batch_size=32,
        steps=steps,
        learning_rate=1e-2,
        seed=0,
    )


def test_projection_lowers_the_loss_of_pairs_that_it_has_not_seen_and_repeats_itself():
    rng = np.random.default_rng(6)
    meaning = rng.standard_normal((300, 8))

    def noisy():  # what queries and texts share fills a half of the dimensions
        return unit(np.concatenate([meaning, 2 * rng.standard_normal((300, 8))], axis=1))

    queries, texts = noisy(), noisy()
    seen, unseen = slice(200), slice(200, 300)
    positives = Positives(own=np.arange(200), same=np.eye(200, dtype=bool))
    fitted = fitted_projection(queries[seen], texts[seen], positives)
    untouched = fitted_projection(queries[seen], texts[seen], positives, steps=0)
    assert (untouched.matrix == np.eye(16)).all()
    none = np.zeros((100, 100), dtype=bool)
    before, after = (
        loss_by_hand(one.matrix, queries[unseen], texts[unseen], none) for one in (untouched, fitted)
    )
    assert after < 0.7 * before
    again = fitted_projection(queries[seen], texts[seen], positives)
    assert (again.matrix == fitted.matrix).all()


def test_texts_that_answer_too_are_no_negatives():
    rng = np.random.default_rng(7)
    queries, texts = (unit(rng.standard_normal((2, 4))) for _ in range(2))
    own = np.arange(2)
    nothing_to_tell_apart = Positives(own=own, same=np.ones((2, 2), dtype=bool))
    assert (fitted_projection(queries, texts, nothing_to_tell_apart).matrix == np.eye(4)).all()
    each_its_own = Positives(own=own, same=np.eye(2, dtype=bool))
    assert (fitted_projection(queries, texts, each_its_own).matrix != np.eye(4)).any()


def test_positives_by_hand():
    samples = [make_sample(number, text) for number, text in enumerate(["one", "two", "one", "three"])]
    keys = [sample.key for sample in samples]
    number_of = {key: number for number, key in enumerate(keys)}
    queries = [
        Query(identity="a", text="?", relevant=(keys[0],)),
        Query(identity="b", text="?", relevant=("elsewhere", keys[3], keys[1])),
    ]
    found = positives_of(queries, samples, number_of, same_document_negatives=True)
    assert found.own.tolist() == [0, 1]
    assert found.same.tolist() == [[True, False, True, False], [False, True, False, True]]
    one_document = positives_of(queries, samples, number_of, same_document_negatives=False)
    assert one_document.same.all()
