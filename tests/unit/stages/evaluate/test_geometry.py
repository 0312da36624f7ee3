"""Geometry against brute force and scikit-learn."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from stages.evaluate.geometry import (
    all_identical,
    anisotropy,
    chance_mutual_knn,
    geometry_by_layer,
    linear_cka,
    mutual_knn,
)


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


def hsic_over_quadruples(one, other):
    """The U-statistic of HSIC: its kernel averaged over all ordered quadruples of distinct rows."""
    terms = [
        one[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q])
        for i, j, q, r in itertools.permutations(range(len(one)), 4)
    ]
    return np.mean(terms)


def hsic_with_centring_matrices(one, other):
    """The biased estimator of Kornblith et al. (2019)."""
    centring = np.eye(len(one)) - 1 / len(one)
    return np.trace(one @ centring @ other @ centring)


def cka(hsic, image, text):
    one, other = (cosine_similarity(side) for side in (image, text))
    return hsic(one, other) / np.sqrt(hsic(one, one) * hsic(other, other))


@pytest.mark.parametrize("seed", range(3))
def test_cka_is_that_of_the_unbiased_hsic(seed):
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((8, 5)) + 0.5
    text = image[:, :3] + 0.5 * rng.standard_normal((8, 3))
    assert linear_cka(image, text) == pytest.approx(cka(hsic_over_quadruples, image, text), abs=1e-10)


def test_cka_of_many_pages_and_few_dimensions_is_nearly_the_biased_one():
    rng = np.random.default_rng(3)
    image = rng.standard_normal((400, 4)) + 0.5
    text = image @ rng.standard_normal((4, 6)) + rng.standard_normal((400, 6))
    biased = cka(hsic_with_centring_matrices, image, text)
    assert linear_cka(image, text) == pytest.approx(biased, abs=0.005)
    assert 0.1 < biased < 0.95


def test_cka_of_equal_and_of_unrelated_spaces():
    rng = np.random.default_rng(4)
    image, text = rng.standard_normal((2, 200, 400))
    rotation = np.linalg.qr(rng.standard_normal((400, 400)))[0]
    assert linear_cka(image, 3 * image @ rotation) == pytest.approx(1)
    assert linear_cka(image, text) == pytest.approx(0, abs=0.05)
    assert cka(hsic_with_centring_matrices, image, text) > 0.6  # why the unbiased one


def test_each_layer_has_its_own_measures():
    rng = np.random.default_rng(5)
    images, texts = rng.standard_normal((2, 3, 30, 6))
    images[0], texts[1] = 1.0, images[1]
    before, equal, unrelated = geometry_by_layer(images, texts, 4)
    assert (before["anisotropy_image"], before["mutual_knn"], before["cka"]) == (None, None, None)
    assert before["anisotropy_text"] == anisotropy(texts[0])
    assert (equal["layer"], equal["mutual_knn"], equal["cka"]) == (1, 1.0, pytest.approx(1))
    assert unrelated["mutual_knn"] == mutual_knn(images[2], texts[2], k=4)
    assert unrelated["cka"] == linear_cka(images[2], texts[2])


def test_identical_vectors_are_noticed():
    one = np.random.default_rng(2).standard_normal((1, 6)).astype(np.float32)
    assert all_identical(np.repeat(one, 20, axis=0)) and all_identical(one * np.arange(1, 9)[:, None])
    assert not all_identical(np.concatenate([np.repeat(one, 20, axis=0), one + 1e-3]))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="vector 1"):
        anisotropy(np.array([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="at least two"):
        anisotropy(np.ones((1, 4)))
    with pytest.raises(ValueError, match="at least 4"):
        linear_cka(np.eye(3), np.eye(3))
    with pytest.raises(ValueError, match="k=10"):
        mutual_knn(np.eye(5), np.eye(5))
