"""Stages start with our source, fair shares of cores and loopback only; ranks die with their supervisor."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra.launcher import LocalLauncher, command, local_environment, usable_cores
from infra.process import ProcessFailed
from infra.torchrun import exit_code_of

ROOT = Path(__file__).resolve().parents[3]

STAGE = """
import json, os, sys, time
from pathlib import Path
from infra.process import MetricsFile, watch_parent
watch_parent()
job = json.loads(Path(sys.argv[1]).read_text())
rank = int(os.environ.get("RANK", 0))
folder = Path(job["folder"])
seen = {"pid": os.getpid(), "environment": dict(os.environ)}
(folder / f"rank{rank}.new").write_text(json.dumps(seen))
(folder / f"rank{rank}.new").rename(folder / f"rank{rank}.json")
if job.get("collective"):
    import torch.distributed as distributed
    distributed.init_process_group("gloo")
    distributed.barrier()
if rank == 0:
    MetricsFile(Path(job["metrics"])).write(cell="c", step=1, label="started", done=1, total=1, metrics={})
while job.get("sleep"):
    time.sleep(0.1)
if rank == job.get("failing", -1):
    while not (folder / "rank0.json").exists():  # else it may die before the other has said its pid
        time.sleep(0.05)
    os._exit(job["code"]) if job["code"] > 0 else os.kill(os.getpid(), -job["code"])
if job.get("failing") is not None:
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def no_threads_chosen(monkeypatch):
    """`make test` sets a number of threads; these tests are about the default."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Run a small stage of the test's own as `processes` ranks, with a job of the given fields."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "small_stage.py").write_text(STAGE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "source"))

    def run(*, processes, on_event=lambda event: None, **job):
        path, metrics = tmp_path / "job.json", tmp_path / "metrics.jsonl"
        path.write_text(json.dumps({"folder": str(tmp_path), "metrics": str(metrics)} | job))
        LocalLauncher(grace_seconds=2.0, environment={"GIVEN": "1"}).run(
            "small_stage",
            path,
            processes=processes,
            log_path=tmp_path / "log",
            metrics_path=metrics,
            on_event=on_event,
        )

    return run


def rank_of(folder: Path, rank: int) -> dict:
    return json.loads((folder / f"rank{rank}.json").read_text())


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def listening_beyond_loopback(pids: set[int]) -> list:
    connections = psutil.net_connections("inet")
    listening = [c for c in connections if c.pid in pids and c.status == psutil.CONN_LISTEN]
    assert listening, "the test looked at the wrong processes"
    return [c for c in listening if c.laddr.ip not in ("127.0.0.1", "::1")]


def test_one_process_is_plain_python(launch, tmp_path):
    events = []
    launch(processes=1, on_event=events.append)
    seen = rank_of(tmp_path, 0)["environment"]
    assert "RANK" not in seen
    assert seen["OMP_NUM_THREADS"] == str(usable_cores())
    assert seen["GIVEN"] == "1"
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["DS_ACCELERATOR"]) == ("", "cpu")
    assert [event["label"] for event in events] == ["started"]


def test_two_ranks_share_the_cores(launch, tmp_path):
    launch(processes=2, collective=True)
    seen = [rank_of(tmp_path, rank)["environment"] for rank in (0, 1)]
    assert [each["WORLD_SIZE"] for each in seen] == ["2", "2"]
    assert {each["OMP_NUM_THREADS"] for each in seen} == {str(max(1, usable_cores() // 2))}


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("code", "outcome", "reported"), [(75, "preempted", 75), (-9, "killed", 137), (3, "failed", 3)]
)
def test_the_failed_ranks_own_code_is_reported(launch, tmp_path, code, outcome, reported):
    with pytest.raises(ProcessFailed) as caught:
        launch(processes=2, failing=1, code=code)
    assert (caught.value.outcome, caught.value.exit_code) == (outcome, reported)
    assert "small_stage" in str(caught.value)
    assert not any(alive(rank_of(tmp_path, rank)["pid"]) for rank in (0, 1))


def test_a_killed_rank_explains_the_others():
    assert exit_code_of({0: 1, 1: -9}, first=0) == 137
    assert exit_code_of({0: 75, 1: 75}, first=1) == 75
    assert exit_code_of({0: -15}, first=0) == 143


@pytest.mark.chaos
def test_every_rank_dies_when_the_caller_is_stopped_and_none_listens_to_the_world(launch, tmp_path):
    beyond = []

    def on_event(event):
        rank = psutil.Process(rank_of(tmp_path, 0)["pid"])
        beyond.extend(listening_beyond_loopback({rank.pid, rank.ppid(), rank_of(tmp_path, 1)["pid"]}))
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        launch(processes=2, collective=True, sleep=True, on_event=on_event)
    assert not beyond
    assert not any(alive(rank_of(tmp_path, rank)["pid"]) for rank in (0, 1))
    assert time.monotonic() - start < 60


@pytest.mark.chaos
def test_every_rank_dies_when_the_supervisor_is_killed(tmp_path):
    (tmp_path / "small_stage.py").write_text(STAGE)
    (tmp_path / "job.json").write_text(
        json.dumps({"folder": str(tmp_path), "metrics": str(tmp_path / "m"), "sleep": 1})
    )
    program = (
        "import sys; from pathlib import Path; from infra.launcher import LocalLauncher\n"
        "folder = Path(sys.argv[1])\n"
        "LocalLauncher().run('small_stage', folder / 'job.json', processes=2, log_path=folder / 'log', "
        "metrics_path=None, on_event=print)"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=environment) as supervisor:
        deadline = time.monotonic() + 60
        while not (tmp_path / "m").exists() or not (tmp_path / "rank1.json").exists():
            assert time.monotonic() < deadline and supervisor.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        time.sleep(0.2)
        pids = [rank_of(tmp_path, rank)["pid"] for rank in (0, 1)]
        pids.append(psutil.Process(pids[0]).ppid())
        supervisor.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    while any(map(alive, pids)) and time.monotonic() - killed < 10:
        time.sleep(0.1)
    assert not any(map(alive, pids)), "an orphan is left"
    assert time.monotonic() - killed < 6


def test_a_module_in_the_current_folder_is_not_taken_for_ours(launch, tmp_path, monkeypatch):
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "json.py").write_text("raise RuntimeError('the wrong json')")
    (tmp_path / "user" / "infra.py").write_text("raise RuntimeError('the wrong infra')")
    monkeypatch.chdir(tmp_path / "user")
    launch(processes=1)
    assert local_environment(processes=1)["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)


@pytest.mark.parametrize("processes", [0, -1])
def test_no_processes_is_an_error(processes):
    with pytest.raises(ValueError, match="small_stage"):
        command("small_stage", Path("job.json"), processes=processes)


def test_more_processes_than_cores_get_one_thread_each():
    assert local_environment(processes=10_000)["OMP_NUM_THREADS"] == "1"


def test_a_number_of_threads_that_the_user_set_is_kept(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert local_environment(processes=1)["OMP_NUM_THREADS"] == "3"


def test_the_store_of_torchrun_takes_a_free_port_on_loopback():
    from infra.torchrun import LoopbackTCPStore

    store = LoopbackTCPStore("localhost", 0, None, True, wait_for_workers=False)
    with socket.create_connection(("127.0.0.1", store.port), timeout=5):
        assert not listening_beyond_loopback({os.getpid()})
