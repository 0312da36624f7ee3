"""A stage's program that a signal meets in the middle of its n-th step; started by restarting.py.

The job's "interruption" names the signal ("kill", "term", or "kill-writing": killed when the step's
checkpoint is half written) and the step of this process at which it comes, on rank 0.
"""

import importlib
import json
import os
import signal
import sys
from pathlib import Path

from stages.train import checkpoint, loop

measure = loop.peak_memory_gib  # called once in every step
save, save_file = checkpoint.Checkpoints.save, checkpoint.save_file
calls = 0
saved: list[checkpoint.Checkpoints] = []


def main(job_path: Path) -> None:
    job = json.loads(job_path.read_text())
    kind, at = job["interruption"].get("signal"), job["interruption"].get("at")

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
