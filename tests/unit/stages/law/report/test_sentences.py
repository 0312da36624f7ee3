"""What is said beside a number follows from its interval: no verb claims more. Snapshots hold the words."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from stages.cells import Cell
from stages.law.ceiling import CeilingTrend
from stages.law.config import LawConfig
from stages.law.report.sentences import bounds_in_words, moved, tell, thresholds_in_words
from stages.law.statistics import Estimate
from tests.unit.stages.law.report.conftest import masked, with_numbers
from tests.unit.stages.law.sweeps import LAW, Sweep


def estimate(value, low, high):
    return Estimate(value=value, low=low, high=high)


ABOVE, BELOW, BOTH = estimate(0.1, 0.05, 0.15), estimate(-0.1, -0.15, -0.05), estimate(0.01, -0.05, 0.07)
NONE = estimate(0.001, -0.01, 0.01)
SIGNS = {"above": ABOVE, "below": BELOW, "both": BOTH}
COMPARED = {
    "spearman": {"spearman": estimate(0.6, 0.31, 0.76), "trend_p": 1 / 40320},
    "forgetting": {"forgetting": estimate(1.9, 1.6, 2.2)},
    "no last step": {"last_step": None, "before_cl": None, "cl": None},
} | {
    f"{name} {sign}": {name: number}
    for name in ("paired", "cl", "beyond_bm25", "text_control", "last_step")
    for sign, number in SIGNS.items()
}


def lines(findings):
    story = tell(findings)
    return [story.decision, *story.reasons, *story.notes]


def news(changed, findings):
    """What is said of changed findings and not of the others."""
    return "\n".join(line for line in lines(changed) if line not in lines(findings))


def failed(findings, *names):
    """The same findings in which these conditions do not hold."""

    def but(check):
        return replace(check, passed=check.passed and check.name not in names)

    conditions = {name: but(check) for name, check in findings.conditions.items()}
    return replace(findings, conditions=conditions, size=tuple(map(but, findings.size)))


def test_thresholds_in_words(snapshot):
    assert "\n".join(thresholds_in_words(LawConfig())) == snapshot


@pytest.mark.parametrize("case", COMPARED)
def test_what_is_said_of_each_number(plain, case, snapshot):
    assert news(with_numbers(plain, **COMPARED[case]), plain) == snapshot


def test_the_verb_of_the_main_comparison_is_that_of_its_interval():
    said = {
        (0.021, 0.08): "rose",
        (0.005, 0.06): "rose, perhaps by less than counts as an effect,",
        (0.005, 0.015): "did not rise by what counts as an effect",
        (-0.02, 0.015): "did not rise by what counts as an effect",
        (-0.02, 0.04): "may or may not have risen",
        (-0.08, -0.01): "fell",
    }
    for (low, high), verb in said.items():
        assert moved(estimate((low + high) / 2, low, high), 0.02) == verb


DECISIONS = {
    "no reading": ({}, "generation"),
    "not every condition": ({}, "order", "chance"),
    "too small": ({}, "queries", "seeds"),
    "no gain": ({"paired": NONE}, "effect"),
    "CL loses it": ({"paired": NONE, "before_cl": ABOVE, "arms": {}, "cl": BOTH}, "effect"),
    "other data": ({"paired": BELOW, "arms": {"multimodal-20": ABOVE, "full fine-tuning": ABOVE}}, "effect"),
    "other way": ({"paired": BELOW, "arms": {"projection": ABOVE}}, "effect"),
    "CL costs": ({"paired": BELOW, "arms": {}, "cl": BELOW}, "effect"),
    "hardly chance": ({"paired": BELOW, "arms": {}, "cl": BOTH, "before_cl": BOTH}, "effect", "chance"),
    "no more": ({"last_step": NONE, "arms": {}, "cl": BOTH},),
}
"""Case -> other numbers, and conditions that do not hold."""


@pytest.mark.parametrize("case", DECISIONS)
def test_every_decision(swept, case, snapshot):
    numbers, *names = DECISIONS[case]
    assert masked(tell(failed(with_numbers(swept, **numbers), *names)).decision) == snapshot


def test_a_solved_test_is_called_so(swept):
    found = replace(with_numbers(swept, last_step=BOTH), thresholds=replace(LAW, minimum_effect=0.5))
    assert "Retrieval is solved on this test; try harder queries" in tell(found).decision


def test_how_much_more_data_counts_what_is_resampled(plain):
    # The interval's half is 3.5 times the distance to the threshold: 3.5² = 12.25, so 13 times the data.
    found = failed(with_numbers(plain, paired=estimate(0.01, -0.025, 0.045)), "effect")
    assert tell(found).decision.endswith("About 1,300 test documents (13× as many) would settle it.")
    single = replace(found.measurements.test, documents=None)
    measurements = replace(found.measurements, searched={"test": single})
    assert tell(replace(found, measurements=measurements)).decision.endswith(
        "About 5,200 queries (13× as many) would settle it."
    )
    narrow = failed(with_numbers(plain, paired=estimate(0.02, 0.015, 0.025)), "effect")
    assert "the gain is about as large as what just counts" in tell(narrow).decision


def test_a_lower_dose_reads_best_only_where_the_highest_is_clearly_worse():
    for factor, told in ((1.0001, False), (1.5, True)):
        run = Sweep(controls=False)
        best, worst = (run.contents["generation", Cell(dose=dose)] for dose in (900, 2400))
        blocks = best["corpora"]["target"]["per_block"]
        for block, source in zip(worst["corpora"]["target"]["per_block"], np.roll(blocks, 7), strict=True):
            # The same blocks in another order: without a difference the ratio is 1, or nearly.
            block["nats"] = source["nats"] * factor
        notes = [note for note in tell(run.find()).notes if "reads best" in note]
        assert bool(notes) is told
    assert notes[0].startswith("Dose 900 reads best: the loss of the highest dose is 1.5× [1.")


@pytest.mark.parametrize("gained", [True, False])
def test_not_the_language_alone_needs_a_gain(swept, gained):
    numbers = {"paired": ABOVE if gained else BOTH, "text_control": BOTH}
    said = " ".join(lines(with_numbers(swept, beyond_text=ABOVE, **numbers)))
    assert said.count("the gain is not the language alone") == 2 * gained
    said = " ".join(lines(with_numbers(swept, beyond_text=BOTH, **numbers)))
    assert said.count("may be learning the language") == 2 * gained


def test_a_control_explains_no_gain_where_there_is_none():
    explained = Sweep(shuffled=0.4, unrelated=0.4).find()
    assert explained.verdict == "not supported" and explained.explained_by == ("shuffled", "unrelated")
    story = tell(explained)
    assert story.decision.startswith("More generative pretraining on these pages will not help, because")
    assert sum("It explains the gain." in reason for reason in story.reasons) == 2
    harmed = with_numbers(explained, paired=BELOW)
    story = tell(harmed)
    assert story.decision.startswith("Generative pretraining harms retrieval")
    assert "explains the gain" not in " ".join(story.reasons)


@pytest.mark.parametrize(("p", "determined"), list(itertools.product((1 / 40320, 0.3), (0, 3, 4))))
def test_the_ceilings_trend_claims_what_its_p_shows(swept, p, determined, snapshot):
    found = replace(swept)
    trend = CeilingTrend(spearman=-0.9, p=p, rise=ABOVE, determined=determined, doses=4)
    vars(found)["_ceilings"] = (swept.ceilings, trend)
    assert [note for note in tell(found).notes if "over the doses: " in note] == snapshot


@pytest.mark.parametrize("losses", [(9.0, 1.0, 0.5, 0.4), (2.0, 1.0, 5e-4, 4e-4), (9.0, 1.0, 4e-4, 2e-8)])
def test_a_bound_that_says_nothing_is_called_so(swept, losses, snapshot):
    own = [bound for bound in swept.bounds if (bound.pages, bound.kind) == ("target", "text")]
    changed = [
        replace(bound, generative=estimate(*[loss] * 3)) for bound, loss in zip(own, losses, strict=True)
    ]
    (said,) = bounds_in_words(changed)
    assert masked(said) == snapshot
    assert ("L_gen < 0.001 [< 0.001, < 0.001]" in said) is (losses[-1] < 0.001)
    last = own[-1]
    assert f"nDCG@10 among them {last.critic_ndcg.plain()} by likelihood" in said
    assert f"L_cl {last.contrastive.value:.3g} [{last.contrastive.low:.3g}, " in said


def test_only_the_correlations_that_exist_are_told(swept):
    found = replace(swept)
    vars(found)["generative_order"] = {"query": ABOVE}
    said = [note for note in tell(found).notes if "have a Spearman correlation" in note]
    assert said == ["Over the doses, −L_gen(N) of queries and nDCG@10 have a Spearman correlation of "
                    "0.10 [0.05, 0.15]."]  # fmt: skip


def test_few_documents_are_named():
    few = Sweep(controls=False).read(replace(LAW, minimum_documents=1000))
    found = Sweep(controls=False).find()
    assert "resampled one by one" in " ".join(tell(replace(found, measurements=few)).notes)
