"""The test bench of the verdict: simulated runs whose truth is known."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from stages.evaluate.score import METRICS as MEASURED
from stages.law.evidence import METRICS, EvidenceError
from stages.law.statistics import Bootstrap, paired_difference
from stages.law.verdict import judge
from tests.unit.stages.law.conftest import LAW, from_ranks, read_run, scores_json

RISING, FLAT = (0.5, 0.9, 1.2, 1.6), (1.0, 1.0, 1.0, 1.0)


def verdict_of(run, law=LAW):
    return judge(read_run(run), law)


def test_law_holds(simulate):
    found = verdict_of(simulate(strengths=RISING))
    assert found.verdict == "supported"
    assert all(check.passed for check in found.checks)
    assert found.decision.startswith("More generative pretraining will probably help")
    assert found.comparisons.paired.low > 0.02 and found.comparisons.spearman.value == 1.0
    assert found.comparisons.trend_p == pytest.approx(1 / 24)


def test_gain_that_levels_off_is_not_more_of_the_same(simulate):
    found = verdict_of(simulate(strengths=(0.4, 1.3, 1.45, 1.45), queries=6000))
    assert found.verdict == "supported"
    assert "helped" in found.decision and "more will not" in found.decision


def test_flat_with_plenty_of_data_is_not_supported(simulate):
    found = verdict_of(simulate(strengths=FLAT, queries=6000))
    assert found.verdict == "not supported"
    assert found.decision.startswith("More generative pretraining will not help")
    assert found.comparisons.paired.high < LAW.minimum_effect


def test_retrieval_that_falls_is_not_supported(simulate):
    found = verdict_of(simulate(strengths=RISING[::-1]))
    assert found.verdict == "not supported"
    assert any("fell" in reason for reason in found.reasons)
    assert found.decision.startswith("Generative pretraining harms")


def test_a_small_gain_in_little_data_is_inconclusive_and_says_how_much_is_needed(simulate):
    found = verdict_of(simulate(strengths=(1.0, 1.0, 1.0, 1.08), queries=110))
    assert found.verdict == "inconclusive"
    assert "test documents" in found.decision and "would settle it" in found.decision


@pytest.mark.parametrize("rng", range(12))
def test_noise_alone_is_never_supported(simulate, rng):
    noise = np.random.default_rng(rng).normal(1.0, 0.02, 4)
    assert verdict_of(simulate(strengths=noise, rng=rng, queries=200)).verdict != "supported"


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"queries": 40}, "100 or more queries (there are 40)"),
        ({"seeds": (0,)}, "2 or more seeds (there are 1)"),
        ({"doses": (0, 9), "strengths": (0.5, 1.6), "losses": (4.0, 0.2)}, "4 or more doses (there are 2)"),
        ({"doses": (0,), "strengths": (0.5,), "losses": (4.0,)}, "4 or more doses (there are 1)"),
    ],
)
def test_too_little_evidence_is_inconclusive_however_large_the_gain(simulate, changes, missing):
    found = verdict_of(simulate(**({"strengths": RISING} | changes)))
    assert found.verdict == "inconclusive"
    assert missing in found.decision


def test_without_better_generation_the_law_is_not_tested(simulate):
    found = verdict_of(simulate(strengths=FLAT, losses=(0.5, 0.48, 0.45, 0.44), queries=3000))
    assert found.verdict == "inconclusive"
    assert "did not improve reading enough" in found.decision


def test_a_jump_without_order_is_inconclusive(simulate):
    found = verdict_of(simulate(strengths=(0.5, 1.8, 0.4, 0.9)))
    assert found.verdict == "inconclusive"
    assert found.comparisons.paired.low > LAW.minimum_effect


def test_thresholds_decide(simulate):
    run = simulate(strengths=RISING)
    assert verdict_of(run, replace(LAW, minimum_effect=0.9)).verdict == "not supported"
    assert verdict_of(run, replace(LAW, minimum_generative_gain=100.0)).verdict == "inconclusive"
    assert verdict_of(run, replace(LAW, minimum_times_random=90.0)).verdict == "inconclusive"


def test_cl_that_destroys_what_pretraining_built_is_named_as_the_limit(simulate):
    run = simulate(strengths=FLAT, queries=6000)
    run.strengths = dict(zip(run.doses, (0.8, 1.4, 1.8, 2.2), strict=True))
    run.retrieval[:4] = [run.retrieval_cell(dose, None, None) for dose in run.doses]
    run.retrieval = [cell for cell in run.retrieval if cell["arm"] != "multimodal-20"]
    found = verdict_of(run)
    assert found.verdict == "not supported"
    assert "Contrastive learning is the limit" in found.decision
    assert any("CL costs" in note for note in found.notes)


def test_better_arm_is_named_as_the_limit(simulate):
    found = verdict_of(simulate(strengths=FLAT, queries=6000))
    assert "multimodal-20 CL beats text-only CL" in found.decision


def test_forgetting_and_overfitting_are_noted(simulate):
    run = simulate(strengths=RISING, losses=(4.0, 0.9, 0.2, 0.3))
    notes = verdict_of(run).notes
    assert any("Dose 900 reads best" in note for note in notes)
    assert any("Forgetting" in note for note in verdict_of(run, replace(LAW, maximum_forgetting=1.1)).notes)


def test_json_is_complete_and_reproducible(simulate):
    run = simulate(strengths=RISING)
    first, second = (json.dumps(verdict_of(run).to_json(), allow_nan=False) for _ in range(2))
    assert first == second
    content = json.loads(first)
    assert content["paired"].keys() >= {"difference", "low", "high"}
    assert [row["dose"] for row in content["table"]] == [0, 300, 900, 2400]
    assert content["table"][0]["retrieval"]["before CL"]["ndcg@10"].keys() == {"value", "low", "high"}
    assert content["thresholds"]["minimum_effect"] == LAW.minimum_effect


def test_a_step_down_is_told(simulate):
    found = verdict_of(simulate(strengths=(0.5, 1.2, 1.1, 1.6), queries=2000))
    assert found.verdict == "supported" and found.comparisons.steps_up == 2
    assert any("2 of 3 steps up" in reason for reason in found.reasons)


@pytest.mark.parametrize("text_gain", [0.0, 0.3])
def test_the_text_control_says_what_its_intervals_say(simulate, text_gain):
    run = simulate(strengths=RISING)
    for cell in run.retrieval:
        top = cell["dose"] == 2400
        cell["directions"]["query_to_text"] = scores_json(from_ranks(run.ranks(1.0 + text_gain * top)))
    found = verdict_of(run)
    control, beyond = found.comparisons.text_control, found.comparisons.beyond_text
    [note] = [note for note in found.notes if note.startswith("Control")]
    assert ("improved too" in note) == (control.low > 0)
    assert ("may have improved or become worse" in note) == (control.low <= 0 <= control.high)
    assert ("images gained more" in note) == (beyond.low > 0)


def test_metrics_have_the_same_names_in_the_stages_that_may_not_import_each_other():
    assert METRICS == MEASURED


def test_order_of_cells_does_not_matter(simulate):
    run = simulate(strengths=RISING)
    straight = verdict_of(run).to_json()
    run.retrieval.reverse()
    run.generation.reverse()
    assert verdict_of(run).to_json() == straight


def changed(run, **cells):
    """The run with other cells."""
    return SimpleNamespace(**({"generation": run.generation, "retrieval": run.retrieval} | cells))


def test_evidence_that_does_not_belong_together_is_refused(simulate):
    run = simulate(strengths=RISING)
    with pytest.raises(EvidenceError, match="and 0"):
        read_run(changed(run, generation=run.generation[1:]))
    with pytest.raises(EvidenceError, match=r"doses \[2400\]"):
        read_run(changed(run, generation=run.generation[:-1]))
    with pytest.raises(EvidenceError, match="run the same seeds"):
        read_run(changed(run, retrieval=run.retrieval[:-1]))
    with pytest.raises(EvidenceError, match="other queries or pages"):
        read_run(changed(run, retrieval=[*run.retrieval[:-1], run.retrieval[-1] | {"corpus_size": 7}]))
    with pytest.raises(EvidenceError, match="no retrieval"):
        read_run(changed(run, retrieval=[]))
    partial = [cell for cell in run.retrieval if cell["arm"] != "text-only" or cell["dose"] != 300]
    with pytest.raises(EvidenceError, match=r"no retrieval at doses \[300\]"):
        verdict_of(changed(run, retrieval=partial))


@pytest.mark.parametrize("corpus", ["target", "base"])
def test_doses_that_read_other_texts_are_refused(simulate, corpus):
    run = simulate(strengths=RISING)
    blocks = run.generation[2]["corpora"][corpus]["per_block"]
    blocks[0], blocks[1] = blocks[1], blocks[0]  # as many as elsewhere, paired with the wrong ones
    with pytest.raises(
        EvidenceError, match=f"dose 900 was measured on other {corpus} samples than at dose 0"
    ):
        read_run(run)


def test_other_arm_may_stop_short(simulate):
    run = simulate(strengths=RISING)
    run.retrieval = [cell for cell in run.retrieval if cell["arm"] != "multimodal-20" or cell["dose"] == 0]
    found = verdict_of(run)
    assert found.verdict == "supported" and found.comparisons.arms == {}
    assert "multimodal-20" not in found.table[-1]["retrieval"]


def test_an_arm_is_compared_on_the_same_seeds_alone(simulate):
    run = simulate(strengths=RISING)
    assert verdict_of(run).comparisons.arms.keys() == {"multimodal-20"}
    for cell in run.retrieval:
        if cell["arm"] == "multimodal-20":
            cell["seed"] += 5  # as many, but no pairs
    assert verdict_of(run).comparisons.arms == {}


def in_documents(run, count):
    """The run with its queries from so many documents, all of one size."""
    for cell in run.retrieval:
        cell["query_documents"] = [f"{i % count}.pdf" for i in range(run.queries)]
    return run


@pytest.mark.parametrize("count", [1, 4])
def test_few_documents_decide_nothing_however_large_the_gain(simulate, count):
    found = verdict_of(in_documents(simulate(strengths=RISING), count))
    assert found.comparisons.paired.high - found.comparisons.paired.low > 0.01  # queries are resampled
    assert found.verdict == "inconclusive"
    assert [check.name for check in found.checks if not check.passed] == ["test documents"]
    assert f"5 or more test documents (there are {count})" in found.decision and "Add" in found.decision
    assert any("resampled one by one" in note for note in found.notes)


def test_from_five_documents_on_they_are_what_is_resampled(simulate):
    run = in_documents(simulate(strengths=RISING), 5)
    evidence, found = read_run(run), verdict_of(run)
    assert found.verdict == "supported" and evidence.query_documents == 5
    expected = paired_difference(
        evidence.scores(2400, "text-only"),
        evidence.scores(0, "text-only"),
        Bootstrap(resamples=LAW.bootstrap_resamples),
        np.arange(run.queries) % 5,
    )
    assert found.comparisons.paired == expected
    assert not any("resampled one by one" in note for note in found.notes)
