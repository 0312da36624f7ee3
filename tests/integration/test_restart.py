"""A training that was killed, preempted, or moved to more or fewer processes ends as if nothing happened."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from infra.launcher import LocalLauncher
from infra.process import ProcessFailed
from infra.store import Committed, LocalStore
from stages.backbone import build_tiny_backbone
from stages.recipes import EngineConfig, get_recipe
from tests.unit.stages.conftest import SHAPE

STEPS, BATCH = 14, 4
KILLED_AT = (6, 3, 5)  # steps of each interrupted process, in the middle of a checkpoint interval or not


class Bench:
    """One store, one job of one stage, and a way to run it under interruptions."""

    def __init__(self, root: Path, model: Path, split: Path, stage: str) -> None:
        self.root, self.model, self.split, self.stage = root, model, split, stage
        self.store = LocalStore(root / "store")
        self.runs = 0

    def run(self, *, processes: int = 1, zero_stage: int = 1, **environment: str) -> None:
        self.runs += 1
        engine = EngineConfig(processes=processes, zero_stage=zero_stage, checkpoint_steps=4)
        tiny = get_recipe("tiny")
        recipe = replace(
            tiny,
            backbone=replace(tiny.backbone, location=str(self.model)),
            pretrain=replace(
                tiny.pretrain,
                doses=(0, STEPS * BATCH),
                batch_size=BATCH,
                warmup_steps=2,
                learning_rate=1e-4,
                engine=engine,
            ),
            refine=replace(tiny.refine, steps=STEPS, batch_size=BATCH, lora_rank=4, engine=engine),
        )
        with self.store.attempt("split", "one") as attempt:
            for path in sorted(self.split.rglob("*")):
                target = attempt.path / path.relative_to(self.split)
                target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
            split = attempt.commit(inputs={}, configuration={}, counts={})
        place = {"dose": STEPS * BATCH, "seed": 0, "arm": "multimodal-20", "model": str(self.model)}
        job = {
            "stage": self.stage,
            "recipe": asdict(recipe),
            "store": str(self.store.root),
            "metrics": str(self.root / f"metrics-{self.runs}.jsonl"),
            "inputs": {name: str(split.path) for name in ("target_train", "base_train")},
            "cells": [{"fingerprint": "output", "training": "training", **place}],
            "processes_per_cell": processes,
            "provenance": {},
        }
        path = self.root / f"job-{self.runs}.json"
        path.write_text(json.dumps(job))
        LocalLauncher(environment=environment).run(
            "tests.integration.interrupted",
            path,
            processes=processes,
            log_path=self.root / f"{self.runs}.log",
            metrics_path=Path(job["metrics"]),
            on_event=lambda event: None,
        )

    def interrupted(self, signal: str, at: int, **options) -> ProcessFailed:
        with pytest.raises(ProcessFailed) as failure:
            self.run(LCO_TEST_SIGNAL=signal, LCO_TEST_AT=str(at), **options)
        return failure.value

    def output(self) -> Committed:
        output = self.store.find(self.stage, "output")
        assert output is not None
        return output

    def checkpoints(self) -> list[int]:
        return [int(name.rsplit("-")[-1]) for name in self.store.names("checkpoint")]

    def steps(self) -> list[dict]:
        return [json.loads(line) for line in (self.output().path / "steps.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    build_tiny_backbone(SHAPE, get_recipe("tiny").backbone, seed=0).save(folder)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, model, split_folder):
    """{stage: bench} after a run in one go."""
    benches = {}

    def bench(stage: str) -> Bench:
        if stage not in benches:
            benches[stage] = Bench(tmp_path_factory.mktemp(stage), model, split_folder, stage)
            benches[stage].run()
        return benches[stage]

    return bench


@pytest.fixture
def bench(tmp_path, model, split_folder):
    return lambda stage: Bench(tmp_path, model, split_folder, stage)


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


@pytest.mark.timeout(600)
def test_checkpoints_of_which_none_is_valid_are_a_loud_error(bench):
    bench = bench("pretrain")
    assert bench.interrupted("kill", 10).outcome == "killed"
    for name in bench.store.names("checkpoint"):
        (bench.store.path("checkpoint", name) / "steps.json").write_text("[]")
    with pytest.raises(ProcessFailed, match="no checkpoint of training"):
        bench.run()
