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
import torch

from infra.process import ProcessFailed
from infra.store import Committed, LocalStore
from stages.cells import Cell
from stages.pretrain import loop as pretrain_loop
from stages.pretrain.config import PretrainSettings
from stages.recipes import ARMS, get_recipe
from stages.refine import gradcache
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
    queries: Path
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

    def run(
        self,
        *,
        processes: int = 1,
        zero_stage: int = 1,
        precision: str = "float32",
        text_tokens: int = 16_384,
        checkpoint_steps: int = 4,
        **interruption,
    ) -> None:
        self.runs += 1
        engine = EngineConfig(
            processes=processes,
            zero_stage=zero_stage,
            precision=precision,
            text_tokens=text_tokens,
            checkpoint_steps=checkpoint_steps,
        )
        job = job_of(
            self.stage,
            self.settings(engine),
            self.root,
            cells={"output": CELL},
            inputs={
                "target_train": self.split,
                "target_train_queries": self.queries,
                "base_train": self.split,
            },
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
    half written. Its "broken" says in which steps of the training loss or gradient is not finite, on the last
    rank; its "kept", how many checkpoints are.
    """
    job = json.loads(job_path.read_text())
    kind, at = job["interruption"].get("kind"), job["interruption"].get("at")
    checkpoint.KEPT = job["interruption"].get("kept", checkpoint.KEPT)
    break_steps(job["interruption"].get("broken", {}), rank=job["processes"] - 1)

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


def break_steps(broken: dict[str, str], *, rank: int) -> None:
    """`broken`: {step: "nan" or "infinity" (the loss), or "gradient"}."""
    begin, step = loop.Training.begin.__func__, pretrain_loop.step_engine
    number = 0

    def begin_noted(cls, *arguments, **named):
        nonlocal number
        training = begin(cls, *arguments, **named)
        number = len(training.ledger)
        return training

    def step_broken(engine, losses, count):
        nonlocal number
        number += 1
        kind = broken.get(str(number))
        if kind is None or int(os.environ.get("RANK", "0")) != rank:
            return step(engine, losses, count)
        return step(engine, (spoil(loss, kind) for loss in losses), count)

    loop.Training.begin = classmethod(begin_noted)
    pretrain_loop.step_engine = gradcache.step_engine = step_broken


def spoil(loss: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "gradient":
        return loss + (0 * loss).sqrt()  # 0, with a slope of 0 / 0
    return loss + float(kind)


def save_noted(self, engine, steps) -> None:
    save(self, engine, steps)
    saved.append(self)
