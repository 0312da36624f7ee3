"""Prediction of the highest dose: against the matrix form of least squares and its own promise."""

import numpy as np
import pytest
from scipy import stats

from stages.law.prediction import predict_last


def predict(losses, means, confidence):
    return predict_last(np.log(losses), np.asarray(means), confidence)


def test_interval_is_that_of_least_squares_in_matrix_form():
    losses, means = np.array([4.0, 2.0, 1.1, 0.6, 0.3]), np.array([0.30, 0.36, 0.37, 0.45, 0.60])
    found = predict(losses, means, 0.9)
    x = np.stack([np.ones(4), np.log(losses[:4])], axis=1)
    new = np.array([1.0, np.log(0.3)])
    weights, rest, *_ = np.linalg.lstsq(x, means[:4], rcond=None)
    spread = np.sqrt(rest[0] / 2 * (1 + new @ np.linalg.inv(x.T @ x) @ new))
    assert found.predicted.value == pytest.approx(new @ weights)
    assert found.predicted.high - found.predicted.value == pytest.approx(stats.t.ppf(0.95, 2) * spread)
    assert found.slope == pytest.approx(-weights[1]) and found.slope > 0
    assert found.measured == 0.60 and found.lower_doses == 4
    assert found.inside == (found.predicted.low <= 0.60 <= found.predicted.high)


def test_as_often_inside_as_promised_where_the_line_holds():
    rng = np.random.default_rng(0)
    losses = np.geomspace(4, 0.2, 8)
    inside = [
        predict(losses, 0.3 - 0.05 * np.log(losses) + rng.normal(0, 0.02, 8), 0.8).inside for _ in range(400)
    ]
    assert 0.74 <= np.mean(inside) <= 0.86


def test_far_off_the_line_is_outside():
    losses = np.geomspace(4, 0.2, 6)
    means = 0.3 - 0.05 * np.log(losses) + np.array([1, -1, 1, -1, 1, 0]) * 1e-3
    assert predict(losses, means, 0.95).inside
    means[-1] += 0.1
    assert not predict(losses, means, 0.95).inside


def test_too_few_doses_predict_nothing():
    assert predict([4, 2, 1], [0.1, 0.2, 0.3], 0.95) is None
    assert predict([2, 2, 2, 1], [0.1, 0.2, 0.3, 0.4], 0.95) is None
