"""Geometry against brute force and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from stages.evaluate.geometry import all_identical, anisotropy, chance_mutual_knn, mutual_knn


@given(seed=st.integers(0, 1000), count=st.integers(2, 40), width=st.integers(1, 8), shift=st.floats(-3, 3))
@settings(max_examples=50, deadline=None)
def test_anisotropy_is_the_mean_cosine_over_distinct_pairs(seed, count, width, shift):
    vectors = np.random.default_rng(seed).standard_normal((count, width)) + shift
    cosines = cosine_similarity(vectors)
    expected = cosines[~np.eye(count, dtype=bool)].mean()
    assert anisotropy(vectors) == pytest.approx(expected, abs=1e-9)


def test_anisotropy_at_its_extremes():
    assert anisotropy(np.eye(5)) == pytest.approx(0.0)
    assert anisotropy(np.ones((5, 3)) * np.arange(1, 6)[:, None]) == pytest.approx(1.0)
    assert anisotropy(np.array([[1.0, 0.0], [-2.0, 0.0]])) == pytest.approx(-1.0)


@pytest.mark.parametrize("count", [12, 700])  # 700: more than one block of rows
def test_mutual_knn_agrees_with_scikit_learn(count):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((count, 6))
    text = image + rng.standard_normal((count, 6))
    near = [
        NearestNeighbors(n_neighbors=10, metric="cosine").fit(side).kneighbors(return_distance=False)
        for side in (image, text)
    ]
    expected = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)])
    assert mutual_knn(image, text) == pytest.approx(expected)


def test_mutual_knn_of_equal_and_of_unrelated_spaces():
    rng = np.random.default_rng(1)
    image = rng.standard_normal((400, 8))
    assert mutual_knn(image, 3 * image) == 1.0
    assert mutual_knn(image, rng.standard_normal((400, 5))) == pytest.approx(chance_mutual_knn(400), abs=0.01)


def test_identical_vectors_are_noticed():
    one = np.random.default_rng(2).standard_normal((1, 6)).astype(np.float32)
    assert all_identical(np.repeat(one, 20, axis=0)) and all_identical(one * np.arange(1, 9)[:, None])
    assert not all_identical(np.concatenate([np.repeat(one, 20, axis=0), one + 1e-3]))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="vector 1"):
        anisotropy(np.array([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="at least two"):
        anisotropy(np.ones((1, 4)))
    with pytest.raises(ValueError, match="k=10"):
        mutual_knn(np.eye(5), np.eye(5))
