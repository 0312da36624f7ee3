"""Servers as children: started in their own process group, waited for until healthy, never left behind.

A training is supervised by `infra.process.run_supervised`, which waits for its end. A server has no end: it
is started, used, and stopped. The guarantees are the same: own session, no stdin, output to a log file, a
life line that ends it when this process dies (even by SIGKILL), and TERM, grace, KILL when it is stopped.
"""

import contextlib
import json
import os
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.launcher import local_environment
from infra.process import LIFE_LINE, SUPERVISION, kill_marked, last_lines, watch_parent
from infra.settings import LOOPBACK, Settings
from pipelines.parameters import BadParameter


class ServiceFailed(Exception):
    """A server ended by itself or never became healthy; the message holds the end of its log."""


@dataclass(frozen=True, kw_only=True)
class ServiceDefinition:
    """A server to start: `python -m module arguments...`; `health_url` answers 200 when it is up.

    Without a `health_url`, the server counts as up when `ready` says so.
    """

    name: str
    module: str
    arguments: Sequence[str]
    log_path: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    health_url: str | None = None
    ready: Callable[[], bool] | None = None
    grace_seconds: float = 10.0


class Service:
    """A running server."""

    def __init__(self, definition: ServiceDefinition) -> None:
        self.definition = definition
        self._marker = uuid.uuid4().hex
        self._life_line, self._process = self._start()

    def _start(self) -> tuple[int, subprocess.Popen]:
        definition = self.definition
        definition.log_path.parent.mkdir(parents=True, exist_ok=True)
        # Only we hold the write end: the child reads its end of file when we die.
        read_end, write_end = os.pipe()
        supervised = {LIFE_LINE: f"/dev/fd/{read_end}", SUPERVISION: self._marker, "PYTHONUNBUFFERED": "1"}
        with definition.log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.servers", definition.module, *definition.arguments],
                env={**os.environ, **_source_path(), **definition.environment, **supervised},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(read_end,),
            )
        os.close(read_end)
        return write_end, process

    def ended(self) -> bool:
        return self._process.poll() is not None

    def failure(self, what: str) -> ServiceFailed:
        """The error that shows why: the last lines of the log."""
        definition = self.definition
        tail = "\n".join(last_lines(definition.log_path).splitlines()[-20:]) or "(nothing)"
        return ServiceFailed(
            f"{definition.name} {what}. Its log is {definition.log_path}; it ends with:\n{tail}"
        )

    def check_running(self) -> None:
        """Raises ServiceFailed when the server has ended by itself."""
        if self.ended():
            raise self.failure(f"ended with exit code {self._process.returncode}")

    def healthy(self) -> bool:
        """Whether it answers. Raises ServiceFailed when it has ended."""
        self.check_running()
        if self.definition.health_url is not None:
            return answers(self.definition.health_url)
        return self.definition.ready is None or self.definition.ready()

    def wait_healthy(self, timeout_seconds: float = 180.0) -> None:
        """Return when the server answers. Raises ServiceFailed when it ends or stays silent."""
        deadline = time.monotonic() + timeout_seconds
        while not self.healthy():
            if time.monotonic() > deadline:
                raise self.failure(f"did not become healthy in {timeout_seconds:.0f} s")
            time.sleep(0.1)

    def stop(self) -> None:
        """TERM the group, give it its grace, KILL what is left of its tree, reap."""
        try:
            if not self.ended():
                os.killpg(self._process.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(self.definition.grace_seconds)
        finally:
            if not self.ended():
                os.killpg(self._process.pid, signal.SIGKILL)
            kill_marked(self._marker)
            self._process.wait()
            with contextlib.suppress(OSError):  # closed by an earlier stop
                os.close(self._life_line)


def _source_path() -> dict[str, str]:
    """The same source tree as ours, and no module from the user's current folder (a json.py, say)."""
    environment = local_environment(processes=1)
    return {name: environment[name] for name in ("PYTHONPATH", "PYTHONSAFEPATH")}


@contextlib.contextmanager
def running(definition: ServiceDefinition) -> Iterator[Service]:
    """Start a server; stop it when the block ends, however it ends. Does not wait for health."""
    service = Service(definition)
    try:
        yield service
    finally:
        service.stop()


def answers(url: str) -> bool:
    """Whether `url` answers at all with a success."""
    # No proxy: the address is on loopback, and a proxy from the environment could not reach it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def command(name: str) -> str:
    """A program of our environment, as a line for any shell: the user's PATH need not have it."""
    path = Path(sys.executable).with_name(name)
    return shlex.quote(str(path)) if path.is_file() else name


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface now."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        # Servers set this too: without it, a port whose last connection has just closed looks taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def require_free_port(port: int, *, server: str, option: str) -> None:
    """Raises BadParameter, naming the option to change, when something listens on `port` already."""
    if not 1 <= port <= 65535:
        raise BadParameter(f"{option} {port}: a port is a number from 1 to 65535")
    if not port_is_free(port):
        raise BadParameter(
            f"port {port} for {server} is taken: stop what listens there, or give {option} another number"
        )


def prefect_environment(settings: Settings, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What Prefect reads when it is imported; a value that the user has set wins.

    Without PREFECT_API_URL everything, profiles and database included, lies in the output folder and
    ~/.prefect is not touched. With it, the user's server and their own Prefect folder are used.
    """
    wanted = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
    }
    if "PREFECT_API_URL" not in environment:
        wanted["PREFECT_HOME"] = str(settings.prefect_home)
    return {name: environment.get(name, value) for name, value in wanted.items()}


def prefect_server_definition(settings: Settings, *, port: int, ui: bool) -> ServiceDefinition:
    """A Prefect server on loopback with its SQLite database in the output folder."""
    api = f"http://{LOOPBACK}:{port}/api"
    return ServiceDefinition(
        name="Prefect server",
        module="prefect",
        arguments=("server", "start", "--host", LOOPBACK, "--port", str(port), "--ui" if ui else "--no-ui"),
        environment={
            **prefect_environment(settings, {}),
            "PREFECT_API_URL": api,
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            # The newer page asks a tracking service on the internet at every load, whatever is switched off.
            "PREFECT_SERVER_UI_V2_ENABLED": "false",
            # The page does not follow --port: it would ask port 4200.
            "PREFECT_SERVER_UI_API_URL": api,
        },
        log_path=settings.output / "logs" / "prefect-server.log",
        health_url=f"{api}/health",
    )


def mlflow_definition(settings: Settings) -> ServiceDefinition:
    """The MLflow server on the database that `lco run` writes to as well."""
    return ServiceDefinition(
        name="MLflow server",
        module="mlflow",
        arguments=(
            "server",
            *("--host", LOOPBACK, "--port", str(settings.mlflow_port), "--workers", "1"),
            *("--backend-store-uri", settings.tracking_uri),
            # Artifacts at a path, not behind the server: `lco run` writes to the same experiment without one.
            *("--default-artifact-root", settings.artifact_root.as_uri(), "--no-serve-artifacts"),
        ),
        # Job consumers would take 1 GB of memory in eight more processes.
        environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        log_path=settings.output / "logs" / "mlflow-server.log",
        health_url=f"{settings.mlflow_url}/health",
    )


def deployment_definition(settings: Settings, deployments: Sequence[str]) -> ServiceDefinition:
    """The process that polls for runs of the deployments and starts each in a process of its own."""
    environment = {
        **prefect_environment(settings, {}),
        "PREFECT_API_URL": f"{settings.prefect_url}/api",
        # The default of 10 s is for fleets of runners; here a person waits.
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        "LCO_TRACKING_URI": settings.mlflow_url,
        "LCO_OUTPUT": str(settings.output),
    }
    return ServiceDefinition(
        name="deployments",
        module="pipelines.serve",
        arguments=(str(settings.output), *deployments),
        environment=environment,
        log_path=settings.output / "logs" / "deployments.log",
        ready=lambda: _deployments_are_ready(settings, len(deployments)),
        # A running flow stops its training (20 s of grace there) and sets the final states in MLflow.
        grace_seconds=30.0,
    )


def _deployments_are_ready(settings: Settings, count: int) -> bool:
    """Whether the server knows the deployments and a runner polls for them."""
    request = urllib.request.Request(
        f"{settings.prefect_url}/api/deployments/filter",
        data=json.dumps({}).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as response:
            deployments = json.load(response)
    except OSError:  # a busy server; one that ended is noticed by its own check
        return False
    return sum(deployment["status"] == "READY" for deployment in deployments) >= count


def _run_server() -> None:
    """`python -m pipelines.servers MODULE ARGUMENTS...`: run a module that cannot outlive its parent."""
    watch_parent()
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run_server()
