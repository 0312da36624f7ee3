"""A training that goes on with more or fewer processes sees the same samples and learns the same."""

import pytest


@pytest.mark.timeout(600)
@pytest.mark.parametrize("zero_stage", [1, 3])
def test_one_two_one_processes_see_the_same_samples_and_losses(bench, uninterrupted, zero_stage):
    bench = bench("pretrain")
    assert bench.interrupted("term", 5, processes=1, zero_stage=zero_stage).outcome == "preempted"
    failure = bench.interrupted("term", 4, processes=2, zero_stage=zero_stage)
    assert (failure.outcome, failure.exit_code) == ("preempted", 75)
    assert bench.checkpoints()[-1] == 9
    bench.run(processes=1, zero_stage=zero_stage)
    for ours, theirs in zip(bench.steps(), uninterrupted("pretrain").steps(), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
        same = ("number", "objective", "examples", "label_tokens", "tokens", "visual_tokens")
        assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
