"""What the lower doses say of the highest one: a line through retrieval over the logarithm of the loss."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from stages.law.statistics import Estimate

_FEWEST_LOWER_DOSES = 3  # a line and one degree of freedom for its error


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """nDCG@10 of the highest dose as the lower doses predict it, and as measured.

    Attributes:
        predicted: value of the line, with the prediction interval of one new dose.
        measured: mean nDCG@10 at the highest dose.
        before: the same at the dose before it.
        inside: whether `measured` lies in the interval.
        slope: nDCG@10 for each unit by which log(nats per byte) falls.
        lower_doses: how many doses the line rests on.
    """

    predicted: Estimate
    measured: float
    before: float
    inside: bool
    slope: float
    lower_doses: int


def predict_last(losses: np.ndarray, means: np.ndarray, confidence: float) -> Prediction | None:
    """Fit all but the last of `means` ``[doses]`` on `losses` ``[doses]``, logarithms of nats per byte.

    The interval is that of least squares with a normal error, `s t sqrt(1 + 1/n + (x - mean)^2 / Sxx)`, with
    n - 2 degrees of freedom. None where fewer than three lower doses, or only one loss, leave no error to
    estimate.
    """
    lower, count = losses[:-1], len(losses) - 1
    if count < _FEWEST_LOWER_DOSES or np.ptp(lower) == 0:
        return None
    line = stats.linregress(lower, means[:-1])
    value = line.intercept + line.slope * losses[-1]
    residual = means[:-1] - (line.intercept + line.slope * lower)
    spread = ((lower - lower.mean()) ** 2).sum()
    error = np.sqrt((residual**2).sum() / (count - 2))
    error *= np.sqrt(1 + 1 / count + (losses[-1] - lower.mean()) ** 2 / spread)
    half = stats.t.ppf((1 + confidence) / 2, count - 2) * error
    return Prediction(
        predicted=Estimate(value=float(value), low=float(value - half), high=float(value + half)),
        measured=float(means[-1]),
        before=float(means[-2]),
        inside=bool(abs(means[-1] - value) <= half),
        slope=float(-line.slope),
        lower_doses=count,
    )
