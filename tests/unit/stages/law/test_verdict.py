"""The verdict on simulated sweeps whose truth is known; what it says in words is tested with the report."""

from dataclasses import replace

import numpy as np
import pytest

from stages.cells import BEFORE_CL
from stages.law.simulated_sweeps import EQUAL_COMPUTE, PRIMARY, World, simulate
from stages.law.statistics import Bootstrap, mean_over_queries
from stages.law.verdict import find
from tests.unit.stages.law.sweeps import FASTER, GAIN, LAW, QUIET, SMALL, Sweep, scores_json


def run_of(design=SMALL, *, gain=GAIN, controls=False, **world):
    """A simulated run, or with its controls a sweep."""
    found = simulate(World(image=gain, noise=QUIET, **world), np.random.default_rng(0), design)
    if controls:
        return found
    own = [of for of in found.contents if of[1].pages == "target" and of[1].arm != EQUAL_COMPUTE]
    return replace(found, contents=dict.fromkeys(own))


def failed(found):
    return {check.name for check in found.checks if not check.passed}


def design(**changes):
    return {"design": replace(SMALL, **changes)}


UNREAD = design(nats_per_byte=(0.5, 0.48, 0.45, 0.44))
JUMP, STEP_DOWN = design(shares_of_gain=(0, 1.2, -0.2, 0.5)), design(shares_of_gain=(0, 0.7, 0.6, 1.0))
LARGE = design(queries_of_documents=(60,) * 100)
VERDICTS = {
    "the law holds": ({}, {}, "supported", ""),
    "flat": (LARGE | {"gain": 0.0}, {}, "not supported", "effect order"),
    "falling": ({"gain": -GAIN}, {}, "not supported", "effect order"),
    "a small gain in little data": (
        design(queries_of_documents=(4,) * 28) | {"gain": 0.02},
        {},
        "inconclusive",
        "effect order",
    ),
    "no better generation": (UNREAD, {}, "inconclusive", "generation"),
    "a jump without order": (JUMP, {}, "inconclusive", "order"),
    "a step down": (STEP_DOWN, {}, "supported", ""),
    "a larger effect is asked for": ({}, {"minimum_effect": 0.9}, "not supported", "effect"),
    "better reading is asked for": ({}, {"minimum_generative_gain": 100.0}, "inconclusive", "generation"),
    "more than chance is asked for": ({}, {"minimum_times_random": 90.0}, "inconclusive", "chance"),
    "every control is beaten": ({"controls": True}, {}, "supported", ""),
    "shuffled pages": ({"controls": True, "shuffled": GAIN + 0.05}, {}, "not supported", "shuffled"),
    "unrelated pages": ({"controls": True, "unrelated": GAIN + 0.05}, {}, "not supported", "unrelated"),
    "more CL": ({"controls": True, "compute": GAIN}, {}, "inconclusive", "compute"),
    "text": ({"controls": True, "text": GAIN}, {}, "inconclusive", "grounding"),
}
"""Case -> the world, other thresholds, the verdict, the conditions that are not met."""


@pytest.mark.parametrize("case", VERDICTS)
def test_the_verdict_on_a_known_truth(case):
    world, thresholds, verdict, not_met = VERDICTS[case]
    found = find(run_of(**world), replace(LAW, **thresholds))
    assert (found.verdict, failed(found)) == (verdict, set(not_met.split()))
    controls = {"shuffled", "unrelated", "compute", "grounding"} if "controls" in world else set()
    assert found.conditions.keys() == {"generation", "effect", "order", "chance", *controls}
    explained = (not_met,) if case in ("shuffled pages", "unrelated pages") else ()
    assert found.explained_by == explained and (found.controls is not None) is bool(controls)


def test_the_numbers_of_a_clear_law():
    compared = find(run_of(), LAW).compared
    assert compared.paired.low > 0.02 and compared.spearman.value == 1.0
    assert compared.trend_p == pytest.approx(1 / 24) and compared.steps_up == 3


ONE_DOSE = {"doses": (0,), "control_doses": (), "nats_per_byte": (4.0,), "shares_of_gain": (0,)}


@pytest.mark.parametrize(
    ("changes", "name", "count", "needed"),
    [
        ({"queries_of_documents": (4,) * 10}, "queries", 40, 100),
        ({"queries_of_documents": (400,)}, "test documents", 1, 5),
        ({"queries_of_documents": (100,) * 4}, "test documents", 4, 5),
        ({"seeds": 1}, "seeds", 1, 2),
        ({"doses": (0, 9), "control_doses": (9,), "nats_per_byte": (4.0, 0.2)}, "doses", 2, 4),
        (ONE_DOSE, "doses", 1, 4),
    ],
)
def test_too_little_evidence_is_inconclusive_however_large_the_gain(changes, name, count, needed):
    found = find(run_of(**design(**changes)), LAW)
    assert found.verdict == "inconclusive"
    [check] = [check for check in found.size if not check.passed]
    assert (check.name, check.measured, check.required) == (name, (count,), (needed,))


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
