"""The verdict on simulated sweeps whose truth is known; what it says in words is tested with the report."""

from dataclasses import replace

import numpy as np
import pytest

from stages.cells import BEFORE_CL
from stages.law.simulated_sweeps import EQUAL_COMPUTE, PRIMARY, World, simulate
from stages.law.statistics import Bootstrap, mean_over_queries
from stages.law.verdict import find
from tests.unit.stages.law.sweeps import FASTER, GAIN, LAW, QUIET, SMALL, Sweep, scores_json

LARGE = replace(SMALL, queries_of_documents=(60,) * 100)
FOUR = {"generation", "effect", "order", "chance"}


def run_of(design=SMALL, rng=0, *, gain=GAIN, controls=False, **world):
    """A simulated run, or with its controls a sweep."""
    found = simulate(World(image=gain, noise=QUIET, **world), np.random.default_rng(rng), design)
    if controls:
        return found
    own = [of for of in found.contents if of[1].pages == "target" and of[1].arm != EQUAL_COMPUTE]
    return replace(found, contents=dict.fromkeys(own))


def failed(found):
    return {check.name for check in found.checks if not check.passed}


def test_law_holds():
    found = find(run_of(), LAW)
    assert found.verdict == "supported" and not failed(found)
    assert found.controls is None and found.conditions.keys() == FOUR
    assert found.compared.paired.low > 0.02 and found.compared.spearman.value == 1.0
    assert found.compared.trend_p == pytest.approx(1 / 24) and found.compared.steps_up == 3


def test_flat_or_falling_with_plenty_of_data_is_not_supported():
    flat, falling = find(run_of(LARGE, gain=0.0), LAW), find(run_of(gain=-GAIN), LAW)
    assert flat.verdict == "not supported" and flat.compared.paired.high < LAW.minimum_effect
    assert falling.verdict == "not supported" and falling.compared.paired.high < 0


def test_a_small_gain_in_little_data_is_inconclusive():
    found = find(run_of(replace(SMALL, queries_of_documents=(4,) * 28), gain=0.02), LAW)
    assert found.verdict == "inconclusive" and "effect" in failed(found)


@pytest.mark.parametrize(
    ("changes", "name", "count", "needed"),
    [
        ({"queries_of_documents": (4,) * 10}, "queries", 40, 100),
        ({"queries_of_documents": (400,)}, "test documents", 1, 5),
        ({"queries_of_documents": (100,) * 4}, "test documents", 4, 5),
        ({"seeds": 1}, "seeds", 1, 2),
        ({"doses": (0, 9), "control_doses": (9,), "nats_per_byte": (4.0, 0.2)}, "doses", 2, 4),
        (
            {"doses": (0,), "control_doses": (), "nats_per_byte": (4.0,), "shares_of_gain": (0,)},
            "doses",
            1,
            4,
        ),
    ],
)
def test_too_little_evidence_is_inconclusive_however_large_the_gain(changes, name, count, needed):
    found = find(run_of(replace(SMALL, **changes)), LAW)
    assert found.verdict == "inconclusive"
    [check] = [check for check in found.size if not check.passed]
    assert (check.name, check.measured, check.required) == (name, (count,), (needed,))


def test_without_better_generation_the_law_is_not_tested():
    found = find(run_of(replace(SMALL, nats_per_byte=(0.5, 0.48, 0.45, 0.44))), LAW)
    assert found.verdict == "inconclusive" and failed(found) == {"generation"}


def test_a_jump_without_order_is_inconclusive_and_a_step_down_alone_is_not():
    found = find(run_of(replace(SMALL, shares_of_gain=(0, 1.2, -0.2, 0.5))), LAW)
    assert found.verdict == "inconclusive" and failed(found) == {"order"}
    assert found.compared.paired.low > LAW.minimum_effect
    found = find(run_of(replace(LARGE, shares_of_gain=(0, 0.7, 0.6, 1.0))), LAW)
    assert found.verdict == "supported" and found.compared.steps_up == 2


def test_thresholds_decide():
    run = run_of()
    assert find(run, replace(LAW, minimum_effect=0.9)).verdict == "not supported"
    assert find(run, replace(LAW, minimum_generative_gain=100.0)).verdict == "inconclusive"
    assert find(run, replace(LAW, minimum_times_random=90.0)).verdict == "inconclusive"


@pytest.mark.parametrize("count", [4, 5])
def test_from_five_documents_on_they_are_what_is_resampled(count):
    run = Sweep(controls=False)
    for content in run.cells("retrieval").values():
        content["query_documents"] = [f"{i % count}.pdf" for i in range(400)]
    found, measured = run.find(), run.read()
    assert found.verdict == ("supported" if count == 5 else "inconclusive")
    assert measured.test.query_documents == count
    groups = np.arange(400) % 5 if count == 5 else None
    gained = measured.scores(2400, PRIMARY) - measured.scores(0, PRIMARY)
    assert found.compared.paired == mean_over_queries(gained, Bootstrap(resamples=400), groups)


def test_what_cl_and_other_arms_do_is_compared_at_the_highest_dose():
    run = Sweep(multimodal=0.05, controls=False).read()
    found = find(run, LAW).compared
    assert found.cl.low > 0 and found.before_cl.low > 0 and found.arms["multimodal-20"].low > 0
    assert found.forgetting.value == pytest.approx(0.14 / 0.08, rel=0.1)
    before, after = (run.scores(2400, arm) for arm in (BEFORE_CL, PRIMARY))
    assert (before.shape, found.cl.value) == ((1, 400), pytest.approx((after - before[0]).mean()))
    assert found.beyond_text.value == pytest.approx(found.paired.value - found.text_control.value)


def test_a_sweep_is_supported_where_every_control_is_beaten():
    found = find(run_of(controls=True), LAW)
    assert found.verdict == "supported" and not failed(found) and found.explained_by == ()
    assert found.conditions.keys() == {*FOUR, "shuffled", "unrelated", "compute", "grounding"}


@pytest.mark.parametrize(
    ("control", "gain", "verdict", "explained_by"),
    [
        ("shuffled", GAIN + 0.05, "not supported", ("shuffled",)),
        ("unrelated", GAIN + 0.05, "not supported", ("unrelated",)),
        ("compute", GAIN, "inconclusive", ()),
        ("text", GAIN, "inconclusive", ()),
    ],
)
def test_pages_that_explain_the_gain_refute_and_more_cl_or_text_that_gain_alike_leave_it_open(
    control, gain, verdict, explained_by
):
    found = find(run_of(controls=True, **{control: gain}), LAW)
    assert (found.verdict, found.explained_by) == (verdict, explained_by)
    assert failed(found) == {"grounding" if control == "text" else control}


def test_a_control_that_explains_most_of_the_gain_is_not_beaten_by_being_behind():
    found = find(run_of(controls=True, shuffled=0.6 * GAIN), replace(LAW, maximum_explained_by_shuffled=0.3))
    lead, unexplained = found.conditions["shuffled"].measured
    assert lead == found.controls.at_top("shuffled") and lead.low > LAW.minimum_effect  # and yet
    assert found.verdict == "inconclusive" and failed(found) == {"shuffled"}
    assert unexplained == found.controls.unexplained["shuffled"] and unexplained.low < 0
    assert found.conditions["shuffled"].required == (LAW.minimum_effect, 0.3)


def test_ceilings_that_still_rise_are_told_from_plateaus():
    sweep = Sweep()
    for cell, content in sweep.cells("retrieval", arm=FASTER, split="test", dose=300).items():
        rising = np.arange(400) < 400 * (0.4 + cell.steps / 150)
        content["directions"]["query_to_image"] = scores_json(rising * 1.0)
    found = sweep.find()
    [ceiling] = [one for one in found.ceilings if one.dose == 300]
    assert not ceiling.determined and ceiling.height == ceiling.best == ceiling.curve[60]
    assert ceiling.reason.startswith("may still rise after 60 steps")
    assert found.ceiling_trend.doses == 4 and found.prediction.lower_doses == 3
