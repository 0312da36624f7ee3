"""A training that goes on with more or fewer processes sees the same samples and learns the same."""

import pytest

from infra.process import EXIT_PREEMPTED


@pytest.mark.timeout(600)
def test_other_processes_and_zero_stages_see_the_same_samples_and_losses(bench, uninterrupted):
    bench = bench("pretrain")
    for steps, processes, zero_stage in ((5, 1, 1), (3, 2, 3), (3, 2, 1)):
        failure = bench.interrupted("term", steps, processes=processes, zero_stage=zero_stage)
        assert (failure.outcome, failure.exit_code) == ("preempted", EXIT_PREEMPTED)
    assert bench.checkpoints()[-1] == 5 + 3 + 3
    bench.run(processes=1, zero_stage=3)
    for ours, theirs in zip(bench.steps(), uninterrupted("pretrain").steps(), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
        same = ("number", "objective", "examples", "label_tokens", "tokens", "visual_tokens")
        assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
