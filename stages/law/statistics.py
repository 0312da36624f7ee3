"""Statistics of the law: paired bootstrap over queries and seeds, rank correlation, ordered trend.

Arrays are ``[seeds, queries]`` for one dose and ``[doses, seeds, queries]`` for all. Queries that come
from one document are not independent; where ``groups`` names each query's document, whole documents are
resampled.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

_EXACT_TREND_DOSES = 8  # 8! = 40,320 orders; above it the test samples orders


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its bootstrap percentile interval; ``p`` is two-sided against zero, or None."""

    value: float
    low: float
    high: float
    p: float | None = None

    def to_json(self) -> dict[str, float]:
        """Return the fields as a dict, without ``p`` where there is none."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def signed(self) -> str:
        """The value as a difference: ``+0.160 [+0.121, +0.199]``."""
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]".replace("-", "−")

    def in_words(self, confidence: float) -> str:
        """The value as a difference: ``+0.160, 95% interval +0.121 to +0.199``."""
        text = f"{self.value:+.3f}, {confidence:.0%} interval {self.low:+.3f} to {self.high:+.3f}"
        return text.replace("-", "−")

    def times(self) -> str:
        """The value as a ratio: ``8.2× [7.9×, 8.6×]``."""
        return f"{self.value:.3g}× [{self.low:.3g}×, {self.high:.3g}×]"


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How to resample: number of resamples, confidence of the interval, seed of the generator."""

    resamples: int = 4000
    confidence: float = 0.95
    seed: int = 0

    def interval(self, value: float, draws: np.ndarray, *, against_zero: bool = False) -> Estimate:
        """Percentile interval of ``draws`` ``[resamples]`` around the observed ``value``."""
        low, high = np.quantile(draws, [(1 - self.confidence) / 2, (1 + self.confidence) / 2])
        p = _two_sided_p(draws) if against_zero else None
        return Estimate(value=float(value), low=float(low), high=float(high), p=p)


def mean_over_queries(scores: np.ndarray, how: Bootstrap, groups: np.ndarray | None = None) -> Estimate:
    """Mean of ``scores`` ``[seeds, queries]`` with an interval over both levels."""
    return means_over_queries(scores[None], how, groups)[0]


def means_over_queries(
    scores: np.ndarray, how: Bootstrap, groups: np.ndarray | None = None
) -> list[Estimate]:
    """``mean_over_queries`` of each of ``scores`` ``[entries, seeds, queries]``, with one set of draws."""
    draws = resampled_means(scores, how, groups)
    return [how.interval(entry.mean(), drawn) for entry, drawn in zip(scores, draws.T, strict=True)]


def paired_difference(
    after: np.ndarray, before: np.ndarray, how: Bootstrap, groups: np.ndarray | None = None
) -> Estimate:
    """Mean of ``after - before`` (both ``[seeds, queries]``) with a two-level paired bootstrap.

    Each resample draws seeds and queries with replacement and uses the same draw on both sides. A side
    with one seed (a model before CL) is compared with every seed of the other.

    Raises:
        ValueError: the numbers of queries differ, or the numbers of seeds differ and neither is one.
    """
    if after.shape[1] != before.shape[1] or (
        after.shape[0] != before.shape[0] and 1 not in (len(after), len(before))
    ):
        raise ValueError(
            f"cannot pair scores of shape {after.shape} with {before.shape}; [seeds, queries] must match."
        )
    difference = after - before
    draws = resampled_means(difference[None], how, groups)[:, 0]
    return how.interval(difference.mean(), draws, against_zero=True)


def resampled_means(scores: np.ndarray, how: Bootstrap, groups: np.ndarray | None = None) -> np.ndarray:
    """Means of ``scores`` ``[doses, seeds, queries]`` under resampling: ``[resamples, doses]``.

    Every resample uses the same seeds and queries for all doses, which keeps doses paired.
    """
    _, seeds, queries = scores.shape
    rng = np.random.default_rng(how.seed)
    seed_weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=how.resamples) / seeds
    query_weights = _query_weights(rng, queries, how.resamples, groups)
    per_seed = np.einsum("dsq,bq->bds", scores, query_weights, optimize=True)
    return np.einsum("bds,bs->bd", per_seed, seed_weights)


def ratio_of_sums(numerators: np.ndarray, denominators: np.ndarray, how: Bootstrap) -> Estimate:
    """``sum(numerators) / sum(denominators)`` over blocks ``[blocks]``, resampling blocks.

    Used for nats per byte (nats, bytes) and for the generative gain (nats at dose 0, nats at a dose).
    """
    weights = _query_weights(np.random.default_rng(how.seed), len(numerators), how.resamples, None)
    return how.interval(
        numerators.sum() / denominators.sum(), (weights @ numerators) / (weights @ denominators)
    )


def spearman(
    quality: np.ndarray, scores: np.ndarray, how: Bootstrap, groups: np.ndarray | None = None
) -> Estimate:
    """Spearman correlation over doses: ``quality`` ``[doses]``, mean ``scores`` ``[doses, seeds, queries]``.

    The interval resamples queries and seeds and keeps the doses; it says how well the order of the doses
    is known, not what other checkpoints would give.
    """
    reference = stats.rankdata(quality)
    value = _correlate(stats.rankdata(scores.mean(axis=(1, 2)))[None], reference)[0]
    draws = _correlate(stats.rankdata(resampled_means(scores, how, groups), axis=1), reference)
    return how.interval(value, draws)


def trend_p(means: np.ndarray, *, seed: int = 0, resamples: int = 9999) -> float:
    """One-sided permutation test that ``means`` ``[doses]``, in order of dose, rise.

    The statistic is the correlation with the dose's rank (Page's idea, on values). Doses are permuted
    as wholes: seeds of one dose share its checkpoint and are no independent witnesses of a trend. Exact
    up to eight doses; the smallest p is 1 / (number of doses)!.
    """
    if np.ptp(means) == 0:
        return 1.0
    ranks = np.arange(len(means), dtype=float)
    result = stats.permutation_test(
        (means,),
        lambda permuted, axis: np.moveaxis(permuted, axis, -1) @ ranks,
        permutation_type="pairings",
        alternative="greater",
        n_resamples=math.factorial(_EXACT_TREND_DOSES) if len(means) <= _EXACT_TREND_DOSES else resamples,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def _query_weights(
    rng: np.random.Generator, queries: int, resamples: int, groups: np.ndarray | None
) -> np.ndarray:
    """Weights ``[resamples, queries]``, each row summing to one: how often each query was drawn."""
    members = np.arange(queries) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(members.max()) + 1
    drawn = rng.integers(units, size=(resamples, units))
    drawn += np.arange(resamples)[:, None] * units  # one bincount for all resamples
    counts = np.bincount(drawn.ravel(), minlength=resamples * units).reshape(resamples, units)
    weights = counts[:, members].astype(np.float64)
    return weights / weights.sum(axis=1, keepdims=True)


def _correlate(rows: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Pearson correlation of every row with ``reference``; 0 for a constant row, which orders nothing."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    reference = reference - reference.mean()
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(reference)
    # Rounded, so that a perfect order is exactly 1 and not a hair below a threshold.
    return np.divide(rows @ reference, norms, out=np.zeros(len(rows)), where=norms > 0).round(12)


def _two_sided_p(draws: np.ndarray) -> float:
    # The added one keeps p above zero: so many resamples cannot show less.
    below, above = (draws <= 0).sum() + 1, (draws >= 0).sum() + 1
    return float(min(1.0, 2 * min(below, above) / (len(draws) + 1)))
