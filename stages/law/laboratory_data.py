"""The rows behind the figures and tables of a sweep; here controls, baselines, adapters, other test sets.

Estimates come from the verdict where it has them, so that page, figures and verdict.json say one number.
"""

from collections.abc import Callable

import numpy as np

from stages.law import bound_data
from stages.law.comparisons import bootstrap
from stages.law.controls import allowed_share
from stages.law.evidence import BEFORE_CL, Evidence
from stages.law.figure_data import BASELINES, PAGES, arm_name
from stages.law.figure_style import Row, columns
from stages.law.laboratory import Laboratory, OtherTest
from stages.law.statistics import Bootstrap, Estimate, mean_over_queries
from stages.law.verdict import Verdict
from stages.recipes import ARMS, LINEAR_MAPS

DIRECTIONS = {"query_to_image": "image", "query_to_text": "text"}
GAIN, AHEAD = "gain over dose 0", "own pages minus control"


def laboratory_rows(verdict: Verdict, evidence: Evidence, laboratory: Laboratory) -> dict[str, list[Row]]:
    """Name -> rows; those of one name have the same keys."""
    how = bootstrap(verdict.thresholds)

    def mean(scores: np.ndarray) -> Estimate:
        return mean_over_queries(scores, how, evidence.documents)

    return {
        "bound": bound_data.bound_rows(verdict),
        "bound_by_size": bound_data.bound_by_size_rows(laboratory),
        "critic": bound_data.critic_rows(verdict, laboratory),
        "ceilings": bound_data.ceiling_rows(verdict),
        "plateau": bound_data.plateau_rows(verdict),
        "learning_rates": bound_data.learning_rate_rows(laboratory),
        "controls": control_rows(verdict, laboratory),
        "pretraining_pages": pretraining_pages_rows(verdict, evidence, laboratory, mean),
        "baselines": baseline_rows(verdict, evidence, mean),
        "adapters": adapter_rows(verdict, laboratory, mean),
        "other_tests": [row for test in laboratory.other_tests for row in other_test_rows(test, how)],
    }


def control_rows(verdict: Verdict, laboratory: Laboratory) -> list[Row]:
    """Paired differences in nDCG@10 at the highest dose, in groups; those of which `decides` are conditions.

    Each gain over dose 0; own pages minus each control; and the share of the own gain that a control may
    reproduce, minus what it does.
    """
    compared, controls = verdict.comparisons, verdict.laboratory.controls
    names = {**PAGES, "compute": equal_compute(laboratory), "grounding": "own pages on texts"}
    own_gain = "own pages, searching images"
    groups = {
        GAIN: {
            own_gain: compared.paired,
            **{f"{names[name]}, searching images": gain for name, gain in controls.gains.items()},
            "own pages, searching texts": compared.text_control,
            **{f"{names[name]}, searching texts": gain for name, gain in controls.text_gains.items()},
        },
        AHEAD: {
            **{f"minus {names[name]}": controls.at_top(name) for name in controls.against},
            f"minus {names['compute']}": controls.compute,
            "gain on images minus gain on texts": compared.beyond_text,
        },
        "share of the gain, minus": {
            f"{allowed_share(name, verdict.thresholds):.0%}, minus the gain of {names[name]}": left
            for name, left in controls.unexplained.items()
        },
    }
    return [
        {
            "group": group,
            "comparison": name,
            "decides": group != GAIN or name == own_gain,
            **columns("difference", estimate),
        }
        for group, estimates in groups.items()
        for name, estimate in estimates.items()
    ]


def pretraining_pages_rows(
    verdict: Verdict, evidence: Evidence, laboratory: Laboratory, mean: Callable[[np.ndarray], Estimate]
) -> list[Row]:
    """nDCG@10 after the primary CL by pages of CGP and dose, searching images and texts.

    Dose 0 is one model, whatever comes after it. The equal-compute arm starts from it, too.
    """
    primary = verdict.thresholds.primary_arm
    own = {
        dose: {direction: evidence.scores(dose, primary, direction) for direction in DIRECTIONS}
        for dose in evidence.doses
    }
    curves = {
        PAGES["target"]: own,
        **{PAGES[name]: {0: own[0]} | by_dose for name, by_dose in laboratory.controls.items()},
        equal_compute(laboratory): {0: laboratory.equal_compute},
    }
    return [
        {
            "series": name,
            "searched": searched,
            "dose": dose,
            **columns("ndcg@10", mean(scores[direction])),
        }
        for direction, searched in DIRECTIONS.items()
        for name, by_dose in curves.items()
        for dose, scores in sorted(by_dose.items())
    ]


def baseline_rows(verdict: Verdict, evidence: Evidence, mean: Callable[[np.ndarray], Estimate]) -> list[Row]:
    """nDCG@10 of query -> image of every model at dose 0 and at the highest dose; baselines have no dose."""
    primary = verdict.thresholds.primary_arm
    arms = dict.fromkeys((BEFORE_CL, *LINEAR_MAPS, primary, *ARMS, *evidence.arms))
    lexical = [
        {"model": BASELINES[key], "dose": None, **columns("ndcg@10", mean(scores["ndcg@10"][None]))}
        for key, scores in sorted(evidence.baselines.items(), reverse=True)
    ]
    return lexical + [
        {"model": arm_name(arm), "dose": dose, **columns("ndcg@10", mean(scores))}
        for arm in arms
        for dose in dict.fromkeys((evidence.doses[0], evidence.doses[-1]))
        if (scores := evidence.scores(dose, arm)) is not None
    ]


def adapter_rows(
    verdict: Verdict, laboratory: Laboratory, mean: Callable[[np.ndarray], Estimate]
) -> list[Row]:
    """LoRA rank and alpha at the highest dose: how far the weights moved, what they gained and lost."""
    return [
        {
            "adapter": one.name,
            "rank": one.rank,
            "alpha": one.alpha,
            "primary": one.name == verdict.thresholds.primary_arm,
            "weight_change": one.weight_change,
            **columns("ndcg@10", mean(one.scores)),
            "nats_per_byte_before": one.nats_before,
            "nats_per_byte_after": one.nats_after,
            "drift": one.nats_after / one.nats_before,
        }
        for one in laboratory.adapters
    ]


def other_test_rows(test: OtherTest, how: Bootstrap) -> list[Row]:
    """nDCG@10 of query -> image on one further test set, by dose, with its baselines."""
    return [
        {
            "test": test.name,
            "queries": test.queries,
            "corpus_size": test.corpus_size,
            "dose": dose,
            **columns("ndcg@10", mean_over_queries(scores, how, test.documents)),
            "random": test.random,
            "bm25": test.bm25,
        }
        for dose, scores in sorted(test.scores.items())
    ]


def equal_compute(laboratory: Laboratory) -> str:
    """What the equal-compute control is called."""
    return f"CL alone, {laboratory.equal_compute_steps:,} steps"
