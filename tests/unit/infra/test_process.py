"""A supervised child cannot outlive us, hang unseen, hold our pipes or see our secrets."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from infra.process import (
    EXIT_PREEMPTED,
    LOG_TAIL_LINES,
    MetricsFile,
    MetricsTail,
    ProcessFailed,
    child_environment,
    last_lines,
    outcome_of,
    run_supervised,
)

ROOT = Path(__file__).resolve().parents[3]
WATCHED = "import infra.process; infra.process.watch_parent()\n"


@pytest.fixture
def supervise(tmp_path):
    """Run a Python program under supervision; events are collected in `supervise.events`."""

    def run(program: str, **options):
        options = {
            "grace_seconds": 1.0,
            "metrics_path": tmp_path / "metrics.jsonl",
            "environment": {},
        } | options
        options.setdefault("on_event", run.events.append)
        source = {"PYTHONPATH": str(ROOT), "FOLDER": str(tmp_path)}
        options["environment"] = source | options["environment"]
        run_supervised([sys.executable, "-c", program], log_path=tmp_path / "log" / "child.log", **options)

    run.events = []
    run.log = tmp_path / "log" / "child.log"
    return run


def wait_until(condition, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pid_in(path: Path) -> int:
    assert wait_until(lambda: path.exists() and path.read_text().endswith("\n")), f"{path} was not written"
    return int(path.read_text())


WRITE_EVENT = """
import os, pathlib; from infra.process import MetricsFile
metrics = MetricsFile(pathlib.Path(os.environ["FOLDER"], "metrics.jsonl"))
metrics.write(cell="", step=1, label="", done=1, total=1)
"""
WRITE_PID = "import os, pathlib; pathlib.Path(os.environ['FOLDER'], 'pid').write_text(f'{os.getpid()}\\n')\n"
IGNORE_TERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
SLEEP = "import time; time.sleep(100)\n"


def test_output_of_both_kinds_goes_to_the_log(supervise, capfd):
    supervise("import sys; print('out'); print('err', file=sys.stderr); print(repr(sys.stdin.read()))")
    assert sorted(supervise.log.read_text().splitlines()) == ["''", "err", "out"]
    assert capfd.readouterr() == ("", "")


def test_events_arrive_in_order_while_it_runs(supervise, tmp_path):
    program = """
import os, time; from pathlib import Path; from infra.process import MetricsFile
folder = Path(os.environ["FOLDER"]); metrics = MetricsFile(folder / "metrics.jsonl")
metrics.write(cell="c", step=1, label="CGP dose 0", done=1, total=2, metrics={"loss": 1.5})
while not (folder / "seen").exists():
    time.sleep(0.02)
metrics.write(cell="c", step=2, label="CGP dose 0", done=2, total=2)
"""

    def on_event(event):
        supervise.events.append(event)
        (tmp_path / "seen").touch()

    supervise(program, on_event=on_event)
    assert [event.pop("step") for event in supervise.events] == [1, 2]
    first = supervise.events[0]
    assert abs(first.pop("time") - time.time()) < 60
    expected = {"cell": "c", "label": "CGP dose 0", "done": 1, "total": 2, "worker": 0}
    assert first == expected | {"metrics": {"loss": 1.5}}


@pytest.mark.parametrize(
    ("ending", "outcome", "code", "words"),
    [
        ("raise SystemExit(3)", "failed", 3, "failed with exit code 3"),
        (f"raise SystemExit({EXIT_PREEMPTED})", "preempted", 75, "run again to continue"),
        ("import os; os.kill(os.getpid(), 9)", "killed", -9, "out of memory"),
        ("raise SystemExit(137)", "killed", 137, "out of memory"),
        ("raise ValueError('bad shard')", "failed", 1, "ValueError: bad shard"),
    ],
)
def test_a_bad_end_says_what_happened_and_shows_the_log(supervise, ending, outcome, code, words):
    with pytest.raises(ProcessFailed, match=words) as caught:
        supervise("print('last words', flush=True)\n" + ending)
    assert (caught.value.outcome, caught.value.exit_code) == (outcome, code)
    assert "last words" in str(caught.value)
    assert str(supervise.log) in str(caught.value)


def test_only_zero_is_success():
    assert {outcome_of(code) for code in range(1, 256)} == {"failed", "preempted", "killed"}
    assert outcome_of(-signal.SIGTERM) == "failed"


def test_secrets_do_not_reach_the_child(supervise, monkeypatch):
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "HF_TOKEN",
        "PREFECT_API_KEY",
        "MLFLOW_TRACKING_PASSWORD",
        "MY_PASSWORD",
    ):
        monkeypatch.setenv(name, "hunter2")
    supervise("import os, json; print(json.dumps(dict(os.environ)))", environment={"GIVEN": "yes"})
    seen = json.loads(supervise.log.read_text())
    assert "hunter2" not in seen.values()
    assert seen["GIVEN"] == "yes"
    assert {"PATH", "HOME"} <= seen.keys()
    assert not {name for name in child_environment({}) if "TOKEN" in name or "PASSWORD" in name}


def test_no_descriptor_of_ours_reaches_the_child(supervise, tmp_path):
    with (tmp_path / "held").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        supervise("import os; print([os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') "
                  "if os.path.lexists(f'/proc/self/fd/{n}')])")  # fmt: skip
        assert "held" not in supervise.log.read_text()


@pytest.mark.chaos
@pytest.mark.parametrize("stubborn", ["", IGNORE_TERM])
def test_an_exception_ends_the_child(supervise, tmp_path, stubborn):
    program = stubborn + WRITE_PID + WRITE_EVENT + SLEEP

    def on_event(event):
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        supervise(program, on_event=on_event)
    assert not alive(pid_in(tmp_path / "pid"))
    assert time.monotonic() - start < 10


@pytest.mark.chaos
def test_the_child_may_save_within_the_grace(supervise, tmp_path):
    program = f"""
import os, pathlib, signal, sys, time
from infra.process import MetricsFile
folder = pathlib.Path(os.environ["FOLDER"])
def save(*_):
    time.sleep(0.3); (folder / "saved").touch(); sys.exit({EXIT_PREEMPTED})
signal.signal(signal.SIGTERM, save)
MetricsFile(folder / "metrics.jsonl").write(cell="", step=1, label="", done=1, total=1)
time.sleep(100)
"""

    def on_event(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        supervise(program, on_event=on_event, grace_seconds=10.0)
    assert (tmp_path / "saved").exists()


@pytest.mark.chaos
@pytest.mark.parametrize("end", ["raise SystemExit(0)", "raise SystemExit(1)"])
def test_what_a_child_leaves_behind_in_another_session_is_killed(supervise, tmp_path, end):
    program = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', "
    program += (
        repr(IGNORE_TERM + WRITE_PID + SLEEP) + "], start_new_session=True)\nimport time, os, pathlib\n"
    )
    program += "while not pathlib.Path(os.environ['FOLDER'], 'pid').exists(): time.sleep(0.02)\n" + end
    start = time.monotonic()
    with contextlib.suppress(ProcessFailed):
        supervise(program)
    assert not alive(pid_in(tmp_path / "pid"))
    assert time.monotonic() - start < 10


@pytest.mark.chaos
@pytest.mark.parametrize("how", ["never starts", "stops writing", "is suspended"])
def test_a_hang_is_found_and_ended(supervise, tmp_path, how):
    program = WRITE_PID + "from infra.process import MetricsFile\n"
    if how != "never starts":
        program += WRITE_EVENT
    if how == "is suspended":
        program += "import signal; os.kill(os.getpid(), signal.SIGSTOP)\n"
    start = time.monotonic()
    with pytest.raises(ProcessFailed, match=r"no progress for 1\.5 s") as caught:
        supervise(program + SLEEP, hang_seconds=1.5, grace_seconds=0.5)
    assert caught.value.outcome == "hung"
    assert time.monotonic() - start < 10
    assert not alive(pid_in(tmp_path / "pid"))


def test_slow_but_steady_progress_is_no_hang(supervise):
    program = """
import os, pathlib, time
from infra.process import MetricsFile
metrics = MetricsFile(pathlib.Path(os.environ["FOLDER"], "metrics.jsonl"))
for step in range(6):
    metrics.write(cell="", step=step, label="", done=step, total=6); time.sleep(0.5)
"""
    supervise(program, hang_seconds=2.0)
    assert len(supervise.events) == 6


def test_without_a_metrics_file_there_is_no_hang_detection(supervise):
    supervise("import time; time.sleep(1)", metrics_path=None, hang_seconds=0.2)


SUPERVISOR = """
import sys
from pathlib import Path
from infra.process import run_supervised
given = {"FOLDER": sys.argv[1], "PYTHONPATH": sys.argv[3]}
run_supervised([sys.executable, "-c", sys.argv[2]], environment=given,
               log_path=Path(sys.argv[1], "log"), metrics_path=None, on_event=print, grace_seconds=1)
"""


@pytest.mark.chaos
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("stubborn", ["", IGNORE_TERM])
def test_the_child_dies_with_its_supervisor(tmp_path, number, stubborn):
    program = stubborn + WATCHED + WRITE_PID + SLEEP
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path), program, str(ROOT)]
    with subprocess.Popen(command, cwd=ROOT) as supervisor:
        pid = pid_in(tmp_path / "pid")
        supervisor.send_signal(number)
        killed = time.monotonic()
        supervisor.wait(10)
    assert wait_until(lambda: not alive(pid), 6), "an orphan is left"
    assert time.monotonic() - killed < 6


def test_watching_does_nothing_without_a_supervisor(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LCO_")}
    answer = subprocess.run(
        [sys.executable, "-c", WATCHED + "import time; time.sleep(0.3); print('done')"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert answer.stdout == "done\n"


def test_a_child_that_starts_after_the_supervisor_died_ends(tmp_path):
    environment = os.environ | {"LCO_LIFE_LINE": str(tmp_path / "gone")}
    answer = subprocess.run(
        [sys.executable, "-c", WATCHED + SLEEP],
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        timeout=20,
        check=False,
    )
    assert answer.returncode == -signal.SIGTERM


def test_two_supervisions_at_once_do_not_disturb_each_other(tmp_path):
    events: dict[int, list] = {0: [], 1: []}

    def work(number):
        program = f"""
import time; from pathlib import Path; from infra.process import MetricsFile, watch_parent
watch_parent()
for step in range(3 + 3 * {number}):
    MetricsFile(Path({str(tmp_path)!r}, "m{number}")).write(cell="", step=step, label="", done=step, total=9)
    time.sleep(0.1)
"""
        run_supervised(
            [sys.executable, "-c", program],
            environment={"PYTHONPATH": str(ROOT)},
            log_path=tmp_path / f"log{number}",
            metrics_path=tmp_path / f"m{number}",
            on_event=events[number].append,
        )

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [len(events[number]) for number in (0, 1)] == [3, 6]


def test_a_half_written_line_waits_for_its_rest(tmp_path, caplog):
    path, events = tmp_path / "metrics.jsonl", []
    tail = MetricsTail(path)
    assert not tail.deliver(events.append)
    line = json.dumps({"step": 1, "label": "đọc"}, ensure_ascii=False).encode() + b"\n"
    for byte in line[:-1]:
        with path.open("ab") as stream:
            stream.write(bytes([byte]))
        assert tail.deliver(events.append)
        assert not events
    with path.open("ab") as stream:
        stream.write(b"\n" + line[:7])
    tail.deliver(events.append)
    assert events == [{"step": 1, "label": "đọc"}]
    tail.deliver(events.append, final=True)  # the torn end of a killed writer
    assert len(events) == 1
    assert "skipped a line" in caplog.text


def test_lines_that_are_no_events_are_skipped_with_a_warning(tmp_path, caplog):
    path, events = tmp_path / "metrics.jsonl", []
    tail = MetricsTail(path)
    path.write_bytes(b'nonsense\n[1]\n\n{"step": 2}\n')
    tail.deliver(events.append)
    assert events == [{"step": 2}]
    assert caplog.text.count("skipped a line") == 2


def test_events_of_an_earlier_attempt_are_not_repeated(tmp_path):
    metrics, events = MetricsFile(tmp_path / "m"), []
    metrics.write(cell="c", step=1, label="earlier", done=1, total=9)
    tail = MetricsTail(tmp_path / "m")
    metrics.write(cell="c", step=2, label="now", done=2, total=9)
    tail.deliver(events.append)
    assert [event["step"] for event in events] == [2]


def test_lines_of_several_writers_do_not_mix(tmp_path):
    metrics = MetricsFile(tmp_path / "m")

    def write(cell):
        for step in range(200):
            metrics.write(cell=cell, step=step, label="x" * 100, done=step, total=200)

    threads = [threading.Thread(target=write, args=(str(n),)) for n in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len([json.loads(line) for line in (tmp_path / "m").read_text().splitlines()]) == 800


def test_the_log_tail_is_short_and_understands_progress_bars(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"line {n}\n" for n in range(10_000)) + "10%\r20%\r30%")
    lines = last_lines(log).splitlines()
    assert len(lines) == LOG_TAIL_LINES
    assert lines[-4:] == ["line 9999", "10%", "20%", "30%"]
    assert last_lines(tmp_path / "none") == ""


def test_a_long_log_is_rotated(supervise, monkeypatch):
    monkeypatch.setattr("infra.process.LOG_LIMIT_BYTES", 100_000)
    supervise("for n in range(20000): print('line', n)")
    rotated = supervise.log.with_name("child.log.1")
    assert supervise.log.stat().st_size <= 100_000 and rotated.stat().st_size <= 100_000
    assert supervise.log.read_text().endswith("line 19999\n")
