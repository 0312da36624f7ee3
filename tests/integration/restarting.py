"""A training that can be interrupted, for test_restart.py: the bench, and the program that it starts."""

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from infra.process import ProcessFailed
from infra.store import Committed, LocalStore
from stages.cells import Cell
from stages.pretrain.config import PretrainSettings
from stages.recipes import ARMS, get_recipe
from stages.refine.config import RefineSettings
from stages.train import checkpoint, loop
from stages.train.config import EngineConfig
from tests.unit.stages.conftest import job_of

STEPS, BATCH = 14, 4
CELL = Cell(dose=STEPS * BATCH, arm=ARMS["multimodal-20"], seed=0, steps=STEPS)


@dataclass
class Bench:
    """One store, one job of one stage, and a way to run it under interruptions."""

    root: Path
    launch: Callable[..., None]
    model: Path
    split: Path
    stage: str
    runs: int = 0

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.root / "store")

    def settings(self, engine: EngineConfig) -> PretrainSettings | RefineSettings:
        tiny = get_recipe("tiny")
        backbone = replace(tiny.backbone, location=str(self.model / "model"))
        if self.stage == "refine":
            refine = replace(tiny.refine, batch_size=BATCH, lora_rank=4, engine=engine)
            return RefineSettings(backbone=backbone, refine=refine)
        pretrain = replace(
            tiny.pretrain,
            doses=(0, STEPS * BATCH),
            batch_size=BATCH,
            warmup_steps=2,
            learning_rate=1e-4,
            engine=engine,
        )
        return PretrainSettings(backbone=backbone, pretrain=pretrain)

    def run(self, *, processes: int = 1, zero_stage: int = 1, **interruption) -> None:
        self.runs += 1
        engine = EngineConfig(processes=processes, zero_stage=zero_stage, checkpoint_steps=4)
        job = job_of(
            self.stage,
            self.settings(engine),
            self.root,
            cells={"output": CELL},
            inputs={"target_train": self.split, "base_train": self.split},
            own_inputs={"model": self.model},
            processes_per_cell=processes,
        ) | {"processes": processes, "interruption": interruption}
        self.launch("tests.integration.restarting", job, self.root, name=str(self.runs))

    def interrupted(self, kind: str, at: int, **options) -> ProcessFailed:
        with pytest.raises(ProcessFailed) as failure:
            self.run(kind=kind, at=at, **options)
        return failure.value

    def output(self) -> Committed:
        output = self.store.find(self.stage, "output")
        assert output is not None
        return output

    def checkpoints(self) -> list[int]:
        return [int(name.rsplit("-")[-1]) for name in self.store.names("checkpoint")]

    def steps(self) -> list[dict]:
        return [json.loads(line) for line in (self.output().path / "steps.jsonl").read_text().splitlines()]


measure = loop.peak_memory_gib  # called once in every step
save, save_file = checkpoint.Checkpoints.save, checkpoint.save_file
calls = 0
saved: list[checkpoint.Checkpoints] = []


def main(job_path: Path) -> None:
    """Run the job's stage, and send rank 0 a signal in the middle of the n-th step of this process.

    The job's "interruption" names it: "kill", "term", or "kill-writing": killed when the step's checkpoint is
    half written.
    """
    job = json.loads(job_path.read_text())
    kind, at = job["interruption"].get("kind"), job["interruption"].get("at")

    def interrupt() -> float:
        global calls
        calls += 1
        if kind in ("kill", "term") and calls == at and os.environ.get("RANK", "0") == "0":
            if saved:  # checkpoints are committed in the background: how far one has come is not left to luck
                saved[-1].wait()
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM}[kind])
        return measure()

    def save_half(tensors, path: Path) -> None:
        save_file(tensors, path)
        if kind == "kill-writing" and calls >= at:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    loop.peak_memory_gib = interrupt
    checkpoint.Checkpoints.save = save_noted
    checkpoint.save_file = save_half
    importlib.import_module(f"stages.{job['stage']}.program").main(job_path)
    assert "mlflow" not in sys.modules, "a rank has loaded MLflow: see stages.train.lean_deepspeed"


def save_noted(self, engine, steps) -> None:
    save(self, engine, steps)
    saved.append(self)
