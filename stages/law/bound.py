"""The bound against what contrastive learning reached: the two readings of the law, per checkpoint.

Generative critic and embeddings discriminate among the same N candidates, with losses in nats. The
*guarantee* is the theorem's: CL is sure to reach `L_cl <= L_gen + slack`. The *ceiling* is the sentence
people quote: `L_cl >= L_gen`, an embedding never discriminates better than the generator it came from;
nobody has proven it. Candidates are resampled one by one: the critic does not name their documents.
"""

import math
from dataclasses import dataclass

import numpy as np

from stages.law.evidence import Evidence
from stages.law.laboratory import Bound, CriticReading, Laboratory
from stages.law.statistics import Bootstrap, Estimate, mean_over_queries, paired_difference, spearman

HELD, BROKEN, OPEN = "held", "did not hold", "open"
_FEWEST_DOSES = 3  # below it a rank correlation says nothing


@dataclass(frozen=True, kw_only=True)
class BoundReading:
    """The losses of one checkpoint and one kind of text, and both readings.

    Attributes:
        pages, dose: the checkpoint. kind: "text" (the pages' own) or "query".
        candidates: N.
        generative, contrastive: `L_gen(N)` before CL and `L_cl(N)` after it.
        information: `I_N = log N - L_gen(N)`, never above log N.
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
    information: Estimate
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

    Empty where fewer than three doses have a critic.
    """
    doses = [dose for dose in evidence.doses if ("target", dose) in laboratory.critics]
    if len(doses) < _FEWEST_DOSES:
        return {}
    scores = np.stack([evidence.scores(dose, primary_arm) for dose in doses])
    return {
        kind: spearman(
            np.array([-laboratory.critics["target", dose].bounds[kind].generative.mean() for dose in doses]),
            scores,
            how,
            evidence.documents,
        )
        for kind in laboratory.critics["target", doses[0]].bounds
    }


def _read(
    pages: str, dose: int, kind: str, bound: Bound, critic: CriticReading, how: Bootstrap
) -> BoundReading:
    generative = mean_over_queries(bound.generative[None], how)
    chance = math.log(len(bound.generative))
    return BoundReading(
        pages=pages,
        dose=dose,
        kind=kind,
        candidates=len(bound.generative),
        generative=generative,
        contrastive=mean_over_queries(bound.contrastive, how),
        information=Estimate(
            value=chance - generative.value, low=chance - generative.high, high=chance - generative.low
        ),
        slack=bound.slack,
        guarantee=paired_difference(bound.generative[None] + bound.slack, bound.contrastive, how),
        ceiling=paired_difference(bound.contrastive, bound.generative[None], how),
        critic_ndcg=mean_over_queries(critic.retrieval[kind][None], how),
        embedding_ndcg=mean_over_queries(critic.embedding_retrieval[kind], how),
    )


def _own_pages_first(item: tuple[tuple[str, int], CriticReading]) -> tuple[bool, str, int]:
    (pages, dose), _ = item
    return pages != "target", pages, dose
