"""A training that can be interrupted, for test_restart.py and test_elastic.py."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from infra.launcher import LocalLauncher
from infra.process import ProcessFailed
from infra.store import Committed, LocalStore
from stages.recipes import ARMS, EngineConfig, get_recipe

STEPS, BATCH = 14, 4


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
        place = {"dose": STEPS * BATCH, "pages": "target", "seed": 0, "steps": STEPS}
        place |= {"arm": "multimodal-20", "changes": ARMS["multimodal-20"], "model": str(self.model)}
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
