"""The command line as a person uses it, on the smallest sample documents: minutes become seconds.

The person has proxies, servers and settings of their own, none of which may become ours.
"""

import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from stages.recipes import get_recipe

ROOT = Path(__file__).parents[2]
DOCUMENTS = 6  # enough to be split by document, one of them for validation
LCO = [sys.executable, "-m", "pipelines.cli"]
CANARY = "canary-5f1e0c9b"
SECRETS = (
    *("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PREFECT_API_KEY", "MLFLOW_TRACKING_TOKEN", "GITHUB_TOKEN"),
    *("DATABASE_PASSWORD", "OPENAI_API_KEY", "WANDB_API_KEY"),
)


NOWHERE = "http://127.0.0.1:9"
PREFECT_TOML = f"""
[{{0}}api]
url = "{NOWHERE}/api"
[{{0}}server.database]
connection_url = "sqlite+aiosqlite:///{{1}}/toml.db"
[{{0}}flows]
default_retries = 3
"""
PROFILES = f"""
active = "theirs"
[profiles.theirs]
PREFECT_API_URL = "{NOWHERE}/api"
PREFECT_API_KEY = "theirs"
"""


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody with folders and variables full of settings for other programs."""

    home: Path
    here: Path
    """Their current folder."""
    temporary: Path

    def environment(self) -> dict[str, str]:
        """Variables that lead elsewhere, or break a client that reads them."""
        database = f"sqlite+aiosqlite:///{self.here}/variable.db"
        return {
            **{"HOME": str(self.home), "TMPDIR": str(self.temporary)},
            **{"HTTP_PROXY": NOWHERE, "https_proxy": NOWHERE, "NO_PROXY": "localhost"},
            **{"ALL_PROXY": "socks5://127.0.0.1:9", "ws_proxy": "http://[nonsense"},
            **{"PREFECT_API_URL": "", "PREFECT_PROFILE": "theirs", "PREFECT_FLOWS_DEFAULT_RETRIES": "3"},
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
            **{"PREFECT_SERVER_API_AUTH_STRING": "a:b", "PREFECT_API_AUTH_STRING": "c:d"},
            **{"MLFLOW_TRACKING_URI": NOWHERE, "MLFLOW_EXPERIMENT_NAME": "theirs", "MLFLOW_RUN_ID": "theirs"},
            **{"RANK": "3", "WORLD_SIZE": "7", "MASTER_ADDR": "nowhere", "MASTER_PORT": "x"},
            **{"PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        }

    def files(self) -> set[Path]:
        """All that is in their home and current folder."""
        return {path for place in (self.home, self.here) for path in place.rglob("*")}


@functools.cache
def person() -> Person:
    """One for all tests of this process."""
    place = Path(tempfile.mkdtemp(prefix="person-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    one = Person(home=place / "home", here=place / "here", temporary=place / "temporary")
    for folder in (one.home / ".prefect", one.here, one.temporary):
        folder.mkdir(parents=True)
    (one.home / ".prefect" / "profiles.toml").write_text(PROFILES)
    (one.here / "prefect.toml").write_text(PREFECT_TOML.format("", one.here))
    (one.here / "pyproject.toml").write_text(PREFECT_TOML.format("tool.prefect.", one.here))
    (one.here / ".env").write_text(f"PREFECT_API_URL={NOWHERE}/api\n")
    (one.here / "matplotlibrc").write_text("backend: none of ours\n")
    return one


def friendly_environment() -> dict[str, str]:
    """Ours without what would lead Prefect or MLflow to somebody else's server, and with secrets."""
    foreign = ("PREFECT_", "MLFLOW_", "LCO_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {"PYTHONPATH": str(ROOT)} | {name: f"{CANARY}-{name}" for name in SECRETS}


def start_lco(command: Sequence[str | Path], **options: Any) -> subprocess.Popen:
    """Start it where the person stands, in their environment, without standard input."""
    environment = friendly_environment() | person().environment() | options.pop("environment", {})
    without_input = ["sh", "-c", 'exec "$@" <&-', "sh", *map(str, command)]
    return subprocess.Popen(without_input, env=environment, cwd=person().here, text=True, **options)


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
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start_lco([*LCO, *arguments], environment=environment, **pipes) as process:
        try:
            shown, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return subprocess.CompletedProcess(arguments, process.returncode, shown, errors)


@pytest.fixture(scope="module")
def few_documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    samples = Path(get_recipe("smoke").target_documents).glob("*.pdf")
    for sample in sorted(samples, key=lambda path: path.stat().st_size)[:DOCUMENTS]:
        shutil.copy(sample, folder)
    return folder
