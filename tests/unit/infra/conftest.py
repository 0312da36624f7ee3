"""A small stage program, and a launcher that one module of tests shares."""

import contextlib
import json
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from infra.journal import JOURNAL
from infra.launcher import Launch, LocalLauncher

ROOT = Path(__file__).resolve().parents[3]


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# A stage program that does what its job says, with `folder`, `rank` and `event` at hand.
STAGE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
from infra.journal import Journal

def main(job_path):
    job = json.loads(job_path.read_text())
    folder, rank = Path(job["folder"]), int(os.environ.get("RANK", 0))
    def event(step=1):
        Journal(folder / "journal.jsonl").progress("c", label="working", step=step, done=step, total=9)
    def say(name, value):
        (folder / f"{name}.new").write_text(json.dumps(value))
        (folder / f"{name}.new").rename(folder / name)
    def wait_for(name):
        while not (folder / name).exists():
            time.sleep(0.02)
    say(f"pid{rank}", os.getpid())
    exec(job["program"], {**globals(), **locals()})
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "small_stage.py").write_text(STAGE)
    return folder


@pytest.fixture(scope="module")
def launcher(source, request):
    """One preloaded parent for all tests of a module, which says in PRELOAD what it imports."""
    preload = request.module.PRELOAD
    launcher = LocalLauncher(preload=preload, grace_seconds=2)
    with contextlib.ExitStack() as running:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(source))
            patch.setenv("HF_TOKEN", "hunter2")
            (source / "user").mkdir()
            (source / "user" / "json.py").write_text("raise RuntimeError('the wrong json')")
            patch.chdir(source / "user")  # a module in the user's folder must not become ours
            running.enter_context(launcher)
        yield launcher


@pytest.fixture
def launch(launcher, tmp_path):
    """Run a program of the test's own as `processes` ranks; events are collected in `launch.events`."""

    def run(program: str, *, processes=1, threads=1, on_event=None, **options) -> None:
        job = tmp_path / "job.json"
        job.write_text(json.dumps({"folder": str(tmp_path), "program": textwrap.dedent(program)}))
        one = Launch(
            module="small_stage",
            job_path=job,
            processes=processes,
            threads=threads,
            log_path=tmp_path / "log" / "output.log",
            journal_path=tmp_path / JOURNAL,
        )
        with pytest.MonkeyPatch.context() as patch:
            for name, value in options.items():
                patch.setattr(launcher, name, value)
            launcher.run(one, on_event or run.events.append)

    run.events = []
    run.log = tmp_path / "log" / "output.log"
    return run
