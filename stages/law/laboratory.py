"""What a sweep measured beside the dose-response: critics, ceilings, controls, baselines, adapters.

Scores are nDCG@10 (linear gain) by query, ``[seeds, queries]``, on the queries of `Evidence`, by direction:
"query_to_image" and "query_to_text". Doses are examples seen in CGP.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Scores = dict[str, np.ndarray]
"""Direction -> nDCG@10 ``[seeds, queries]``."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The two losses that the law compares, over the same N candidates; nats.

    Attributes:
        generative: ``[N]`` the critic's InfoNCE loss of each text, over the images.
        contrastive: ``[seeds, N]`` that of the embeddings after CL, at the temperature of training.
        slack: the term that the general form of the bound adds to `generative`'s mean, from the same matrix.
        by_size: n -> (generative mean, contrastive mean) over the first n candidates.
    """

    generative: np.ndarray
    contrastive: np.ndarray
    slack: float
    by_size: dict[int, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class CriticReading:
    """One checkpoint before CL, as a critic, and what CL made of it.

    Attributes:
        bounds: "text" and "query" -> the bound, for texts of the pages and for queries.
        nats_saved: ``[N]`` by how much a page's image makes its text less surprising than a blank page does.
        bytes: ``[N]`` of these texts, UTF-8.
        retrieval: "text" and "query" -> the critic's own nDCG@10 among the N images ``[N]``.
        embedding_retrieval: the same of the embeddings after CL, among the same images ``[seeds, N]``.
    """

    bounds: dict[str, Bound]
    nats_saved: np.ndarray
    bytes: np.ndarray
    retrieval: dict[str, np.ndarray]
    embedding_retrieval: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class BudgetCurve:
    """Retrieval of one dose by CL budget, at the learning rate that validation documents chose.

    Attributes:
        scores: CL steps -> nDCG@10 of query -> image ``[seeds, queries]``.
        learning_rate: the chosen one.
        validation: learning rate -> best nDCG@10 over the budgets on validation documents, first seed.
    """

    scores: dict[int, np.ndarray]
    learning_rate: float
    validation: dict[float, float]


@dataclass(frozen=True, kw_only=True)
class AdapterReading:
    """One refinement at the highest dose with the first seed: its size, what it changed.

    Attributes:
        weight_change: Frobenius norm of all changed weights' difference.
        scores: nDCG@10 of query -> image ``[1, queries]``.
        nats_before, nats_after: generative loss of the target language, nats per byte, before and after CL.
    """

    name: str
    rank: int
    alpha: int
    weight_change: float
    scores: np.ndarray
    nats_before: float
    nats_after: float


@dataclass(frozen=True, kw_only=True)
class OtherTest:
    """Documents that nothing was trained on, searched by dose 0 and by the highest dose after CL.

    `scores`: dose -> nDCG@10 of query -> image ``[seeds, queries]``; baselines are means of nDCG@10.
    `documents`: ``[queries]``, the document of each query; None where they are too few to be resampled.
    """

    name: str
    queries: int
    corpus_size: int
    scores: dict[int, np.ndarray]
    random: float
    bm25: float
    documents: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """Everything that a sweep adds to `Evidence`.

    Attributes:
        controls: "shuffled" and "unrelated" (the pages of CGP) -> dose -> scores after the primary CL.
        equal_compute: scores of dose 0 after so much more CL as CGP of the highest dose costs in FLOPs.
        equal_compute_steps: the CL steps of that.
        critics: (pages, dose) -> reading; pages "target" are the law's own.
        ceilings: dose -> retrieval by CL budget.
        adapters: LoRA rank and alpha, tried at the highest dose.
        other_tests: further test sets.
    """

    controls: dict[str, dict[int, Scores]]
    equal_compute: Scores
    equal_compute_steps: int
    critics: dict[tuple[str, int], CriticReading]
    ceilings: dict[int, BudgetCurve]
    adapters: tuple[AdapterReading, ...]
    other_tests: tuple[OtherTest, ...] = ()


def best_learning_rate(validation: Mapping[float, float]) -> float:
    """The learning rate with the highest score on validation documents; of equal ones the smallest."""
    return min(validation, key=lambda rate: (-validation[rate], rate))
