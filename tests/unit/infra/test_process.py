"""A supervised child cannot outlive us, hold our pipes or see our secrets."""

import array
import fcntl
import os
import resource
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from infra.process import (
    LOG_TAIL_LINES,
    Supervised,
    child_environment,
    handled,
    last_lines,
    log_pump,
    outcome_of,
)
from tests.unit.infra.conftest import ROOT, alive, wait_until

WATCHED = "import infra.process; infra.process.watch_parent()\n"
WRITE_PID = "import os, pathlib; pathlib.Path(os.environ['FOLDER'], 'pid').write_text(f'{os.getpid()}\\n')\n"
IGNORE_TERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
SLEEP = "import time; time.sleep(100)\n"


@pytest.fixture
def supervise(tmp_path):
    """Start a Python program under supervision."""
    running = []

    def start(program: str, **options) -> Supervised:
        environment = child_environment({"PYTHONPATH": str(ROOT), "FOLDER": str(tmp_path)})
        argv = [sys.executable, "-c", program]
        running.append(Supervised(argv, environment=environment, log_path=start.log, **options))
        return running[-1]

    start.log = tmp_path / "log" / "child.log"
    yield start
    for child in running:
        child.stop()


def pid_in(path: Path) -> int:
    assert wait_until(lambda: path.exists() and path.read_text().endswith("\n")), f"{path} was not written"
    return int(path.read_text())


def test_output_of_both_kinds_goes_to_the_log_and_the_end_is_seen(supervise, capfd):
    program = "import sys; print('out'); print('err', file=sys.stderr); print(repr(sys.stdin.read()))"
    child = supervise(program + "; sys.exit(3)")
    assert wait_until(lambda: child.ended)
    assert child.exit_code == 3
    assert sorted(supervise.log.read_text().splitlines()) == ["''", "err", "out"]
    assert capfd.readouterr() == ("", "")


def test_only_zero_is_success():
    assert {outcome_of(code) for code in range(1, 256)} == {"failed", "preempted", "killed"}
    assert outcome_of(-signal.SIGTERM) == "failed"


def test_secrets_do_not_reach_a_child(monkeypatch):
    secrets = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PREFECT_API_KEY", "MLFLOW_TRACKING_PASSWORD", "PASSWORD")
    for name in secrets:
        monkeypatch.setenv(name, "hunter2")
    seen = child_environment({"GIVEN": "yes"})
    assert "hunter2" not in seen.values() and not seen.keys() & set(secrets)
    assert seen["GIVEN"] == "yes"
    assert {"PATH", "HOME"} <= seen.keys()


def test_no_descriptor_of_ours_reaches_the_child(supervise, tmp_path):
    with (tmp_path / "held").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        child = supervise(
            "import os; print([os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') "
            "if os.path.lexists(f'/proc/self/fd/{n}')])"
        )
        assert wait_until(lambda: child.ended)
    assert supervise.log.read_text().startswith("[") and "held" not in supervise.log.read_text()


@pytest.mark.chaos
@pytest.mark.parametrize("stubborn", ["", IGNORE_TERM])
def test_stopping_ends_the_child(supervise, tmp_path, stubborn):
    child = supervise(stubborn + WRITE_PID + SLEEP, grace_seconds=1.0)
    pid = pid_in(tmp_path / "pid")
    began = time.monotonic()
    child.stop()
    assert not alive(pid) and time.monotonic() - began < 10
    assert child.exit_code == (-signal.SIGKILL if stubborn else -signal.SIGTERM)
    child.stop()  # once more does no harm


@pytest.mark.chaos
@pytest.mark.parametrize("end", ["raise SystemExit(0)", SLEEP])
def test_what_a_child_leaves_behind_in_another_session_is_killed(supervise, tmp_path, end):
    program = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', "
    program += repr(IGNORE_TERM + WRITE_PID + SLEEP) + "], start_new_session=True)\n" + end
    child = supervise(program, grace_seconds=1.0)
    pid = pid_in(tmp_path / "pid")
    child.stop()
    assert not alive(pid)


SUPERVISOR = """
import os, sys, time
from pathlib import Path
from infra.process import Supervised
environment = os.environ | {"FOLDER": sys.argv[1]}
Supervised([sys.executable, "-c", sys.argv[2]], environment=environment, log_path=Path(sys.argv[1], "log"))
time.sleep(100)
"""


@pytest.mark.chaos
@pytest.mark.parametrize("stubborn", ["", IGNORE_TERM])
def test_the_child_dies_with_its_supervisor(tmp_path, stubborn):
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path), stubborn + WATCHED + WRITE_PID + SLEEP]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}) as supervisor:
        pid = pid_in(tmp_path / "pid")
        supervisor.kill()
    assert wait_until(lambda: not alive(pid), 6), "an orphan is left"


@pytest.mark.parametrize(("life_line", "code"), [({}, 0), ({"LCO_LIFE_LINE": "/gone"}, -signal.SIGTERM)])
def test_watching_ends_a_child_that_starts_after_its_supervisor_died_and_none_that_has_none(life_line, code):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LCO_")}
    command = [sys.executable, "-c", WATCHED + "import time; time.sleep(2)"]
    answer = subprocess.run(
        command, cwd=ROOT, env=environment | life_line, start_new_session=True, timeout=20, check=False
    )
    assert answer.returncode == code


def test_the_log_tail_is_short_and_understands_progress_bars(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"line {n}\n" for n in range(10_000)) + "10%\r20%\r30%")
    lines = last_lines(log).splitlines()
    assert len(lines) == LOG_TAIL_LINES
    assert lines[-4:] == ["line 9999", "10%", "20%", "30%"]
    assert last_lines(tmp_path / "none") == ""


def test_a_long_log_is_rotated(tmp_path, monkeypatch):
    monkeypatch.setattr("infra.process.LOG_LIMIT_BYTES", 100_000)
    log = tmp_path / "folder" / "output.log"
    with log_pump(log) as output:
        for number in range(20_000):
            os.write(output, f"line {number}\n".encode())
    rotated = log.with_name("output.log.1")
    assert log.stat().st_size <= 100_000 and rotated.stat().st_size <= 100_000
    assert log.read_text().endswith("line 19999\n")


@pytest.mark.chaos
def test_a_full_disk_stops_nobody_who_writes_to_the_log_and_its_end_is_there_when_there_is_room(tmp_path):
    log = tmp_path / "output.log"
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
        with log_pump(log) as output:
            for number in range(3000):  # far more than a pipe holds: nobody waits for its reader
                os.write(output, f"line {number:04} {'x' * 90}\n".encode())
            os.write(output, b"OSError: no space left\n")
            waiting = array.array("i", [1])
            assert wait_until(lambda: fcntl.ioctl(output, termios.FIONREAD, waiting) == 0 and not waiting[0])
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    text = log.read_text()
    assert text.startswith("line 0000") and text.endswith("OSError: no space left\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_handled_inside_the_block_only(number):
    seen, before = [], signal.SIG_DFL
    signal.signal(number, before)  # these tests may run under nohup
    with handled((number,), lambda *arguments: seen.append(arguments[0])):
        os.kill(os.getpid(), number)
        assert wait_until(lambda: seen == [number])
    assert signal.getsignal(number) == before


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled((signal.SIGHUP, signal.SIGTERM), lambda *_: None):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_run_the_block_without_handling_signals():
    entered = []

    def work():
        with handled((signal.SIGTERM,), lambda *_: None):
            entered.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [True]


def test_a_child_stands_in_a_folder_of_its_own_that_nothing_of_the_users_configures(
    supervise, tmp_path, monkeypatch
):
    (tmp_path / "users").mkdir()
    monkeypatch.chdir(tmp_path / "users")
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "users"))
    child = supervise(
        "import os, tempfile; print(*{os.getcwd(), tempfile.mkdtemp()[:-12], os.environ['MPLCONFIGDIR']})"
    )
    assert wait_until(lambda: child.ended)
    [place] = {Path(name).parts[:3] for name in supervise.log.read_text().split()}
    assert Path(*place) == Path(child.folder.name)
    child.stop()
    child.folder.cleanup()
    assert not Path(child.folder.name).exists() and not list((tmp_path / "users").iterdir())


@pytest.mark.chaos
@pytest.mark.parametrize("leader_ends_first", [True, False])
def test_what_a_child_has_started_in_another_session_gets_the_grace_too(
    supervise, tmp_path, leader_ends_first
):
    """It has states to set and a checkpoint to save, also when the one that started it is gone."""
    saves = (
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n    time.sleep(1); pathlib.Path(os.environ['FOLDER'], 'saved').touch(); sys.exit()\n"
        "import os; signal.signal(signal.SIGTERM, save)\n"
    )
    started = repr(saves + WRITE_PID + SLEEP)
    program = (
        "import signal, subprocess, sys, time\n"
        f"inner = subprocess.Popen([sys.executable, '-c', {started}], start_new_session=True)\n"
        "signal.signal(signal.SIGTERM, lambda *_: (inner.terminate(), sys.exit()))\n"
    )
    child = supervise(program + ("" if leader_ends_first else SLEEP), grace_seconds=20.0)
    pid = pid_in(tmp_path / "pid")
    if leader_ends_first:
        assert wait_until(lambda: child.ended)
    child.stop()
    assert (tmp_path / "saved").exists() and not alive(pid)


@pytest.mark.chaos
def test_an_orphan_removes_its_folder(tmp_path):
    program = SUPERVISOR.replace("time.sleep(100)", "print(child.folder.name, flush=True); time.sleep(100)")
    program = program.replace("Supervised([", "child = Supervised([")
    argv = [sys.executable, "-c", program, str(tmp_path), WATCHED + WRITE_PID + SLEEP]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    supervisor = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    folder = Path(supervisor.stdout.readline().strip())
    pid_in(tmp_path / "pid")
    assert folder.is_dir()
    supervisor.kill()
    supervisor.wait()
    assert wait_until(lambda: not folder.exists())
