"""A training that was killed, preempted or damaged ends as if nothing had happened."""

import pytest

from infra.process import ProcessFailed
from tests.integration.restarting import STEPS

KILLED_AT = (6, 3, 5)  # steps of each interrupted process, in the middle of a checkpoint interval or not


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ["pretrain", "refine"])
def test_killed_three_times_ends_with_the_same_bytes(bench, uninterrupted, stage):
    bench = bench(stage)
    for at in KILLED_AT:
        assert bench.interrupted("kill", at).outcome == "killed"
    assert bench.checkpoints() == [4, 8], "two are kept; what was done is not done again"
    bench.run()
    assert bench.output().manifest.files == uninterrupted(stage).output().manifest.files
    assert [step["number"] for step in bench.steps()] == list(range(1, STEPS + 1))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ["pretrain", "refine"])
def test_sigterm_saves_and_leaves_with_the_preemption_code(bench, uninterrupted, stage):
    bench = bench(stage)
    failure = bench.interrupted("term", 6)
    assert (failure.outcome, failure.exit_code) == ("preempted", 75)
    assert bench.checkpoints()[-1] == 6
    # A flipped bit in the newest checkpoint: the one before it is used.
    damaged = bench.store.path("checkpoint", "training-000000006") / "state.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    bench.run()
    assert "training-000000006 is set aside" in (bench.root / f"{bench.runs}.log").read_text()
    assert bench.output().manifest.files == uninterrupted(stage).output().manifest.files


@pytest.mark.timeout(600)
def test_checkpoints_of_which_none_is_valid_are_a_loud_error(bench):
    bench = bench("pretrain")
    assert bench.interrupted("kill", 10).outcome == "killed"
    for name in bench.store.names("checkpoint"):
        (bench.store.path("checkpoint", name) / "steps.json").write_text("[]")
    with pytest.raises(ProcessFailed, match="no checkpoint of training"):
        bench.run()
