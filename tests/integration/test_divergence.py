"""A step without a finite loss and gradient is skipped; a training of which too many are is a failure."""

from itertools import pairwise

import pytest
from safetensors.torch import load_file

from infra.process import ProcessFailed
from pipelines.causes import short_failure
from tests.integration.restarting import STEPS

BROKEN = {1: "nan", 6: "infinity", 11: "gradient"}
MICRO_BATCHES = 90  # token budget of about one row


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ["pretrain", "refine"])
def test_a_training_with_skipped_steps_that_is_killed_ends_with_the_same_bytes(bench, stage):
    whole, killed = bench(stage, "whole"), bench(stage, "killed")
    whole.run(broken=BROKEN)
    skipped = {step["number"]: step["skipped"] for step in whole.steps() if step["skipped"]}
    assert skipped == {1: "loss", 6: "loss", 11: "gradient"}
    assert [step["loss"] is None for step in whole.steps()] == [n in (1, 6) for n in range(1, STEPS + 1)]
    for signal, at in (("term", 1), ("kill", 6), ("kill", 3), ("term", 3)):
        killed.interrupted(signal, at, broken=BROKEN)
    killed.run(broken=BROKEN)
    assert killed.output().manifest.files == whole.output().manifest.files
    facts = whole.output().json("training.json")
    assert facts["skipped_steps"] == 3
    assert all(value == value for value in facts.values())


WAYS = [
    *((zero_stage, 2, "float32", 16_384) for zero_stage in range(4)),
    *((zero_stage, 1, "bfloat16", MICRO_BATCHES) for zero_stage in (2, 1, 3)),
]
# The two trainings share the engine: they take turns at its ways to work.
CASES = [(("pretrain", "refine")[number % 2], *way) for number, way in enumerate(WAYS)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("stage", "zero_stage", "processes", "precision", "text_tokens"), CASES)
def test_a_skipped_step_leaves_weights_and_moments_as_they_were_under_every_zero_stage(
    bench, stage, zero_stage, processes, precision, text_tokens
):
    bench = bench(stage)
    broken = {3: "nan", 5: "infinity", 7: "gradient"}
    bench.run(
        zero_stage=zero_stage,
        processes=processes,
        precision=precision,
        text_tokens=text_tokens,
        checkpoint_steps=1,
        kept=STEPS,
        broken=broken,
    )
    states = [
        load_file(bench.store.path("checkpoint", name) / "state.safetensors")
        for name in bench.store.names("checkpoint")
    ]
    assert len(states) == STEPS
    for number, (before, after) in enumerate(pairwise(states), start=2):
        same = all(after[key].equal(before[key]) for key in after)
        assert same == (number in broken), f"step {number}"
        assert all(tensor.isfinite().all() for tensor in after.values())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ["pretrain", "refine"])
def test_a_training_that_diverges_is_a_failure_and_the_next_run_goes_on_from_before_it(
    bench, uninterrupted, stage
):
    bench = bench(stage)
    # Steps 7, 9 and 11 are made between: their checkpoints are of the training that has gone wrong.
    broken = {6: "nan", 8: "gradient", 10: "infinity", 12: "nan", 13: "nan", 14: "nan"}
    with pytest.raises(ProcessFailed) as failure:
        bench.run(broken=broken, checkpoint_steps=1, processes=2)
    first = short_failure(failure.value).splitlines()[0]
    assert "DivergenceError: training ended after step 12: 4 of its last 12 steps were skipped" in first
    assert "6 (loss), 8 (gradient), 10 (loss), 12 (loss)" in first
    assert "learning rate" in first and "goes on from before it" in first
    assert bench.store.find(stage, "output") is None
    assert bench.checkpoints() == [4, 5]
    bench.run()
    ours, theirs = (one.steps() for one in (bench, uninterrupted(stage)))
    assert [step["loss"] for step in ours] == pytest.approx([step["loss"] for step in theirs], rel=1e-5)


@pytest.mark.timeout(600)
def test_checkpoints_from_before_a_streak_of_skipped_steps_stay(bench):
    bench = bench("refine")
    bench.interrupted("term", 13, broken={6: "nan", 9: "nan", 11: "nan"}, checkpoint_steps=1)
    assert bench.checkpoints() == [4, 5, *range(6, 14)]
