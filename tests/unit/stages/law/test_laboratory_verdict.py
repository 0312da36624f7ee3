"""The verdict of a sweep: every control can refute, and what stands beside it is told."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from stages.law.verdict import judge
from stages.law.words import thresholds_in_words
from tests.unit.stages.law.conftest import LAW, STEPS, from_ranks, read_run, scores_json
from tests.unit.stages.law.simulated_sweep import Sweep, read_sweep

RISING = (0.5, 0.9, 1.2, 1.6)


def verdict_of(sweep, law=LAW):
    return judge(read_run(sweep), law, read_sweep(sweep))


def failed(found):
    return {check.name for check in found.checks if not check.passed}


@pytest.fixture(scope="module")
def supported():
    sweep = Sweep(strengths=RISING)
    return sweep, verdict_of(sweep)


def test_law_holds_and_every_control_is_beaten(supported):
    _, found = supported
    assert found.verdict == "supported" and failed(found) == set()
    assert {"shuffled", "unrelated", "compute", "grounding"} < {check.name for check in found.checks}
    assert found.laboratory.explained_by == ()
    assert any("own pages are ahead of it" in reason for reason in found.reasons)


@pytest.mark.parametrize("control", ["shuffled", "unrelated"])
def test_a_control_that_explains_the_gain_refutes(control):
    found = verdict_of(Sweep(strengths=RISING, **{control: 1.75}))
    assert found.verdict == "not supported"
    assert failed(found) == {control} and found.laboratory.explained_by == (control,)
    assert found.decision.startswith("More generative pretraining on these pages will not help, because")
    assert any("It explains the gain." in reason for reason in found.reasons)


def test_equal_compute_that_reaches_as_far_leaves_it_open():
    found = verdict_of(Sweep(strengths=RISING, equal=1.6))
    assert found.verdict == "inconclusive" and failed(found) == {"compute"}
    assert "Do they do more than the same compute" in found.decision


def test_text_that_gains_as_much_leaves_it_open():
    sweep = Sweep(strengths=RISING)
    for cell in sweep.retrieval:
        strength = sweep.strengths.get(cell["dose"])
        cell["directions"]["query_to_text"] = scores_json(from_ranks(sweep.ranks(strength)))
    found = verdict_of(sweep)
    assert found.verdict == "inconclusive" and failed(found) == {"grounding"}


def test_a_control_that_explains_most_of_the_gain_is_not_beaten_by_being_behind():
    found = verdict_of(
        Sweep(strengths=RISING, shuffled=1.35), replace(LAW, maximum_explained_by_shuffled=0.3)
    )
    ahead = found.laboratory.controls.at_top("shuffled")
    assert ahead.low > LAW.minimum_effect  # clearly behind the own pages, and yet
    assert found.verdict == "inconclusive" and failed(found) == {"shuffled"}
    assert found.laboratory.controls.unexplained["shuffled"].low < 0


def test_differences_are_paired_by_query_and_seed(supported):
    sweep, found = supported
    own, shuffled = (
        np.array(
            [
                cell["directions"]["query_to_image"]["per_query"]["ndcg@10"]
                for cell in sweep.retrieval
                if (cell["pages"], cell["dose"], cell["arm"], cell["steps"], cell["split"])
                == (pages, 2400, "text-only", STEPS, "test")
            ]
        )
        for pages in ("target", "shuffled")
    )
    controls = found.laboratory.controls
    assert controls.at_top("shuffled").value == pytest.approx((own - shuffled).mean())
    gain, reproduced = found.comparisons.paired.value, controls.gains["shuffled"].value
    assert controls.unexplained["shuffled"].value == pytest.approx(0.5 * gain - reproduced)
    assert controls.unexplained["grounding"].value == pytest.approx(
        0.75 * gain - found.comparisons.text_control.value
    )
    assert controls.against["shuffled"].keys() == {900, 2400}


def test_what_stands_beside_the_verdict_is_told(supported):
    _, found = supported
    notes = " ".join(found.notes)
    assert "Bound, page texts among 16 images: the guarantee" in notes
    assert "Bound, queries among 16 images" in notes
    assert "of 4 doses" in notes and "Spearman correlation of 1.00" in notes
    assert "The ceiling rises over the doses" in notes
    assert "3 lower doses, a line of nDCG@10" in notes
    assert "No controls were run" not in notes


def test_ceilings_that_still_rise_are_named():
    sweep = Sweep(strengths=RISING)
    for cell in sweep.retrieval:
        if cell["arm"] == "lr 0.003" and cell["split"] == "test" and cell["dose"] == 300:
            ranks = sweep.ranks(0.9 + cell["steps"] / 50)
            cell["directions"]["query_to_image"] = scores_json(from_ranks(ranks))
    found = verdict_of(sweep)
    [ceiling] = [one for one in found.laboratory.ceilings if not one.determined]
    assert ceiling.dose == 300 and ceiling.height == ceiling.best == ceiling.curve[60]
    [note] = [note for note in found.notes if note.startswith("The CL budgets do not determine")]
    assert "dose 300: may still rise after 60 steps" in note and "dose 900" not in note
    assert any("3 of 4 are fitted plateaus" in note for note in found.notes)


def test_linear_maps_are_not_called_cl(supported):
    sweep, _ = supported
    best = next(c for c in sweep.retrieval if c["dose"] == 2400 and c["arm"] == "multimodal-20")
    mapped = best | {"arm": "whitening", "seed": 0, "steps": None}
    cells = SimpleNamespace(generation=sweep.generation, retrieval=[*sweep.retrieval, mapped])
    found = judge(read_run(cells), LAW)
    assert any("whitening without CL differs from text-only CL" in note for note in found.notes)


def test_without_a_laboratory_the_report_says_so(supported):
    sweep, _ = supported
    found = judge(read_run(sweep), LAW)
    assert found.laboratory is None and "laboratory" not in found.to_json()
    assert any("No controls were run" in note for note in found.notes)
    assert not {"shuffled", "compute"} & {check.name for check in found.checks}


def test_json_holds_every_number_with_its_interval(supported):
    _, found = supported
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))["laboratory"]
    assert content["controls"]["against"]["shuffled"]["2400"].keys() == {"value", "low", "high"}
    assert content["controls"]["unexplained"].keys() == {"shuffled", "unrelated", "compute", "grounding"}
    assert len(content["bounds"]) == 10 and content["bounds"][0]["ceiling"].keys() >= {"value", "low", "high"}
    assert [row["dose"] for row in content["ceilings"]] == [0, 300, 900, 2400]
    assert content["ceilings"][0]["curve"]["30"].keys() == {"value", "low", "high"}
    assert found.to_json()["prediction"]["lower_doses"] == 3


def test_the_order_of_cells_does_not_matter(supported):
    sweep, found = supported
    for cells in sweep.cells.values():
        cells.reverse()
    assert verdict_of(sweep).to_json() == found.to_json()
    for cells in sweep.cells.values():
        cells.reverse()


def test_thresholds_are_told_with_their_numbers():
    told = " ".join(thresholds_in_words(replace(LAW, minimum_effect=0.07, maximum_explained=0.4)))
    assert told.count("0.07") == 3 and "40%" in told and "text-only" in told
