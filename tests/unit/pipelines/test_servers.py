"""Servers as children: they become healthy, end with us, and say why they ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.parameters import BadParameter
from pipelines.servers import Server, ServerFailed, answers, free_port, require_free_port, wait_healthy

ROOT = Path(__file__).parents[3]


def web_server(folder: Path, port: int) -> Server:
    return Server(
        name="web server",
        module="http.server",
        arguments=("--bind", "127.0.0.1", str(port)),
        log_path=folder / "log",
        port=port,
        ready=lambda: answers(f"http://127.0.0.1:{port}/"),
    )


def test_a_server_is_healthy_and_then_gone(tmp_path: Path) -> None:
    port = free_port()
    with web_server(tmp_path, port) as server:
        assert wait_healthy([server], timeout_seconds=30)
        with pytest.raises(BadParameter, match=f"port {port} for MLflow is taken: .* --mlflow-port"):
            require_free_port(port, server="MLflow", option="--mlflow-port")
    require_free_port(port, server="MLflow", option="--mlflow-port")


def test_a_server_that_ends_by_itself_shows_its_log(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        failed = pytest.raises(ServerFailed, match="web server ended with exit code 1")
        with web_server(tmp_path, taken.getsockname()[1]) as server, failed as error:
            wait_healthy([server], timeout_seconds=30)
    assert "Address already in use" in str(error.value)


def test_somebody_elses_server_on_the_port_is_never_taken_for_ours(tmp_path: Path) -> None:
    """It would be sent our credential."""
    with web_server(tmp_path / "theirs", free_port()) as theirs:
        assert wait_healthy([theirs], timeout_seconds=30)
        program = {"module": "http.server", "arguments": ("--bind", "127.0.0.1", str(free_port()))}
        ours = Server(name="ours", **program, log_path=tmp_path / "log", port=theirs.port, ready=theirs.ready)
        with ours:
            assert ours.ready() and not ours.healthy()


def test_a_server_sees_none_of_our_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("PREFECT_API_KEY", "canary")
    with web_server(tmp_path, free_port()) as server:
        assert wait_healthy([server], timeout_seconds=30)
        assert "canary" not in psutil.Process(server.process.pid).environ().values()


@pytest.mark.chaos
def test_a_server_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, '.');"
        "from tests.unit.pipelines.test_servers import *;"
        f"server = web_server(Path({str(tmp_path)!r}), {free_port()}).__enter__(); wait_healthy([server]);"
        "import psutil; print(psutil.Process().children()[0].pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 15
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.1)
