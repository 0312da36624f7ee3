"""The bound against what contrastive learning reached: the two readings of the law, per checkpoint.

Generative critic and embeddings discriminate among the same N candidates, with losses in nats. The
*guarantee* is the theorem's: CL is sure to reach `L_cl <= L_gen + slack`. The *ceiling* is the sentence
people quote: `L_cl >= L_gen`, an embedding never discriminates better than the generator it came from;
nobody has proven it. Candidates are resampled one by one: the critic does not name their documents.
"""

from dataclasses import dataclass

import numpy as np

from stages.law.evidence import Evidence
from stages.law.laboratory import Bound, CriticReading, Laboratory
from stages.law.statistics import Bootstrap, Estimate, mean_over_queries, paired_difference, spearman

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


def read_bounds(laboratory: Laboratory, how: Bootstrap) -> tuple[BoundReading, ...]:
    """Every bound that a critic measured: own pages first, doses ascending."""
    return tuple(
        _read(pages, dose, kind, bound, critic, how)
        for (pages, dose), critic in sorted(laboratory.critics.items(), key=_own_pages_first)
        for kind, bound in critic.bounds.items()
    )


def held_or_not(difference: Estimate) -> str:
    """Whether a reading (`guarantee` or `ceiling`) held: its interval on one side of zero, or open."""
    return HELD if difference.low >= 0 else BROKEN if difference.high < 0 else OPEN


def generative_order(
    evidence: Evidence, laboratory: Laboratory, primary_arm: str, how: Bootstrap
) -> dict[str, Estimate]:
    """Kind -> Spearman of the critic's discrimination (`-L_gen(N)`) with nDCG@10 after CL, over doses.

    Empty where fewer than three doses have a critic. A kind is left out where the critic is sure (`SURE`) at
    two doses or more: their order is that of rounding.
    """
    doses = [dose for dose in evidence.doses if ("target", dose) in laboratory.critics]
    if len(doses) < _FEWEST_DOSES:
        return {}
    critics = [laboratory.critics["target", dose] for dose in doses]
    losses = {
        kind: np.array([critic.bounds[kind].generative.mean() for critic in critics])
        for kind in critics[0].bounds
    }
    scores = np.stack([evidence.scores(dose, primary_arm) for dose in doses])
    return {
        kind: spearman(-of_kind, scores, how, evidence.documents)
        for kind, of_kind in losses.items()
        if (of_kind < SURE).sum() < 2
    }


def _read(
    pages: str, dose: int, kind: str, bound: Bound, critic: CriticReading, how: Bootstrap
) -> BoundReading:
    return BoundReading(
        pages=pages,
        dose=dose,
        kind=kind,
        candidates=len(bound.generative),
        generative=mean_over_queries(bound.generative[None], how),
        contrastive=mean_over_queries(bound.contrastive, how),
        slack=bound.slack,
        guarantee=paired_difference(bound.generative[None] + bound.slack, bound.contrastive, how),
        ceiling=paired_difference(bound.contrastive, bound.generative[None], how),
        critic_ndcg=mean_over_queries(critic.retrieval[kind][None], how),
        embedding_ndcg=mean_over_queries(critic.embedding_retrieval[kind], how),
    )


def _own_pages_first(item: tuple[tuple[str, int], CriticReading]) -> tuple[bool, str, int]:
    (pages, dose), _ = item
    return pages != "target", pages, dose
