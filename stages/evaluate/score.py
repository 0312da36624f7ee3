"""Retrieval metrics of a score matrix, query by query, and those of a random ranking. Torch-free.

`METRICS` is their only home: a new one is one entry there. Tables, report and MLflow take the names, in
this order, from what is committed. Values are kept by query, because every later comparison is paired.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytrec_eval


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a metric is computed from a ranking, and what a random ranking reaches."""

    measured: str | Callable[[np.ndarray], np.ndarray]
    """trec_eval's measure ("map_cut.10"), or a function of hits [queries, corpus], best first: [queries]."""
    by_chance: Callable[[int, int], float]
    """Of a query's (answers, corpus size): the expectation under a uniformly random ranking, exact."""


def ndcg(k: int) -> Metric:
    """nDCG with linear gain (relevance is binary here) and log2 discount, as in trec_eval."""
    discounts = 1 / np.log2(np.arange(2, k + 2))

    def by_chance(answers: int, corpus: int) -> float:
        return answers / corpus * discounts[:corpus].sum() / discounts[:answers].sum()

    return Metric(measured=f"ndcg_cut.{k}", by_chance=by_chance)


def recall(k: int) -> Metric:
    """Share of a query's answers among the first k."""
    return Metric(measured=f"recall.{k}", by_chance=lambda answers, corpus: min(k, corpus) / corpus)


def _reciprocal_rank_by_chance(answers: int, corpus: int) -> float:
    # P(first answer at rank r) = P(none before) * P(answer at r | none before), ranks counted from 1.
    before = np.arange(corpus - answers + 1)
    hazard = answers / (corpus - before)
    none_before = np.concatenate([[1.0], np.cumprod(1 - hazard)[:-1]])
    return (none_before * hazard / (before + 1)).sum()


METRICS: dict[str, Metric] = {
    "ndcg@10": ndcg(10),
    "recall@1": recall(1),
    "recall@5": recall(5),
    "recall@10": recall(10),
    "mrr": Metric(
        measured=lambda hits: 1.0 / (hits.argmax(axis=1) + 1), by_chance=_reciprocal_rank_by_chance
    ),
}


def score_retrieval(
    scores: np.ndarray, *, corpus_ids: Sequence[str], relevant: Sequence[Collection[str]]
) -> dict[str, dict]:
    """Score a ranking of the corpus for every query.

    Args:
        scores: ``[queries, corpus]``, higher is better.
        corpus_ids: one distinct id per column.
        relevant: per row the ids that answer the query, at least one, all in the corpus.

    Equal scores are ranked by corpus id, so the result does not depend on the order of the corpus.

    Returns:
        ``{"means": {"ndcg@10": float, ...}, "per_query": {"ndcg@10": [float, ...], ...}}``, in the order of
        the score rows.

    Raises:
        ValueError: a score is not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError(
            "score matrix holds NaN or infinity: the embeddings are broken; check the model's dtype."
        )
    by_id = np.argsort(np.asarray(corpus_ids), kind="stable")
    ranking = by_id[np.argsort(-scores[:, by_id], axis=1, kind="stable")]
    of_trec = _trec_measures(ranking, corpus_ids, relevant)
    column_of = {page: column for column, page in enumerate(corpus_ids)}
    answers = np.zeros(scores.shape, dtype=bool)
    for row, ids in enumerate(relevant):
        answers[row, [column_of[page] for page in ids]] = True
    hits = np.take_along_axis(answers, ranking, axis=1)
    return _with_means(
        {
            name: of_trec[metric.measured] if isinstance(metric.measured, str) else metric.measured(hits)
            for name, metric in METRICS.items()
        }
    )


def random_scores(*, relevant_counts: Sequence[int], corpus_size: int) -> dict[str, dict]:
    """Return what a uniformly random ranking reaches, in expectation: exact, so it needs no seed.

    `relevant_counts`: per query, how many of the ``corpus_size`` candidates answer it: at least one.
    """
    return _with_means(
        {
            name: [metric.by_chance(count, corpus_size) for count in relevant_counts]
            for name, metric in METRICS.items()
        }
    )


def _with_means(per_query: Mapping[str, Sequence[float]]) -> dict[str, dict]:
    values = {name: [float(value) for value in row] for name, row in per_query.items()}
    return {"means": {name: float(np.mean(row)) for name, row in values.items()}, "per_query": values}


def _trec_measures(
    ranking: np.ndarray, corpus_ids: Sequence[str], relevant: Sequence[Collection[str]]
) -> dict[str, list[float]]:
    """trec_eval's values of each query, by the measures that `METRICS` names."""
    measures = {metric.measured for metric in METRICS.values() if isinstance(metric.measured, str)}
    depth = max(int(measure.partition(".")[2] or len(corpus_ids)) for measure in measures)
    judged = {str(row): dict.fromkeys(ids, 1) for row, ids in enumerate(relevant)}
    # Ranks as scores: trec_eval breaks ties by its own rule, so it must not see any.
    run = {
        str(row): {corpus_ids[column]: float(depth - rank) for rank, column in enumerate(columns)}
        for row, columns in enumerate(ranking[:, :depth])
    }
    found = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(run)
    return {
        measure: [found[str(row)][measure.replace(".", "_")] for row in range(len(relevant))]
        for measure in measures
    }
