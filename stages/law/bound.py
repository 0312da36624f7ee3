"""The bound against what contrastive learning reached: the two readings of the law, per checkpoint.

Generative critic and embeddings discriminate among the same N candidates, with losses in nats. The
*guarantee* is the theorem's: CL is sure to reach `L_cl <= L_gen + slack`. The *ceiling* is the sentence
people quote: `L_cl >= L_gen`, an embedding never discriminates better than the generator it came from;
nobody has proven it. Candidates are resampled one by one: the critic does not name their documents.
"""

from dataclasses import dataclass

import numpy as np

from stages.cells import PRIMARY_METRIC, Cell
from stages.law.measurements import TEXTS, Measurements
from stages.law.statistics import Bootstrap, Estimate, mean_over_queries, spearman

HELD, BROKEN, OPEN = "held", "did not hold", "open"
SURE = 0.001
"""Nats: below it a critic errs at no candidate."""
_FEWEST_DOSES = 3  # below it a rank correlation says nothing


@dataclass(frozen=True, kw_only=True)
class BoundReading:
    """The losses of one checkpoint and one kind of text, and both readings.

    Attributes:
        pages, dose: the checkpoint. kind: "text" (the pages' own) or "query".
        candidates: N.
        generative, contrastive: `L_gen(N)` before CL and `L_cl(N)` after it.
        slack: of the general form of the bound.
        guarantee: `L_gen + slack - L_cl`: not negative where the guarantee held.
        ceiling: `L_cl - L_gen`: not negative where the ceiling held.
        critic_ndcg, embedding_ndcg: nDCG@10 among the N images, by likelihood and by cosine after CL.
    """

    pages: str
    dose: int
    kind: str
    candidates: int
    generative: Estimate
    contrastive: Estimate
    slack: float
    guarantee: Estimate
    ceiling: Estimate
    critic_ndcg: Estimate
    embedding_ndcg: Estimate


def read_bounds(found: Measurements, how: Bootstrap) -> tuple[BoundReading, ...]:
    """Every bound that a critic measured: own pages first, doses ascending.

    Raises:
        EvidenceError: a critic's checkpoint has no embeddings after the primary CL, or with other seeds.
    """
    return tuple(_read(found, cell, kind, how) for cell in critics(found) for kind in TEXTS)


def critics(found: Measurements) -> list[Cell]:
    """The cells of the critic: own pages first, doses ascending."""
    return sorted(found.cells("critic"), key=lambda cell: (cell.pages != "target", cell.pages, cell.dose))


def held_or_not(difference: Estimate) -> str:
    """Whether a reading (`guarantee` or `ceiling`) held: its interval on one side of zero, or open."""
    return HELD if difference.low >= 0 else BROKEN if difference.high < 0 else OPEN


def generative_order(found: Measurements, how: Bootstrap) -> dict[str, Estimate]:
    """Kind -> Spearman of the critic's discrimination (`-L_gen(N)`) with nDCG@10 after CL, over doses.

    Empty where fewer than three doses have a critic. A kind is left out where the critic is sure (`SURE`) at
    two doses or more: their order is that of rounding.
    """
    doses = [cell.dose for cell in critics(found) if cell.pages == "target"]
    if len(doses) < _FEWEST_DOSES:
        return {}
    losses = {
        kind: np.array(
            [found.values("critic", f"critic {kind}", "loss", dose=dose)[0].mean() for dose in doses]
        )
        for kind in TEXTS
    }
    scores = np.stack([found.scores(dose, found.primary) for dose in doses])
    return {
        kind: spearman(-of_kind, scores, how, found.test.documents)
        for kind, of_kind in losses.items()
        if (of_kind < SURE).sum() < 2
    }


def _read(found: Measurements, cell: Cell, kind: str, how: Bootstrap) -> BoundReading:
    def critic(metric: str) -> np.ndarray:
        return found.values("critic", f"critic {kind}", metric, dose=cell.dose, pages=cell.pages)

    def embeddings(metric: str) -> np.ndarray:
        return found.paired(cell.dose, found.primary, f"contrastive {kind}", metric, pages=cell.pages)

    generative, contrastive, slack = critic("loss"), embeddings("loss"), critic("slack").item()
    return BoundReading(
        pages=cell.pages,
        dose=cell.dose,
        kind=kind,
        candidates=generative.shape[1],
        generative=mean_over_queries(generative, how),
        contrastive=mean_over_queries(contrastive, how),
        slack=slack,
        guarantee=mean_over_queries(generative + slack - contrastive, how),
        ceiling=mean_over_queries(contrastive - generative, how),
        critic_ndcg=mean_over_queries(critic(PRIMARY_METRIC), how),
        embedding_ndcg=mean_over_queries(embeddings(PRIMARY_METRIC), how),
    )
