"""What is said beside a number follows from its interval: no verb claims more."""

from dataclasses import replace

import numpy as np
import pytest

from stages.law import decisions, laboratory_words, words
from stages.law.ceiling import CeilingTrend
from stages.law.checks import find
from stages.law.results import measure_laboratory
from stages.law.statistics import Estimate
from stages.law.verdict import judge
from tests.unit.stages.law.conftest import LAW, read_run
from tests.unit.stages.law.simulated_sweep import Sweep, read_sweep

RISING = (0.5, 0.9, 1.2, 1.6)


def estimate(value, low, high):
    return Estimate(value=value, low=low, high=high)


@pytest.fixture(scope="module")
def plain(simulate):
    """Findings of a rising run without a laboratory: 120 queries of 30 documents."""
    return find(read_run(simulate(strengths=RISING, queries=120)), LAW)


@pytest.fixture(scope="module")
def swept():
    """Findings and laboratory results of a rising sweep."""
    sweep = Sweep(strengths=RISING, queries=120)
    laboratory = read_sweep(sweep)
    findings = find(read_run(sweep), LAW, laboratory)
    return findings, measure_laboratory(findings, laboratory)


def measured(findings, **compared):
    """The same findings with other numbers."""
    return replace(findings, compared=replace(findings.compared, **compared))


def test_a_control_explains_no_gain_where_there_is_none():
    sweep = Sweep(strengths=RISING[::-1], shuffled=1.6, unrelated=1.6, equal=1.6)
    found = judge(read_run(sweep), LAW, read_sweep(sweep))
    assert found.verdict == "not supported" and set(found.laboratory.explained_by) == {
        "shuffled",
        "unrelated",
    }
    assert found.decision.startswith("Generative pretraining harms retrieval")
    assert "explains the gain" not in " ".join(found.reasons)
    assert sum("the own pages are behind it" in reason for reason in found.reasons) == 2


@pytest.mark.parametrize(
    ("paired", "moved"),
    [
        ((0.05, 0.021, 0.08), "CL rose between"),
        ((0.03, 0.005, 0.06), "CL rose, perhaps by less than counts as an effect, between"),
        ((0.01, 0.005, 0.015), "CL did not rise by what counts as an effect between"),
        ((0.01, -0.02, 0.04), "CL may or may not have risen between"),
        ((-0.05, -0.08, -0.01), "CL fell between"),
    ],
)
def test_the_verb_of_the_main_comparison_is_that_of_its_interval(plain, paired, moved):
    assert moved in words.reasons(measured(plain, paired=estimate(*paired)))[1]


@pytest.mark.parametrize(
    ("cl", "does"),
    [((0.1, 0.01, 0.2), "adds"), ((-0.1, -0.2, -0.01), "costs"), ((0.0, -0.3, 0.3), "may add or cost:")],
)
def test_the_verb_of_cl_is_that_of_its_interval(plain, cl, does):
    assert f"CL {does} " in words.notes(measured(plain, cl=estimate(*cl)))[0]


def test_reasons_give_the_intervals_that_exist(plain):
    said = words.reasons(
        measured(
            plain, spearman=estimate(0.6, 0.31, 0.76), times_random=estimate(64, 57, 71), trend_p=1 / 40320
        )
    )
    assert any("Spearman 0.60 [0.31, 0.76]" in reason and "trend p < 0.001)" in reason for reason in said)
    assert any("nDCG@10 is 64× [57×, 71×] that of a random ranking" in reason for reason in said)


def test_a_lower_dose_reads_best_only_where_the_highest_is_clearly_worse(plain):
    best = plain.evidence.target[-1]
    for factor, told in ((1.0001, False), (1.5, True)):
        # The same blocks in another order: without a difference the ratio is 1, give or take its interval.
        worse = replace(best, nats=np.roll(best.nats, 7) * factor)
        evidence = replace(plain.evidence, target=(*plain.evidence.target[:2], best, worse))
        found = [note for note in words.notes(replace(plain, evidence=evidence)) if "reads best" in note]
        assert bool(found) is told
    assert found[0].startswith("Dose 900 reads best: the loss of the highest dose is 1.5× [1.")


@pytest.mark.parametrize("gained", [True, False])
def test_not_the_language_alone_needs_a_gain(swept, gained):
    paired = estimate(0.1, 0.05, 0.15) if gained else estimate(-0.01, -0.05, 0.03)
    findings = measured(
        swept[0],
        paired=paired,
        beyond_text=estimate(0.08, 0.02, 0.14),
        text_control=estimate(-0.02, -0.08, 0.04),
    )
    said = " ".join((*words.reasons(findings), *words.notes(findings)))
    assert said.count("the gain is not the language alone") == 2 * gained
    neither = measured(findings, beyond_text=estimate(0.0, -0.1, 0.1))
    said = " ".join((*words.reasons(neither), *words.notes(neither)))
    assert said.count("may be learning the language") == 2 * gained


def test_thresholds_say_which_number_is_judged_by_its_value():
    assert "the order of the doses is judged by its value" in words.thresholds_in_words(LAW)[-1]


def test_how_much_more_data_counts_what_is_resampled(plain):
    # The interval's half is 3.5 times the distance to the threshold: 3.5² = 12.25, so 13 times the data.
    open_question = measured(plain, paired=estimate(0.01, -0.025, 0.045))
    conditions = plain.conditions | {"effect": replace(plain.conditions["effect"], passed=False)}
    findings = replace(open_question, conditions=conditions)
    assert decisions.find_out(findings).endswith("About 390 test documents (13× as many) would settle it.")
    single = replace(findings, evidence=replace(plain.evidence, documents=None))
    assert decisions.find_out(single).endswith("About 1,560 queries (13× as many) would settle it.")
    narrow = replace(measured(plain, paired=estimate(0.02, 0.015, 0.025)), conditions=conditions)
    assert "the gain is about as large as what just counts" in decisions.find_out(narrow)


def test_a_failed_condition_is_not_shown_rather_than_no(plain):
    order = replace(plain.conditions["order"], passed=False)
    said = decisions.find_out(replace(plain, conditions=plain.conditions | {"order": order}))
    assert "but not every condition is shown: Does retrieval rise over the doses?" in said


@pytest.mark.parametrize(
    ("p", "determined", "said"),
    [
        (1 / 40320, 3, "The ceiling rises over the doses: +0.094 [+0.020, +0.150]"),
        (0.3, 3, "The ceiling is not shown to rise over the doses: +0.094"),
        (0.01, 0, "The highest measured score rises over the doses: +0.094"),
    ],
)
def test_the_ceilings_trend_claims_what_its_p_shows(swept, p, determined, said):
    findings, results = swept
    rise = estimate(0.094, 0.02, 0.15)
    trend = CeilingTrend(spearman=0.9, p=p, rise=rise, determined=determined, doses=4)
    notes = laboratory_words.notes(findings, None, replace(results, ceiling_trend=trend))
    [note] = [note for note in notes if note.startswith(said)]
    assert ("trend p < 0.001" in note) == (p < 0.001)
    assert ("3 of 4 are fitted plateaus" in note) == (determined == 3)
    assert ("no dose shows a plateau" in note) == (determined == 0)


def with_losses(results, kind, losses):
    """The results with these L_gen at the doses of the own pages, no uncertainty."""
    left = list(losses)
    bounds = tuple(
        replace(bound, generative=estimate(*[left.pop(0)] * 3))
        if (bound.pages, bound.kind) == ("target", kind)
        else bound
        for bound in results.bounds
    )
    assert not left
    return replace(results, bounds=bounds)


def test_a_sure_critic_is_called_so_with_what_follows(swept):
    findings, results = swept
    for losses, apart in (((2.0, 1.0, 0.5, 4e-4), True), ((2.0, 1.0, 4e-4, 2e-8), False)):
        notes = laboratory_words.notes(findings, None, with_losses(results, "text", losses))
        [bound] = [note for note in notes if note.startswith("Bound, page texts among 16 images")]
        assert ("these doses cannot be told apart by it" in bound) is not apart
        assert "L_gen < 0.001 [< 0.001, < 0.001]" in bound


def test_only_the_correlations_that_exist_are_told(swept):
    findings, results = swept
    for order in (results.generative_order, {"query": results.generative_order["query"]}):
        notes = laboratory_words.notes(findings, None, replace(results, generative_order=order))
        said = [note for note in notes if "have a Spearman correlation" in note]
        assert [note.split(" of ")[1].split(" and ")[0] for note in said] == [
            {"text": "page texts", "query": "queries"}[kind] for kind in order
        ]


def test_every_number_of_the_bound_has_its_interval(swept):
    _, results = swept
    text, query = laboratory_words.bounds_in_words(results.bounds)
    last = [bound for bound in results.bounds if (bound.pages, bound.kind) == ("target", "query")][-1]
    assert text.startswith("Bound, page texts among 16 images: the guarantee (L_cl ≤ L_gen + slack) ")
    assert query.startswith("Bound, queries among 16 images: the guarantee (L_cl ≤ L_gen + slack) ")
    assert f"nDCG@10 among them {last.critic_ndcg.plain()} by likelihood" in query
    assert f"L_cl {last.contrastive.value:.3g} [{last.contrastive.low:.3g}, " in query
