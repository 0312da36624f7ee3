"""One output folder has one run at a time, and is free again when that run has ended in any way."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipelines.flow import pipeline_run
from pipelines.owner import only_run, only_servers
from pipelines.parameters import BadParameter, Run, Sweep
from pipelines.run import exit_code, run

ROOT = Path(__file__).parents[3]
HOLD = (
    "import sys, time; from pathlib import Path; from pipelines.owner import only_run\n"
    "with only_run(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


@pytest.mark.parametrize("kind", [Run, Sweep])
def test_a_second_run_on_the_same_folder_is_refused_before_it_touches_anything_or_starts_a_server(
    tmp_path: Path, kind: type[Run], capsys: pytest.CaptureFixture
) -> None:
    refused = pytest.raises(BadParameter, match=f"another run uses {tmp_path}: wait for it")
    with only_run(tmp_path):
        with refused as error, pipeline_run(kind(output=tmp_path)):
            pass
        assert exit_code(lambda: run(kind(output=tmp_path))) == 2
    assert capsys.readouterr().err == f"lco: {error.value}\n"
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_other_folders_and_later_runs_are_free(tmp_path: Path) -> None:
    with only_run(tmp_path / "one"), only_run(tmp_path / "two"):
        pass
    with pytest.raises(RuntimeError, match="a bug"), only_run(tmp_path / "one"):
        raise RuntimeError("a bug")
    with only_run(tmp_path / "one"):
        pass


@pytest.mark.chaos
def test_a_killed_run_leaves_the_folder_free(tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")}
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, env=environment, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(BadParameter), only_run(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait(10)
        with only_run(tmp_path):
            pass


def test_a_program_that_the_run_started_does_not_hold_the_folder(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "print('started', flush=True); import time; time.sleep(60)"]
    with only_run(tmp_path):
        # Not even one that inherits what it may.
        child = subprocess.Popen(program, close_fds=False, stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"started\n"
    with child:
        with only_run(tmp_path):
            assert child.poll() is None
        child.kill()


@pytest.mark.chaos
def test_a_run_that_may_wait_says_so_once_and_begins_when_the_other_has_ended(tmp_path: Path) -> None:
    """What a schedule has started, while a person's run holds the folder, or the schedule's last one."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        told: list[str] = []
        threading.Timer(2.5, other.kill).start()
        with only_run(tmp_path, wait=told.append):
            assert other.wait(10) == -signal.SIGKILL
    assert told == [f"another run uses {tmp_path}: this one begins when that one has ended"]


def test_one_lco_up_serves_a_folder_and_says_where(tmp_path: Path) -> None:
    served = pytest.raises(BadParameter, match=rf"another `lco up` serves {tmp_path} \(first\): use that one")
    with only_servers(tmp_path, "first"), served, only_servers(tmp_path, "second"):
        pass
    with only_servers(tmp_path, "2nd"), only_run(tmp_path), only_servers(tmp_path / "other", "third"):
        assert (tmp_path / ".servers.lock").read_text() == "2nd"
