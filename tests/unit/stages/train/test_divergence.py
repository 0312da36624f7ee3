"""Which trainings may go on with skipped steps; and that nothing that is not finite passes for a result."""

import copy
import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_prep.queries import read_queries
from data_prep.shards import ShardSource
from stages.evaluate.generation import teacher_forced
from stages.recipes import get_recipe
from stages.refine import gradcache
from stages.refine.config import MiningConfig, MiningSettings
from stages.refine.loop import begin, refine_steps
from stages.refine.mining import mine
from stages.refine.pairs import TrainSplit
from stages.train.config import EngineConfig
from stages.train.divergence import DivergenceError, divergence, streak_begins
from stages.train.engine import Optimization, build_engine, gathered, step_engine
from stages.train.ledger import losses, measured, steps_jsonl
from tests.unit.stages.train.test_ledger import STEP

CONFIG = dataclasses.replace(
    get_recipe("tiny").refine, steps=3, batch_size=6, lora_rank=4, lora_alpha=8, learning_rate=1e-2
)


def ledger(skipped: list[bool]):
    return [
        dataclasses.replace(STEP, number=number, loss=None if bad else 1.0, skipped="loss" if bad else None)
        for number, bad in enumerate(skipped, start=1)
    ]


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.booleans())
def test_more_than_three_of_a_hundred_or_half_at_a_milestone_are_too_many(skipped, at_milestone):
    reason = divergence(ledger(skipped), at_milestone=at_milestone)
    too_many = sum(skipped[-100:]) > 3 or (at_milestone and sum(skipped) >= len(skipped) / 2)
    assert (reason is not None) == too_many
    assert reason is None or "\n" not in reason


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_a_streak_begins_with_the_first_skipped_step_of_the_last_hundred(skipped):
    recent = [number for number, bad in enumerate(skipped, start=1) if bad][-100:]
    recent = [number for number in recent if number > len(skipped) - 100]
    assert streak_begins(ledger(skipped)) == (recent[0] if recent else len(skipped) + 1)


def test_means_leave_skipped_steps_out_and_what_is_committed_is_json():
    steps = ledger([False, True, False, True])
    steps[2] = dataclasses.replace(steps[2], loss=4.0)
    steps[3] = dataclasses.replace(steps[3], skipped="gradient", loss=1e9)
    assert losses(steps) == {"loss_a": 2.5}
    assert losses(steps[1:2]) == {}
    rates = measured(steps[1:2], CONFIG.engine)
    assert all(map(math.isfinite, rates.values())) and "loss/a" not in rates
    for line in steps_jsonl(steps).splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.fixture
def split(split_folder, queries_folder) -> TrainSplit:
    return TrainSplit(source=ShardSource(split_folder), queries=read_queries(queries_folder))


def refined(backbone, split, *, milestones):
    root = begin(copy.deepcopy(backbone), CONFIG, seed=0)
    return list(refine_steps(root, split, CONFIG, seed=0, milestones=milestones))


@pytest.mark.parametrize(("bad", "milestones", "passes"), [({1}, {2}, False), ({1}, {3}, True)])
def test_a_milestone_of_half_skipped_steps_is_none(
    process_group, backbone, split, monkeypatch, bad, milestones, passes
):
    step, made = gradcache.step_engine, []

    def broken(engine, one, count):
        made.append(None)
        return step(engine, [loss * (math.nan if len(made) in bad else 1) for loss in one], count)

    monkeypatch.setattr(gradcache, "step_engine", broken)
    if passes:
        steps = refined(backbone, split, milestones=milestones)
        assert [one.number for one in steps if one.skipped] == sorted(bad)
        return
    with pytest.raises(DivergenceError, match=r"1 of its last 2 steps .* 1 \(loss\)"):
        refined(backbone, split, milestones=milestones)


def test_a_last_step_that_breaks_the_weights_commits_nothing(process_group, backbone, split, monkeypatch):
    """No loss has seen them yet."""
    step = gradcache.step_engine

    def breaking(engine, *arguments):
        found = step(engine, *arguments)
        with torch.no_grad():
            next(one for one in engine.module.parameters() if one.requires_grad)[0, 0] = math.inf
        return found

    monkeypatch.setattr(gradcache, "step_engine", breaking)
    with pytest.raises(DivergenceError, match="after step 1: weights are not finite"):
        refined(backbone, split, milestones={1})


@pytest.mark.parametrize("zero_stage", range(4))
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
def test_the_step_after_a_skipped_one_is_what_it_would_have_been(process_group, zero_stage, precision, kind):
    config = EngineConfig(zero_stage=zero_stage, precision=precision)
    optimization = Optimization(
        learning_rate=0.1, schedule=lambda step: 1.0, weight_decay=0.1, max_gradient_norm=1.0
    )

    def weights(*kinds: str) -> torch.Tensor:
        torch.manual_seed(0)
        root = torch.nn.Linear(8, 8)
        engine = build_engine(root, config, optimization)
        inputs = torch.ones(2, 8).to(root.weight.dtype)
        for one in kinds:
            loss = engine(inputs).float().square().sum()
            if one == "gradient":
                loss = loss + (0 * loss).sqrt()
            elif one:
                loss = loss + float(one)
            mean, made = step_engine(engine, [loss], 1)
            assert made == (not one)
            assert math.isfinite(mean) == (one in ("", "gradient"))
        with gathered(root):
            return torch.cat([parameter.detach().flatten() for parameter in root.parameters()])

    assert torch.equal(weights("", kind, "", kind), weights("", ""))
    assert not torch.equal(weights(""), weights("", ""))


@pytest.fixture
def broken_backbone(backbone):
    with torch.no_grad():
        next(backbone.family.decoder(backbone.model).parameters()).fill_(math.nan)
    return backbone


def test_a_broken_base_model_mines_no_hard_negatives(broken_backbone, split):
    """A comparison with NaN is false: every proposal would be left out, and nobody would know."""
    settings = MiningSettings(
        backbone=get_recipe("tiny").backbone,
        mining=MiningConfig(hard_negatives=1),
        same_document_negatives=True,
        engine=CONFIG.engine,
    )
    with pytest.raises(ValueError, match="embeddings hold NaN or infinity"):
        mine(broken_backbone, split.source, split.queries, settings)


def test_a_broken_model_has_no_generative_quality(broken_backbone, samples):
    with pytest.raises(ValueError, match="log-likelihoods hold NaN or infinity"):
        teacher_forced(broken_backbone, samples, 4)
