"""The bound's formulas against hand computations, a loop, and properties over arbitrary matrices."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.evaluate.candidate_matrix import first_candidates, image_losses, information, log_ratios, slack


def matrices(lowest: float, highest: float):
    numbers = st.floats(lowest, highest) | st.sampled_from([lowest, highest, (lowest + highest) / 2])
    return st.integers(1, 9).flatmap(lambda count: arrays(np.float64, (count, count), elements=numbers))


def test_by_hand():
    matrix = np.log([[0.6, 0.3], [0.2, 0.1]])  # p(text | image): the second text is unlikely everywhere
    assert np.exp(log_ratios(matrix)) == pytest.approx(np.array([[1.5, 1.5], [0.5, 0.5]]))
    assert image_losses(matrix) == pytest.approx([-math.log(0.6 / 0.8), -math.log(0.1 / 0.4)])
    assert information(matrix) == pytest.approx((math.log(1.5) + math.log(0.5)) / 2)
    assert slack(matrix) == pytest.approx(math.log(1 + ((1.5 + 0.5) / 2 - 1) / 2)) == pytest.approx(0)
    matrix = np.log([[0.9, 0.1], [0.1, 0.3]])  # r+ is 0.9 / 0.5 and 0.3 / 0.2
    assert slack(matrix) == pytest.approx(math.log(1 + ((1.8 + 1.5) / 2 - 1) / 2))
    assert slack(matrix[::-1]) < 0 < slack(matrix)


def test_perfect_and_useless_critics():
    perfect = np.where(np.eye(16, dtype=bool), -10.0, -900.0)
    assert image_losses(perfect).mean() == 0 and information(perfect) == pytest.approx(math.log(16))
    assert slack(perfect) == pytest.approx(math.log(2 - 1 / 16))
    useless = np.broadcast_to(np.linspace(-700, -3, 16), (16, 16))  # texts differ, images do not
    assert image_losses(useless) == pytest.approx([math.log(16)] * 16)
    assert information(useless) == pytest.approx(0) and slack(useless) == pytest.approx(0)


@given(matrix=matrices(-1e300, 1e300))
@settings(max_examples=50, deadline=None)
def test_log_n_less_information_is_the_loss_and_all_is_bounded_whatever_the_matrix(matrix):
    count = len(matrix)
    losses = image_losses(matrix)
    assert np.isfinite(losses).all() and (losses >= 0).all()
    assert (log_ratios(matrix) <= math.log(count)).all()
    assert information(matrix) <= math.log(count) + 1e-12
    assert math.log(count) - information(matrix) == pytest.approx(losses.mean(), rel=1e-12, abs=1e-6)
    assert (math.log1p(-1 / count) if count > 1 else -1e-12) - 1e-12 <= slack(matrix)
    assert slack(matrix) <= math.log(2 - 1 / count) + 1e-12


@given(matrix=matrices(-500, 0))
@settings(max_examples=50, deadline=None)
def test_loss_is_minus_log_softmax_over_images_and_forgets_a_texts_own_likelihood(matrix):
    shares = [
        math.exp(matrix[j, j] - matrix[:, j].max()) / np.exp(matrix[:, j] - matrix[:, j].max()).sum()
        for j in range(len(matrix))
    ]
    assert np.exp(-image_losses(matrix)) == pytest.approx(shares, abs=1e-12)
    assert image_losses(log_ratios(matrix)) == pytest.approx(image_losses(matrix), abs=1e-9)
    # The candidates' mixture makes the mean ratio of a text over all images 1.
    assert np.exp(log_ratios(matrix)).mean(axis=0) == pytest.approx(np.ones(len(matrix)))


@pytest.mark.parametrize(
    ("count", "sizes"), [(100, [8, 16, 32, 64, 100]), (64, [8, 16, 32, 64]), (8, [8]), (5, [5])]
)
def test_the_first_candidates(count, sizes):
    matrix = np.arange(count * count).reshape(count, count)
    found = first_candidates(matrix)
    assert list(found) == [str(size) for size in sizes]
    assert all((part == matrix[: int(size), : int(size)]).all() for size, part in found.items())


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((2, 3)), "as many texts as images"),
        (np.zeros((0, 0)), "as many texts as images"),
        (np.full((2, 2), -np.inf), "NaN or infinity"),
        (np.full((2, 2), np.nan), "NaN or infinity"),
    ],
)
def test_bad_matrices_are_named(matrix, message):
    for function in (image_losses, log_ratios, information, slack):
        with pytest.raises(ValueError, match=message):
            function(matrix)
