"""A stage's program that a signal meets in the middle of its n-th step; started by test_restart.py.

python -m tests.integration.interrupted JOB.json

LCO_TEST_SIGNAL: "kill" or "term"; LCO_TEST_AT: the step of this process, on rank 0.
"""

import json
import os
import runpy
import signal
import sys
from pathlib import Path

from stages.train import training

measure = training.peak_memory_gib  # called once in every step
calls = 0


def interrupt() -> float:
    global calls
    calls += 1
    if calls == int(os.environ.get("LCO_TEST_AT", "0")) and os.environ.get("RANK", "0") == "0":
        number = {"kill": signal.SIGKILL, "term": signal.SIGTERM}[os.environ["LCO_TEST_SIGNAL"]]
        os.kill(os.getpid(), number)
    return measure()


if __name__ == "__main__":
    training.peak_memory_gib = interrupt
    stage = json.loads(Path(sys.argv[1]).read_text())["stage"]
    runpy.run_module(f"stages.{stage}", run_name="__main__")
