"""Ranks are forked by one preloaded parent, end as their programs say, and die with whoever started them."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.journal import JOURNAL, Journal
from infra.launcher import Launch, exit_code_of, local_environment, threads_of_each, usable_cores
from infra.process import EXIT_PREEMPTED, ProcessFailed
from tests.unit.infra.conftest import ROOT, alive, wait_until

PRELOAD = ("psutil",)


def pids(folder: Path) -> list[int]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("pid?"))]


def stop(event):
    raise KeyboardInterrupt


IGNORE_TERM = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
SLEEP = "event()\ntime.sleep(100)\n"


def test_a_rank_is_a_plain_program(launch, tmp_path, capfd):
    launch(
        """
        print('out'); print('err', file=sys.stderr); print(repr(sys.stdin.read()))
        subprocess.run(['echo', 'inner'])
        import atexit, threading
        atexit.register(print, 'at exit')
        threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()
        say('seen', dict(os.environ)); say('session', os.getsid(0)); say('argv', sys.argv)
        import psutil; say('sockets', len(psutil.Process().net_connections('all')))
        event(1); event(2)
        """,
        threads=3,
    )
    assert launch.log.read_text().splitlines() == ["out", "err", "''", "inner", "thread", "at exit"]
    assert capfd.readouterr() == ("", "")
    seen = json.loads((tmp_path / "seen").read_text())
    assert "hunter2" not in seen.values()
    assert "PATH" in seen and "RANK" not in seen
    assert (seen["OMP_NUM_THREADS"], seen["CUDA_VISIBLE_DEVICES"], seen["DS_ACCELERATOR"]) == ("3", "", "cpu")
    assert [json.loads((tmp_path / "session").read_text())] == pids(tmp_path)
    assert json.loads((tmp_path / "sockets").read_text()) == 0  # neither ours nor the parent's
    assert json.loads((tmp_path / "argv").read_text()) == ["small_stage", str(tmp_path / "job.json")]
    assert [(event["event"], event["run"], event["step"]) for event in launch.events] == [
        ("progress", "c", 1), ("progress", "c", 2)
    ]  # fmt: skip


def test_events_arrive_while_it_runs_and_only_those_of_this_launch(launch, tmp_path):
    journal = Journal(tmp_path / JOURNAL)
    journal.progress("c", label="earlier", step=7, done=1, total=9)

    def on_event(event):
        launch.events.append(event["step"])
        journal.start("other", "not progress")
        (tmp_path / "seen").touch()

    launch("event(1); wait_for('seen'); event(2)", on_event=on_event)
    assert launch.events == [1, 2]


@pytest.mark.parametrize(
    ("ending", "outcome", "code", "words"),
    [
        ("sys.exit(3)", "failed", 3, "failed with exit code 3"),
        (f"raise SystemExit({EXIT_PREEMPTED})", "preempted", 75, "run again to continue"),
        ("os.kill(os.getpid(), 9)", "killed", -9, "out of memory"),
        ("sys.exit(137)", "killed", 137, "out of memory"),
        ("sys.exit('no such shard')", "failed", 1, "no such shard"),
        ("raise ValueError('bad shard')", "failed", 1, "ValueError: bad shard"),
    ],
)
def test_a_bad_end_says_what_happened_and_shows_the_log(launch, ending, outcome, code, words):
    with pytest.raises(ProcessFailed, match=words) as caught:
        launch("print('last words')\n" + ending)
    assert (caught.value.outcome, caught.value.exit_code) == (outcome, code)
    assert str(caught.value).startswith("small_stage ")
    assert "last words" in str(caught.value) and str(launch.log) in str(caught.value)


def test_two_ranks_find_each_other_through_a_private_folder(launch, tmp_path):
    launch(
        """
        from torch import distributed
        folder_of_ranks = Path(os.environ["LCO_RENDEZVOUS"])
        store = distributed.FileStore(str(folder_of_ranks / "worker-0"), 2)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
        import torch, psutil
        total = torch.tensor([float(rank + 1)])
        distributed.all_reduce(total)
        addresses = [c.laddr.ip for c in psutil.Process().net_connections() if c.laddr]
        names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        say(f"seen{rank}", [total.item(), [os.environ[name] for name in names], addresses])
        if rank == 0:
            say("mode", [oct(folder_of_ranks.stat().st_mode & 0o777), str(folder_of_ranks)])
        distributed.barrier()
        distributed.destroy_process_group()
        """,
        processes=2,
    )
    for rank in (0, 1):
        total, names, addresses = json.loads((tmp_path / f"seen{rank}").read_text())
        assert (total, names) == (3.0, ["2", str(rank), str(rank), "2"])
        assert addresses and set(addresses) <= {"127.0.0.1", "::1"}, "a rank speaks to the world"
    mode, folder = json.loads((tmp_path / "mode").read_text())
    assert mode == "0o700" and not Path(folder).exists()


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("ending", "outcome", "code"),
    [
        ("sys.exit(75)", "preempted", 75),
        ("os.kill(os.getpid(), 9)", "killed", -9),
        ("sys.exit(3)", "failed", 3),
    ],
)
def test_the_first_failed_ranks_own_code_counts_and_the_others_end(launch, tmp_path, ending, outcome, code):
    with pytest.raises(ProcessFailed) as caught:
        launch(f"wait_for('pid0'); wait_for('pid1')\nif rank == 1: {ending}\n" + SLEEP, processes=2)
    assert (caught.value.outcome, caught.value.exit_code) == (outcome, code)
    assert len(pids(tmp_path)) == 2 and not any(map(alive, pids(tmp_path)))
    assert exit_code_of({1: 75, 0: 1}) == 75
    assert exit_code_of({0: 1, 1: -9}) == -9  # a killed rank explains the others
    assert exit_code_of({2: 0, 0: -15}) == -15


@pytest.mark.chaos
@pytest.mark.parametrize("stubborn", ["", IGNORE_TERM])
def test_an_exception_ends_every_rank(launch, tmp_path, stubborn):
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        launch(stubborn + "wait_for('pid1')\n" + SLEEP, processes=2, on_event=stop)
    assert len(pids(tmp_path)) == 2 and not any(map(alive, pids(tmp_path)))
    assert time.monotonic() - began < 10


@pytest.mark.chaos
def test_a_rank_may_save_within_the_grace(launch, tmp_path):
    program = """
    def save(*_):
        time.sleep(0.3); say("saved", 1); sys.exit(75)
    signal.signal(signal.SIGTERM, save)
    """
    with pytest.raises(KeyboardInterrupt):
        launch(textwrap.dedent(program) + SLEEP, on_event=stop, grace_seconds=10.0)
    assert (tmp_path / "saved").exists()


@pytest.mark.chaos
@pytest.mark.parametrize("end", ["sys.exit(0)", "sys.exit(1)"])
@pytest.mark.parametrize("session", [True, False])
def test_what_a_rank_leaves_behind_is_killed(launch, tmp_path, end, session):
    left = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100)"
    program = f"left = subprocess.Popen([sys.executable, '-c', {left!r}], start_new_session={session})\n"
    began = time.monotonic()
    try:
        launch(program + f"say('pid9', left.pid)\n{end}")
    except ProcessFailed as failed:
        assert end == "sys.exit(1)" and failed.exit_code == 1
    assert len(pids(tmp_path)) == 2 and not any(map(alive, pids(tmp_path)))
    assert time.monotonic() - began < 10


@pytest.mark.chaos
@pytest.mark.parametrize("how", ["never starts", "stops writing", "is suspended"])
def test_a_hang_is_found_and_ended(launch, tmp_path, how):
    program = {
        "never starts": "",
        "stops writing": "event()\n",
        "is suspended": "os.kill(os.getpid(), signal.SIGSTOP)\n",
    }[how]
    began = time.monotonic()
    with pytest.raises(ProcessFailed, match=r"no progress for 1\.5 s") as caught:
        launch(program + "time.sleep(100)", hang_seconds=1.5, grace_seconds=0.5)
    assert caught.value.outcome == "hung"
    assert time.monotonic() - began < 10
    assert not any(map(alive, pids(tmp_path)))


def test_slow_but_steady_progress_is_no_hang(launch):
    launch("for step in range(6): event(step); time.sleep(0.6)", hang_seconds=3.0)
    assert len(launch.events) == 6


def test_a_launch_that_was_given_up_before_it_began_never_runs(launch, tmp_path, monkeypatch):
    monkeypatch.setattr("infra.launcher.LocalLauncher._wait", lambda *_: stop(None))
    with pytest.raises(KeyboardInterrupt):
        launch("time.sleep(0.5); say('ran', 1)")
    monkeypatch.undo()
    launch("time.sleep(1)")
    assert not (tmp_path / "ran").exists()


SUPERVISOR = """
import json, sys, threading
from pathlib import Path
from infra.launcher import Launch, LocalLauncher
folder = Path(sys.argv[1])
with LocalLauncher() as launcher:
    (folder / "parent").write_text(str(launcher._parent._process.pid))
    launcher.run(Launch(module="small_stage", job_path=folder / "job.json", processes=2, threads=1,
                        log_path=folder / "log", journal_path=folder / "journal.jsonl"), print)
"""


@pytest.mark.chaos
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("stubborn", ["", IGNORE_TERM])
@pytest.mark.parametrize("victim", ["supervisor", "parent"])
def test_everything_dies_with_the_supervisor_or_the_parent(source, tmp_path, number, stubborn, victim):
    job = {"folder": str(tmp_path), "program": stubborn + "time.sleep(100)"}
    (tmp_path / "job.json").write_text(json.dumps(job))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{source}", "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as supervisor:
        assert wait_until(lambda: len(pids(tmp_path)) == 2, 30)
        time.sleep(0.2)
        parent = int((tmp_path / "parent").read_text())
        os.kill(parent if victim == "parent" else supervisor.pid, number)
        orphans = [parent, *pids(tmp_path)]
        assert wait_until(lambda: not any(map(alive, orphans)), 7), "an orphan is left"
        words = supervisor.communicate(timeout=20)[1].decode()
    assert victim == "supervisor" or "lost the parent of its ranks" in words
    assert wait_until(lambda: not list(temporary.iterdir())), "temporary files are left"


def test_two_launches_at_once_do_not_disturb_each_other(launcher, tmp_path):
    def work(number) -> int:
        folder, events = tmp_path / str(number), []
        folder.mkdir()
        program = f"for step in range(3 + 3 * {number}): event(step); time.sleep(0.1)"
        (folder / "job").write_text(json.dumps({"folder": str(folder), "program": program}))
        one = {"job_path": folder / "job", "log_path": folder / "log", "journal_path": folder / JOURNAL}
        launcher.run(Launch(module="small_stage", processes=1, threads=1, **one), events.append)
        return len(events)

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(work, (0, 1))) == [3, 6]


PATHS = ("job_path", "log_path", "journal_path")


@pytest.mark.parametrize("processes", [0, -1])
def test_no_processes_is_an_error(processes):
    with pytest.raises(ValueError, match="small_stage"):
        Launch(module="small_stage", processes=processes, threads=1, **dict.fromkeys(PATHS, Path("p")))


def test_processes_share_the_cores_unless_the_user_chose_a_number_of_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_of_each(1) == usable_cores()
    assert threads_of_each(2) == max(1, usable_cores() // 2)
    assert threads_of_each(10_000) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_of_each(2) == 3


def test_our_source_comes_first(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    assert local_environment()["PYTHONPATH"] == f"{ROOT}{os.pathsep}/theirs"
