"""The law in each reading: what to search with, and slopes."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from stages.cells import BEFORE_CL
from stages.law.simulated_sweeps import PRIMARY, STEPS
from stages.law.statistics import Bootstrap, slope
from tests.unit.stages.law.sweeps import SMALL, Sweep

TOP = SMALL.doses[-1]


@pytest.fixture
def run():
    return Sweep(controls=False)


def searched(run, arm):
    """The retrieval of the highest dose."""
    return [
        content
        for (stage, cell), content in run.contents.items()
        if stage == "retrieval" and (cell.dose, cell.arm, cell.split) == (TOP, arm, "test")
    ]


def test_every_reading_has_the_law_and_the_primary_one_is_the_pooled_vector_after_cl(run):
    found = run.find()
    of = {(one.reading, one.arm): one for one in found.readings}
    assert len(of) == 2 * 4 + 3 == len(found.readings)  # of three, CL changes nothing
    primary = of["pooled", PRIMARY.name]
    assert primary.gain == found.compared.paired and primary.shown == (found.verdict == "supported")
    assert of["pooled", BEFORE_CL.name].by_cl is None
    before, after = (of["pooled", arm].curve[-1].value for arm in (BEFORE_CL.name, PRIMARY.name))
    assert primary.by_cl.value == pytest.approx(after - before)


def test_validation_chooses_the_way_alone_and_not_the_test(run):
    for content in searched(run, BEFORE_CL):
        content["fusion"]["validation"] |= {"trigrams": 0.65}
    found = run.find()
    of = {one.reading: one for one in found.readings}
    assert of["transcribed"].curve[-1].value > of["trigrams"].curve[-1].value
    assert found.best_reading.single.reading == "trigrams"


def test_before_and_after_cl_are_chosen_from(run):
    [before] = searched(run, BEFORE_CL)
    before["fusion"]["validation"] |= {"lexical": 0.9}
    single = run.find().best_reading.single
    assert (single.reading, single.arm) == ("lexical", BEFORE_CL.name)


def test_other_budgets_of_cl_have_no_vote():
    sweep = Sweep()
    place = ("retrieval", PRIMARY, TOP, "test", STEPS)
    cell = next(
        cell for of, cell in sweep.contents if (of, cell.arm, cell.dose, cell.split, cell.steps) == place
    )
    best = sweep.find().best_reading.single
    for steps in (5, 60):
        other = copy.deepcopy(sweep.contents["retrieval", cell])
        other["fusion"]["validation"] = dict.fromkeys(other["fusion"]["validation"], 0.1) | {"pooled": 0.95}
        sweep.contents["retrieval", replace(cell, steps=steps)] = other
    assert sweep.find().best_reading.single == best


def test_without_validation_documents_nothing_is_chosen_by_the_test(run):
    for arm in (PRIMARY, BEFORE_CL):
        for content in searched(run, arm):
            content["fusion"]["validation"] = None
    found = run.find()
    assert found.readings and found.best_reading is None


@pytest.mark.parametrize("ahead", [False, True])
def test_all_together_only_where_they_are_shown_to_find_more(run, ahead):
    [alone] = searched(run, BEFORE_CL)
    single = np.array(alone["readings"]["transcribed"]["per_query"]["ndcg@10"])
    for content in (*searched(run, PRIMARY), alone):
        fused = content["readings"]["fused"]["per_query"]
        fused["ndcg@10"] = np.where(single < 0.5, 1.0, single).tolist() if ahead else single.tolist()
    best = run.find().best_reading
    assert best.best.reading == ("fused" if ahead else "transcribed")
    assert (best.fused_over_single.value > 0) == ahead


def test_only_vectors_have_no_choice():
    found = Sweep(controls=False, readings=False).find()
    assert found.readings == () and found.best_reading is None


def test_slope_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    quality, scores = np.array([-2.0, 0.5, 1.0, 2.0]), rng.random((4, 2, 50))
    how = Bootstrap(resamples=500, confidence=0.95, seed=0)
    found = slope(quality, scores, how)
    assert found.value == pytest.approx(np.polyfit(quality, scores.mean(axis=(1, 2)), 1)[0])
    assert found.low < found.value < found.high
    assert slope(np.ones(4), scores, how).value == 0
