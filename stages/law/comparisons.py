"""Every number that the verdict rests on or that stands beside it, computed once from the evidence."""

from dataclasses import dataclass

import numpy as np

from stages.law.evidence import BEFORE_CL, METRICS, Evidence, Reading
from stages.law.statistics import (
    Bootstrap,
    Estimate,
    mean_over_queries,
    means_over_queries,
    paired_difference,
    ratio_of_sums,
    spearman,
    trend_p,
)
from stages.recipes import LawConfig


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """Differences in nDCG@10 of query -> image, unless said otherwise; None where not measured.

    Attributes:
        paired: highest dose minus dose 0, after CL, primary arm: the number the verdict rests on.
        last_step: highest dose minus the one below it.
        before_cl: highest dose minus dose 0, without CL.
        cl: after CL minus before CL, at the highest dose.
        text_control: the paired difference for query -> page *text*; flat if grounding is what improves.
        beyond_bm25: the highest dose after CL minus BM25 on the text layer.
        beyond_text: ``paired`` minus ``text_control``, paired by query.
        arms: other arm -> that arm minus the primary one, at the highest dose.
        gain: nats per byte at dose 0 over the highest dose, target language.
        forgetting: nats per byte at the highest dose over dose 0, base language; above 1 is worse.
        times_random: nDCG@10 at the highest dose over that of random ranking.
        spearman, trend_p: order of the doses.
        steps_up: from how many doses to the next one the mean rose.
    """

    paired: Estimate
    last_step: Estimate | None
    before_cl: Estimate | None
    cl: Estimate | None
    text_control: Estimate
    beyond_text: Estimate
    beyond_bm25: Estimate
    arms: dict[str, Estimate]
    gain: Estimate
    forgetting: Estimate
    times_random: Estimate
    spearman: Estimate
    trend_p: float
    steps_up: int


def compare(evidence: Evidence, thresholds: LawConfig) -> Comparisons:
    """Compute every comparison that the verdict and the report use."""
    how, documents = bootstrap(thresholds), evidence.documents
    primary, top = thresholds.primary_arm, evidence.doses[-1]
    image = evidence.curve(primary)
    text = evidence.curve(primary, "query_to_text")

    def difference(after: np.ndarray | None, before: np.ndarray | None) -> Estimate | None:
        return None if after is None or before is None else paired_difference(after, before, how, documents)

    untouched = evidence.scores(top, BEFORE_CL)
    means = image.mean(axis=(1, 2))
    return Comparisons(
        paired=difference(image[-1], image[0]),
        last_step=difference(image[-1], image[-2]) if len(image) > 2 else None,
        before_cl=difference(untouched, evidence.scores(0, BEFORE_CL)),
        cl=difference(image[-1], untouched),
        text_control=difference(text[-1], text[0]),
        beyond_text=difference(image[-1] - image[0], text[-1] - text[0]),
        beyond_bm25=difference(image[-1], evidence.baselines["bm25"]["ndcg@10"][None]),
        arms={
            arm: difference(evidence.scores(top, arm), image[-1])
            for arm in evidence.arms
            if arm != primary and _comparable(evidence, top, arm, primary)
        },
        gain=_gain(evidence, how),
        forgetting=_forgetting(evidence, how),
        times_random=_times_random(image[-1], evidence, how),
        spearman=spearman(
            np.array([-reading.nats_per_byte for reading in evidence.target]), image, how, documents
        ),
        trend_p=trend_p(means, seed=thresholds.random_seed),
        steps_up=int((np.diff(means) > 0).sum()),
    )


def dose_table(evidence: Evidence, thresholds: LawConfig) -> tuple[dict, ...]:
    """One row per dose: generation of both languages and every retrieval score, with intervals."""
    how = bootstrap(thresholds)
    rows = []
    for dose, target, base in zip(evidence.doses, evidence.target, evidence.base, strict=True):
        rows.append(
            {
                "dose": dose,
                **_generation_row("", target, how),
                **_generation_row("base_", base, how),
                "retrieval": {
                    arm: _retrieval_row(evidence, dose, arm, how)
                    for arm in (BEFORE_CL, *evidence.arms)
                    if (dose, arm) in evidence.cells
                },
            }
        )
    return tuple(rows)


def _generation_row(prefix: str, reading: Reading, how: Bootstrap) -> dict[str, Estimate]:
    return {
        f"{prefix}nats_per_byte": ratio_of_sums(reading.nats, reading.bytes, how),
        f"{prefix}character_error_rate": ratio_of_sums(reading.edits, reading.characters, how),
        f"{prefix}token_accuracy": ratio_of_sums(reading.correct, reading.tokens, how),
    }


def _retrieval_row(evidence: Evidence, dose: int, arm: str, how: Bootstrap) -> dict[str, Estimate]:
    documents = evidence.documents
    measured = {metric: evidence.scores(dose, arm, metric=metric) for metric in METRICS}
    measured["query_to_text"] = evidence.scores(dose, arm, "query_to_text")
    estimates = means_over_queries(np.stack(list(measured.values())), how, documents)
    row = dict(zip(measured, estimates, strict=True))
    # The queries of this direction are the pages' own texts, which `documents` does not describe.
    row["text_to_image"] = mean_over_queries(evidence.scores(dose, arm, "text_to_image"), how)
    return row


def bootstrap(thresholds: LawConfig) -> Bootstrap:
    """How the thresholds want intervals to be resampled."""
    return Bootstrap(
        resamples=thresholds.bootstrap_resamples,
        confidence=thresholds.confidence,
        seed=thresholds.random_seed,
    )


def _comparable(evidence: Evidence, dose: int, arm: str, primary: str) -> bool:
    return (dose, arm) in evidence.cells and (
        evidence.seeds[arm] == evidence.seeds[primary] or len(evidence.seeds[arm]) == 1
    )


def _gain(evidence: Evidence, how: Bootstrap) -> Estimate:
    return ratio_of_sums(evidence.target[0].nats, evidence.target[-1].nats, how)


def _forgetting(evidence: Evidence, how: Bootstrap) -> Estimate:
    return ratio_of_sums(evidence.base[-1].nats, evidence.base[0].nats, how)


def _times_random(scores: np.ndarray, evidence: Evidence, how: Bootstrap) -> Estimate:
    reached = mean_over_queries(scores, how, evidence.documents)
    chance = float(evidence.baselines["random"]["ndcg@10"].mean())
    return Estimate(value=reached.value / chance, low=reached.low / chance, high=reached.high / chance)
