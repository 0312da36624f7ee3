"""Retrieval metrics from a score matrix, query by query, and those of a random ranking.

Everything here is torch-free: the caller hands over cosine scores (or any other scores where
higher is better) as ``[queries, corpus]`` and receives metrics whose per-query values are kept,
because every later comparison (verdict, promotion) is paired by query.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pytrec_eval

METRICS = ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr")

_TREC_NAMES = {
    "ndcg_cut_10": "ndcg@10",
    "recall_1": "recall@1",
    "recall_5": "recall@5",
    "recall_10": "recall@10",
}
_DEPTH = 10


@dataclass(frozen=True, kw_only=True)
class RetrievalScores:
    """Metrics of one retrieval direction: of each query, in the order of the score rows."""

    per_query: dict[str, tuple[float, ...]]

    @property
    def means(self) -> dict[str, float]:
        """Each metric's mean over the queries."""
        return {name: float(np.mean(values)) for name, values in self.per_query.items()}

    def to_json(self) -> dict:
        """Return ``{"means": {"ndcg@10": float, ...}, "per_query": {"ndcg@10": [...], ...}}``."""
        per_query = {name: list(values) for name, values in self.per_query.items()}
        return {"means": self.means, "per_query": per_query}


def score_retrieval(
    scores: np.ndarray,
    *,
    corpus_ids: Sequence[str],
    relevant: Sequence[Collection[str]],
) -> RetrievalScores:
    """Score a ranking of the corpus for every query.

    Args:
        scores: ``[queries, corpus]``, higher is better, finite.
        corpus_ids: one distinct id per column.
        relevant: per row the ids that answer the query, at least one.

    nDCG has linear gain (binary relevance here) and log2 discount, as in trec_eval. Equal scores are
    ranked by corpus id, so the result does not depend on the order of the corpus.

    Raises:
        ValueError: shapes disagree, an id is repeated or unknown, a score is not finite.
    """
    _check(scores, corpus_ids, relevant)
    ranking = _rank(scores, corpus_ids)
    per_query = _trec_metrics(ranking, corpus_ids, relevant) | {
        "mrr": _reciprocal_ranks(ranking, corpus_ids, relevant)
    }
    return _in_order(per_query)


def _in_order(per_query: dict[str, np.ndarray]) -> RetrievalScores:
    return RetrievalScores(per_query={name: tuple(map(float, per_query[name])) for name in METRICS})


def random_scores(*, relevant_counts: Sequence[int], corpus_size: int) -> RetrievalScores:
    """Return what a uniformly random ranking reaches, in expectation: exact, so it needs no seed.

    Args:
        relevant_counts: per query, how many of the ``corpus_size`` candidates answer it.

    """
    if not relevant_counts or min(relevant_counts) < 1 or max(relevant_counts) > corpus_size:
        raise ValueError(
            f"random baseline: every query needs 1 to {corpus_size} relevant pages; check the queries."
        )
    expected = {count: _expectation(count, corpus_size) for count in set(relevant_counts)}
    return _in_order(
        {name: np.array([expected[count][name] for count in relevant_counts]) for name in METRICS}
    )


def _check(scores: np.ndarray, corpus_ids: Sequence[str], relevant: Sequence[Collection[str]]) -> None:
    if scores.shape != (len(relevant), len(corpus_ids)) or not scores.size:
        raise ValueError(
            f"score matrix has shape {scores.shape}, but there are {len(relevant)} queries and "
            f"{len(corpus_ids)} pages; pass one row per query and one column per page, at least one of each."
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            "score matrix holds NaN or infinity: the embeddings are broken; check the model's dtype."
        )
    known = set(corpus_ids)
    if len(known) != len(corpus_ids):
        raise ValueError("corpus ids repeat; every page needs its own id.")
    for row, ids in enumerate(relevant):
        if not ids or not known.issuperset(ids):
            raise ValueError(
                f"query {row} has relevant pages {sorted(ids)!r}: none, or some not in the corpus."
            )


def _rank(scores: np.ndarray, corpus_ids: Sequence[str]) -> np.ndarray:
    """Column numbers per row, best first ``[queries, corpus]``; ties in order of id."""
    by_id = np.argsort(np.asarray(corpus_ids), kind="stable")
    return by_id[np.argsort(-scores[:, by_id], axis=1, kind="stable")]


def _trec_metrics(
    ranking: np.ndarray, corpus_ids: Sequence[str], relevant: Sequence[Collection[str]]
) -> dict[str, np.ndarray]:
    judged = {str(row): dict.fromkeys(ids, 1) for row, ids in enumerate(relevant)}
    # Ranks as scores: trec_eval breaks ties by its own rule, so it must not see any.
    run = {
        str(row): {corpus_ids[column]: float(_DEPTH - rank) for rank, column in enumerate(columns)}
        for row, columns in enumerate(ranking[:, :_DEPTH])
    }
    results = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "recall.1,5,10"}).evaluate(run)
    return {
        ours: np.array([results[str(row)][theirs] for row in range(len(relevant))])
        for theirs, ours in _TREC_NAMES.items()
    }


def _reciprocal_ranks(
    ranking: np.ndarray, corpus_ids: Sequence[str], relevant: Sequence[Collection[str]]
) -> np.ndarray:
    column_of = {page: column for column, page in enumerate(corpus_ids)}
    hits = np.zeros(ranking.shape, dtype=bool)
    for row, ids in enumerate(relevant):
        hits[row, [column_of[page] for page in ids]] = True
    first = np.take_along_axis(hits, ranking, axis=1).argmax(axis=1)
    return 1.0 / (first + 1)


def _expectation(relevant: int, corpus_size: int) -> dict[str, float]:
    """Expected metrics of one query with ``relevant`` answers under a uniformly random ranking."""
    discounts = 1 / np.log2(np.arange(2, _DEPTH + 2))
    share = relevant / corpus_size
    ndcg = share * discounts[:corpus_size].sum() / discounts[:relevant].sum()
    recalls = {f"recall@{k}": min(k, corpus_size) / corpus_size for k in (1, 5, 10)}
    # P(first relevant at rank r) = P(none before) * P(relevant at r | none before), ranks counted from 1.
    before = np.arange(corpus_size - relevant + 1)
    hazard = relevant / (corpus_size - before)
    none_before = np.concatenate([[1.0], np.cumprod(1 - hazard)[:-1]])
    return {"ndcg@10": float(ndcg), **recalls, "mrr": float((none_before * hazard / (before + 1)).sum())}
