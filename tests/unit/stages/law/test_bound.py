"""The two readings of the bound, against hand computations."""

import numpy as np
import pytest

from stages.cells import Cell
from stages.law.bound import BROKEN, HELD, OPEN, generative_order, held_or_not, read_bounds
from stages.law.measurements import Measurements, tidy
from stages.law.simulated_sweeps import PRIMARY, STEPS
from stages.law.statistics import Bootstrap, Estimate
from tests.unit.stages.law.sweeps import Sweep

HOW = Bootstrap(resamples=500)


def bounds_of(generative, contrastive, slack=0.0):
    """The bounds of one checkpoint, the same losses for texts and for queries."""
    ndcg = np.linspace(0, 1, len(generative))
    entries = []
    for kind in ("text", "query"):
        critic = {"loss": generative, "slack": slack, "ndcg@10": ndcg}
        entries += [("critic", Cell(), f"critic {kind}", name, values) for name, values in critic.items()]
        for seed, losses in enumerate(contrastive):
            cell = Cell(arm=PRIMARY, seed=seed, steps=STEPS, split="test")
            found = {(f"contrastive {kind}", "loss"): losses, (f"contrastive {kind}", "ndcg@10"): ndcg / 2}
            found["query_to_image", "ndcg@10"] = ndcg
            entries += [("retrieval", cell, *names, values) for names, values in found.items()]
    found = {"table": tidy(entries), "contents": {(stage, cell): {} for stage, cell, *_ in entries}}
    return read_bounds(Measurements(searched={}, primary_arm=PRIMARY.name, steps=STEPS, **found), HOW)


def test_numbers_are_means_and_paired_differences():
    rng = np.random.default_rng(0)
    generative, contrastive = rng.random(40), rng.random((2, 40)) + 0.5
    text, found = bounds_of(generative, contrastive, slack=0.1)
    assert (text.kind, found.kind) == ("text", "query")
    assert (found.pages, found.dose, found.candidates) == ("target", 0, 40)
    assert found.generative.value == pytest.approx(generative.mean())
    assert found.contrastive.value == pytest.approx(contrastive.mean())
    assert found.ceiling.value == pytest.approx(contrastive.mean() - generative.mean())
    assert found.guarantee.value == pytest.approx(generative.mean() + 0.1 - contrastive.mean())
    assert found.critic_ndcg.value == 0.5 and found.embedding_ndcg.value == 0.25


def test_pairing_removes_what_candidates_share():
    hard = np.random.default_rng(0).random(40) * 5
    _, found = bounds_of(hard, np.stack([hard, hard]) + 0.3)
    assert found.ceiling.low == pytest.approx(0.3) and found.ceiling.high == pytest.approx(0.3)


@pytest.mark.parametrize(("shift", "guarantee", "ceiling"), [(1.0, BROKEN, HELD), (-1.0, HELD, BROKEN)])
def test_readings_in_words(shift, guarantee, ceiling):
    generative = np.random.default_rng(0).random(40) + 2
    _, found = bounds_of(generative, np.stack([generative, generative]) + shift)
    assert (held_or_not(found.guarantee), held_or_not(found.ceiling)) == (guarantee, ceiling)
    assert held_or_not(Estimate(value=0.1, low=-0.1, high=0.3)) == OPEN


def test_discrimination_is_ordered_with_retrieval():
    sweep = Sweep()
    assert [one.dose for one in read_bounds(sweep.read(), HOW)[::2]] == [0, 300, 900, 2400, 2400]
    order = generative_order(sweep.read(), HOW)
    assert order.keys() == {"text", "query"} and order["text"].value == 1.0
    sure = [1e-6] * 16
    sweep.contents["critic", Cell(dose=2400)]["text"]["losses"] = sure
    assert generative_order(sweep.read(), HOW).keys() == {"text", "query"}
    sweep.contents["critic", Cell(dose=900)]["text"]["losses"] = sure  # which of two sure ones is surer?
    assert generative_order(sweep.read(), HOW).keys() == {"query"}
    sweep.drop("critic", dose=300).drop("critic", dose=900)
    assert generative_order(sweep.read(), HOW) == {}
