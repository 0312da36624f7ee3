"""Geometry against brute force and scikit-learn."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from stages.evaluate.geometry import (
    anisotropy,
    chance_mutual_knn,
    geometry_by_layer,
    linear_cka,
    mutual_knn,
    unit_rows,
)


@given(seed=st.integers(0, 1000), count=st.integers(2, 40), width=st.integers(1, 8), shift=st.floats(-3, 3))
@settings(max_examples=50, deadline=None)
def test_anisotropy_is_the_mean_cosine_over_distinct_pairs(seed, count, width, shift):
    vectors = np.random.default_rng(seed).standard_normal((count, width)) + shift
    expected = cosine_similarity(vectors)[~np.eye(count, dtype=bool)].mean()
    assert anisotropy(unit_rows(vectors)) == pytest.approx(expected, abs=1e-9)


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
    assert mutual_knn(unit_rows(image), unit_rows(text)) == pytest.approx(expected)


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
    expected = cka(hsic_over_quadruples, image, text)
    assert linear_cka(unit_rows(image), unit_rows(text)) == pytest.approx(expected, abs=1e-10)


def test_cka_of_many_pages_and_few_dimensions_is_nearly_the_biased_one():
    rng = np.random.default_rng(3)
    image = rng.standard_normal((400, 4)) + 0.5
    text = image @ rng.standard_normal((4, 6)) + rng.standard_normal((400, 6))
    biased = cka(hsic_with_centring_matrices, image, text)
    assert linear_cka(unit_rows(image), unit_rows(text)) == pytest.approx(biased, abs=0.005)
    assert 0.1 < biased < 0.95


def test_equal_and_unrelated_spaces():
    rng = np.random.default_rng(4)
    image, text = rng.standard_normal((2, 400, 800))
    rotation = np.linalg.qr(rng.standard_normal((800, 800)))[0]
    units, rotated, others = map(unit_rows, (image, 3 * image @ rotation, text))
    assert linear_cka(units, rotated) == pytest.approx(1)
    assert mutual_knn(units, rotated) == 1.0
    assert mutual_knn(units, others) == pytest.approx(chance_mutual_knn(400), abs=0.01)
    assert linear_cka(units, others) == pytest.approx(0, abs=0.05)
    assert cka(hsic_with_centring_matrices, image, text) > 0.6  # why the unbiased one


def test_each_layer_has_its_own_measures():
    rng = np.random.default_rng(5)
    images, texts = rng.standard_normal((2, 3, 30, 6))
    images[0], texts[1] = np.arange(1, 31)[:, None], images[1]  # of one direction
    before, equal, unrelated = geometry_by_layer(images, texts, 4)
    assert (before["anisotropy_image"], before["mutual_knn"], before["cka"]) == (None, None, None)
    assert before["anisotropy_text"] == anisotropy(unit_rows(texts[0]))
    assert (equal["layer"], equal["mutual_knn"], equal["cka"]) == (1, 1.0, pytest.approx(1))
    sides = unit_rows(images[2]), unit_rows(texts[2])
    assert (unrelated["mutual_knn"], unrelated["cka"]) == (mutual_knn(*sides, k=4), linear_cka(*sides))
    images[0, 1, 0] += 1e-3
    assert geometry_by_layer(images, texts, 4)[0]["anisotropy_image"] is not None
    texts[2, 7] = 0
    with pytest.raises(ValueError, match="vector 7 is zero or not finite"):
        geometry_by_layer(images, texts, 4)
