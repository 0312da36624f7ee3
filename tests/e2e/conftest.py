"""The command line as a person uses it, on the smallest sample documents: minutes become seconds."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from stages.recipes import get_recipe

DOCUMENTS = 6  # enough to be split by document, one of them for validation
LCO = [sys.executable, "-m", "pipelines.cli"]
CANARY = "canary-5f1e0c9b"
SECRETS = (
    *("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PREFECT_API_KEY", "MLFLOW_TRACKING_TOKEN", "GITHUB_TOKEN"),
    *("DATABASE_PASSWORD", "OPENAI_API_KEY", "WANDB_API_KEY"),
)


def lco_environment() -> dict[str, str]:
    """Ours without what would lead Prefect or MLflow to somebody else's server, and with secrets."""
    foreign = ("PREFECT_", "MLFLOW_", "LCO_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {name: f"{CANARY}-{name}" for name in SECRETS}


def check_private(output: Path) -> None:
    """No secret of the environment is in any file below `output`, and nobody else may open one."""
    for path in output.rglob("*"):
        status = path.lstat()
        assert not status.st_mode & 0o077, f"{path} is open to others: {status.st_mode:o}"
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


def network_of(pid: int | str) -> str:
    """Which network namespace a process is in."""
    return os.readlink(f"/proc/{pid}/ns/net")


class ChildrenWatch(threading.Thread):
    """Looks at all that a process starts, while it runs: for secrets in environments and arguments, and on
    which of this machine's ports it listens."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.top, self.seen, self.leaks = psutil.Process(pid), set[str](), set[str]()
        self.ports: dict[int, str] = {}
        self._end = threading.Event()

    def __enter__(self) -> "ChildrenWatch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()

    def run(self) -> None:
        while not self._end.wait(0.1):
            for child in self.top.children(recursive=True):
                with contextlib.suppress(psutil.Error, FileNotFoundError):
                    name = " ".join(child.cmdline())
                    self.seen.add(name)
                    if CANARY in name or CANARY in str(child.environ()):
                        self.leaks.add(name)
                    sockets = child.net_connections() if network_of(child.pid) == network_of("self") else []
                    ports = [one.laddr.port for one in sockets if one.status == psutil.CONN_LISTEN]
                    self.ports |= dict.fromkeys(ports, name)


def lco(*arguments: str | Path, timeout: float = 840, **environment: str) -> subprocess.CompletedProcess:
    """Run a command to its end."""
    ours = lco_environment() | environment
    return subprocess.run([*LCO, *arguments], env=ours, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def few_documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    samples = Path(get_recipe("smoke").target_documents).glob("*.pdf")
    for sample in sorted(samples, key=lambda path: path.stat().st_size)[:DOCUMENTS]:
        shutil.copy(sample, folder)
    return folder
