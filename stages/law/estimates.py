"""Means with their intervals by dose and arm, as verdict.json, page and figures say them.

| quantity | metric | arms |
|---|---|---|
| "target", "base" | "nats_per_byte", "character_error_rate", "token_accuracy" | "before CL" |
| "query_to_image" | every metric | every arm of the dose-response (`Measurements.is_own`) |
| "query_to_text", "text_to_image" | "ndcg@10" | the same |
"""

from collections.abc import Iterator

import numpy as np

from stages.cells import BEFORE_CL, PRIMARY_METRIC
from stages.law.measurements import Measurements
from stages.law.statistics import Bootstrap, Estimate, mean_over_queries, means_over_queries, ratio_of_sums

Place = tuple[str, str, int, str]
"""quantity, metric, dose, name of the arm."""
_LANGUAGE = {
    "nats_per_byte": ("nats", "bytes"),
    "character_error_rate": ("edits", "characters"),
    "token_accuracy": ("correct", "tokens"),
}


def estimate_all(found: Measurements, how: Bootstrap) -> dict[Place, Estimate]:
    """Every such mean: generation, then retrieval, doses ascending."""
    return dict([*_generation(found, how), *_retrieval(found, how)])


def _generation(found: Measurements, how: Bootstrap) -> Iterator[tuple[Place, Estimate]]:
    for dose in found.doses:
        for corpus in ("target", "base"):
            for metric, names in _LANGUAGE.items():
                above, below = (found.blocks(name, dose, corpus) for name in names)
                yield (corpus, metric, dose, BEFORE_CL.name), ratio_of_sums(above, below, how)


def _retrieval(found: Measurements, how: Bootstrap) -> Iterator[tuple[Place, Estimate]]:
    metrics = found.table[found.table.quantity == "query_to_image"].metric.unique()
    for dose in found.doses:
        for arm in (BEFORE_CL, *found.arms):
            if found.scores(dose, arm) is None:
                continue
            measured = {
                ("query_to_image", metric): found.scores(dose, arm, metric=metric) for metric in metrics
            }
            measured["query_to_text", PRIMARY_METRIC] = found.scores(dose, arm, "query_to_text")
            estimates = means_over_queries(np.stack(list(measured.values())), how, found.test.documents)
            for names, one in zip(measured, estimates, strict=True):
                yield (*names, dose, arm.name), one
            # The queries of this direction are the pages' own texts, which `documents` does not describe.
            texts = found.scores(dose, arm, "text_to_image")
            yield ("text_to_image", PRIMARY_METRIC, dose, arm.name), mean_over_queries(texts, how)
