"""The two readings of the bound, against hand computations."""

import numpy as np
import pytest

from stages.law.bound import BROKEN, HELD, OPEN, generative_order, held_or_not, read_bounds
from stages.law.laboratory import Bound, CriticReading
from stages.law.statistics import Bootstrap, Estimate
from tests.unit.stages.law.conftest import read_run
from tests.unit.stages.law.simulated_sweep import Sweep, read_sweep

HOW = Bootstrap(resamples=500)


class Critics:
    """As much of a `Laboratory` as bounds are read from."""

    def __init__(self, generative, contrastive, slack=0.0, pages="target"):
        bound = Bound(generative=generative, contrastive=contrastive, slack=slack, by_size={})
        scores = np.linspace(0, 1, len(generative))
        self.critics = {
            (pages, 100): CriticReading(
                bounds={"query": bound},
                nats_saved=scores,
                bytes=np.ones(len(generative)),
                retrieval={"query": scores},
                embedding_retrieval={"query": np.stack([scores, scores]) / 2},
            )
        }


def test_numbers_are_means_and_paired_differences():
    rng = np.random.default_rng(0)
    generative, contrastive = rng.random(40), rng.random((2, 40)) + 0.5
    [found] = read_bounds(Critics(generative, contrastive, slack=0.1), HOW)
    assert (found.pages, found.dose, found.kind, found.candidates) == ("target", 100, "query", 40)
    assert found.generative.value == pytest.approx(generative.mean())
    assert found.contrastive.value == pytest.approx(contrastive.mean())
    assert found.ceiling.value == pytest.approx(contrastive.mean() - generative.mean())
    assert found.guarantee.value == pytest.approx(generative.mean() + 0.1 - contrastive.mean())
    assert found.critic_ndcg.value == 0.5 and found.embedding_ndcg.value == 0.25


def test_pairing_removes_what_candidates_share():
    hard = np.random.default_rng(0).random(40) * 5
    [found] = read_bounds(Critics(hard, np.stack([hard, hard]) + 0.3), HOW)
    assert found.ceiling.low == pytest.approx(0.3) and found.ceiling.high == pytest.approx(0.3)


@pytest.mark.parametrize(("shift", "guarantee", "ceiling"), [(1.0, BROKEN, HELD), (-1.0, HELD, BROKEN)])
def test_readings_in_words(shift, guarantee, ceiling):
    generative = np.random.default_rng(0).random(40) + 2
    [found] = read_bounds(Critics(generative, np.stack([generative, generative]) + shift), HOW)
    assert (held_or_not(found.guarantee), held_or_not(found.ceiling)) == (guarantee, ceiling)
    assert held_or_not(Estimate(value=0.1, low=-0.1, high=0.3)) == OPEN


def test_discrimination_is_ordered_with_retrieval():
    sweep = Sweep(strengths=(0.5, 0.9, 1.2, 1.6))
    laboratory, evidence = read_sweep(sweep), read_run(sweep)
    order = generative_order(evidence, laboratory, "text-only", HOW)
    assert order.keys() == {"text", "query"} and order["text"].value == 1.0
    sure = laboratory.critics["target", 2400].bounds["text"].generative
    sure *= 1e-6
    assert generative_order(evidence, laboratory, "text-only", HOW).keys() == {"text", "query"}
    laboratory.critics["target", 900].bounds["text"].generative[:] = sure  # which of two sure ones is surer?
    assert generative_order(evidence, laboratory, "text-only", HOW).keys() == {"query"}
    del laboratory.critics["target", 300], laboratory.critics["target", 900]
    assert generative_order(evidence, laboratory, "text-only", HOW) == {}
