"""Which cell of a sweep goes where, and what is refused."""

import numpy as np
import pytest

from stages.law.cells import EvidenceError
from tests.unit.stages.law.conftest import STEPS, read_run
from tests.unit.stages.law.simulated_sweep import BUDGETS, CANDIDATES, Sweep
from tests.unit.stages.law.simulated_sweep import read_sweep as read


@pytest.fixture
def sweep():
    return Sweep(strengths=(0.5, 0.9, 1.2, 1.6), queries=120)


def ndcg(sweep, direction="query_to_image", *, split="test", **place):
    """Scores of the cells of a place ``[seeds, queries]``, found the slow way."""
    found = [c for c in sweep.retrieval if c["split"] == split and all(c[n] == v for n, v in place.items())]
    found.sort(key=lambda cell: cell["seed"])
    return np.array([cell["directions"][direction]["per_query"]["ndcg@10"] for cell in found])


def test_controls_and_equal_compute(sweep):
    found = read(sweep)
    assert {name: list(doses) for name, doses in found.controls.items()} == {
        "shuffled": [900, 2400],
        "unrelated": [900, 2400],
    }
    for direction in ("query_to_image", "query_to_text"):
        expected = ndcg(sweep, direction, pages="shuffled", dose=2400)
        np.testing.assert_array_equal(found.controls["shuffled"][2400][direction], expected)
        expected = ndcg(sweep, direction, arm="equal compute")
        np.testing.assert_array_equal(found.equal_compute[direction], expected)
    assert found.equal_compute_steps == 400


def test_critics_carry_the_losses_of_both(sweep):
    found = read(sweep)
    assert set(found.critics) == {("target", dose) for dose in sweep.doses} | {("shuffled", 2400)}
    cell, reading = sweep.critic[1], found.critics["target", 300]
    embeddings = [
        c["contrastive"]
        for c in sweep.retrieval
        if (c["dose"], c["arm"], c["steps"], c["pages"], c["split"])
        == (300, "text-only", STEPS, "target", "test")
    ]
    bound = reading.bounds["query"]
    np.testing.assert_array_equal(bound.generative, cell["query"]["losses"])
    np.testing.assert_array_equal(bound.contrastive, [e["query"]["losses"] for e in embeddings])
    assert bound.slack == 0.02 and bound.contrastive.shape == (2, CANDIDATES)
    assert bound.by_size[8] == pytest.approx(
        (np.mean(cell["query"]["losses"][:8]), np.mean([e["query"]["losses"][:8] for e in embeddings]))
    )
    np.testing.assert_allclose(reading.nats_saved, 30 / (1 + sweep.losses[1]))
    np.testing.assert_array_equal(reading.bytes, [20] * CANDIDATES)
    assert reading.embedding_retrieval["text"].shape == (2, CANDIDATES)


def test_ceilings_take_the_learning_rate_of_the_validation_documents(sweep):
    for dose, curve in read(sweep).ceilings.items():
        means = {
            rate: max(ndcg(sweep, split="validation", dose=dose, arm=arm, steps=s).mean() for s in BUDGETS)
            for rate, arm in ((1e-3, "text-only"), (3e-3, "lr 0.003"))
        }
        assert curve.validation == pytest.approx(means)
        assert curve.learning_rate == max(means, key=means.get)
        if curve.learning_rate == 3e-3:
            assert list(curve.scores) == list(BUDGETS)
            np.testing.assert_array_equal(curve.scores[10], ndcg(sweep, dose=dose, arm="lr 0.003", steps=10))


def test_adapters_by_size(sweep):
    found = read(sweep).adapters
    assert [(one.rank, one.alpha) for one in found] == [(4, 1), (16, 4), (64, 16)]
    assert found[1].name == "text-only"
    np.testing.assert_array_equal(found[2].scores, ndcg(sweep, arm="rank 64, alpha 16"))
    # The others have the first seed alone; so has the primary one, where there are more.
    primary = ndcg(sweep, dose=2400, arm="text-only", pages="target", steps=STEPS)
    assert len(primary) == 2
    np.testing.assert_array_equal(found[1].scores, primary[:1])
    assert found[0].nats_after == found[0].nats_before and found[0].weight_change == 1.5


def test_other_test_sets_keep_their_own_queries(sweep):
    [found] = read(sweep).other_tests
    assert found.name == "Khmer" and list(found.scores) == [0, 2400] and found.queries == 120
    np.testing.assert_array_equal(found.scores[2400], ndcg(sweep, split="Khmer", dose=2400))
    np.testing.assert_array_equal(found.documents, [f"document-{i // 4}" for i in range(120)])


def test_another_test_set_of_few_documents_is_not_resampled_by_document(sweep):
    for cell in sweep.retrieval:
        if cell["split"] == "Khmer":
            cell["query_documents"] = [f"{i % 4}.pdf" for i in range(120)]
    assert read(sweep).other_tests[0].documents is None


def test_evidence_takes_the_law_s_own_cells_alone(sweep):
    found = read_run(sweep)
    assert found.arms == ("text-only", "multimodal-20")
    expected = ndcg(sweep, dose=2400, arm="text-only", pages="target", steps=STEPS)
    np.testing.assert_array_equal(found.scores(2400, "text-only"), expected)
    assert set(found.cells) == {(d, a) for d in sweep.doses for a in ("before CL", *found.arms)}


def test_an_arm_of_some_doses_is_welcome_in_evidence(sweep):
    whitened = [c | {"arm": "whitening", "seed": 0, "steps": None} for c in sweep.retrieval[:1]]
    sweep.retrieval += whitened
    found = read_run(sweep)
    assert "whitening" in found.arms and found.scores(300, "whitening") is None


def without(cells, **place):
    return [cell for cell in cells if not all(cell.get(name) == value for name, value in place.items())]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"pages": "shuffled", "dose": 2400}, "CGP on shuffled pages at dose 2400; run this control"),
        ({"arm": "equal compute"}, r"'equal compute' CL at dose 0 has \[\] steps"),
        (
            {"pages": "unrelated", "dose": 900, "seed": 1},
            r"unrelated pages, seed 0, text-only.* seeds \(0,\)",
        ),
        ({"split": "validation", "dose": 300}, "dose 300 has no retrieval on validation documents"),
        ({"arm": "rank 4, alpha 1"}, "rank 4, alpha 1 CL at dose 2400, seed 0: needs training, retrieval"),
        ({"arm": "lr 0.003", "split": "test", "dose": 0}, "learning rate 0.003: no retrieval on the test"),
        (
            {"arm": "lr 0.003", "steps": 10, "seed": 1},
            r"seed 0, lr 0.003, 10 steps has seeds \(0,\), the law's",
        ),
    ],
)
def test_a_missing_part_is_named(sweep, place, message):
    sweep.retrieval = without(sweep.retrieval, **place)
    with pytest.raises(EvidenceError, match=message):
        read(sweep)


def test_a_control_on_other_queries_or_candidates_is_refused(sweep):
    kept = sweep.critic[0]["keys"]
    sweep.critic[0]["keys"] = [*kept[:-1], "another"]  # as many, but not the same
    with pytest.raises(EvidenceError, match=r"the critic at dose 0, target pages .* other"):
        read(sweep)
    sweep.critic[0]["keys"] = kept
    control = next(cell for cell in sweep.retrieval if cell["pages"] == "shuffled")
    control["query_ids"] = ["another"]
    with pytest.raises(EvidenceError, match="other queries or pages"):
        read(sweep)
