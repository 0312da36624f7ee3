"""A training that was killed, preempted, damaged or moved ends as if nothing had happened."""

import shutil

import pytest

from infra.process import EXIT_PREEMPTED, ProcessFailed
from tests.integration.restarting import STEPS

# Each process and the step of it where it is killed; there is a checkpoint after every fourth step.
KILLED_AT = (("kill", 6), ("kill-writing", 4), ("kill", 5))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ["pretrain", "refine"])
def test_killed_three_times_preempted_and_damaged_ends_with_the_same_bytes(bench, uninterrupted, stage):
    bench = bench(stage)
    found = []
    for signal, at in KILLED_AT:
        assert bench.interrupted(signal, at).outcome == "killed"
        found.append(bench.checkpoints())
    # A half-written checkpoint is none; what was committed is not done again; two are kept.
    assert found == [[4], [4], [4, 8]]

    failure = bench.interrupted("term", 2)
    assert (failure.outcome, failure.exit_code) == ("preempted", EXIT_PREEMPTED)
    assert bench.checkpoints() == [8, 10], "what was asked to stop has saved its last step"

    # A flipped bit in the newest checkpoint: the one before it is used.
    damaged = bench.store.path("checkpoint", "output-000000010") / "state.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    bench.run()
    assert "output-000000010 is set aside" in (bench.root / f"{bench.runs}.log").read_text()
    assert bench.output().manifest.files == uninterrupted(stage).output().manifest.files
    assert [step["number"] for step in bench.steps()] == list(range(1, STEPS + 1))


@pytest.mark.timeout(600)
def test_checkpoints_of_which_none_is_valid_are_a_loud_error(bench, uninterrupted):
    bench, other = bench("pretrain"), uninterrupted("pretrain")
    assert len(other.checkpoints()) == 2
    for name in other.store.names("checkpoint"):
        shutil.copytree(other.store.path("checkpoint", name), bench.store.path("checkpoint", name))
        (bench.store.path("checkpoint", name) / "steps.json").write_text("[]")
    with pytest.raises(ProcessFailed, match="no checkpoint of training"):
        bench.run()


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
