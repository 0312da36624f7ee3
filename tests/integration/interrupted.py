"""A stage's program that a signal meets in the middle of its n-th step; started by restarting.py.

python -m tests.integration.interrupted JOB.json

LCO_TEST_SIGNAL: "kill", "term", or "kill-writing": killed when the step's checkpoint is half written.
LCO_TEST_AT: the step of this process, on rank 0.
"""

import json
import os
import runpy
import signal
import sys
from pathlib import Path

from stages.train import checkpoint, training

SIGNAL, AT = os.environ.get("LCO_TEST_SIGNAL"), int(os.environ.get("LCO_TEST_AT", "0"))
measure = training.peak_memory_gib  # called once in every step
save, save_file = checkpoint.Checkpoints.save, checkpoint.save_file
calls = 0
saved: list[checkpoint.Checkpoints] = []


def interrupt() -> float:
    global calls
    calls += 1
    if SIGNAL in ("kill", "term") and calls == AT and os.environ.get("RANK", "0") == "0":
        if saved:  # a checkpoint is committed in the background: how far it has come must not depend on luck
            saved[-1].wait()
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM}[SIGNAL])
    return measure()


def save_noted(self, engine, steps) -> None:
    save(self, engine, steps)
    saved.append(self)


def save_half(tensors, path: Path) -> None:
    save_file(tensors, path)
    if SIGNAL == "kill-writing" and calls >= AT:
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    training.peak_memory_gib = interrupt
    checkpoint.Checkpoints.save = save_noted
    checkpoint.save_file = save_half
    stage = json.loads(Path(sys.argv[1]).read_text())["stage"]
    runpy.run_module(f"stages.{stage}", run_name="__main__")
    assert "mlflow" not in sys.modules, "a rank has loaded MLflow: see stages.train.lean_deepspeed"
