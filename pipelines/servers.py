"""Servers as children: started, waited for until healthy, never left behind; and those that we start.

A stage has an end, which infra.launcher waits for. A server has none: it is started, used, and stopped, and
ends when this process dies (infra.process.Supervised). All ask for a credential.
"""

import contextlib
import os
import runpy
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from infra import mlflow_app
from infra.credential import Credential
from infra.launcher import local_environment
from infra.process import Supervised, child_environment, last_lines, watch_parent
from infra.settings import LOOPBACK, Settings, database_address
from pipelines.parameters import BadParameter
from pipelines.prefect_settings import prefect_client_environment, prefect_environment


class ServerFailed(Exception):
    """A server ended by itself or never became healthy; the message holds the end of its log."""


@dataclass(kw_only=True)
class Server:
    """`python -m module arguments...`, running inside a `with`; at its beginning, `ready` says False yet."""

    name: str
    module: str
    arguments: Sequence[str]
    log_path: Path
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Beside what every child may see of ours; may hold the credential."""
    ready: Callable[[], bool]
    port: int | None = None
    """Where it is to listen."""
    grace_seconds: float = 10.0

    def __enter__(self) -> "Server":
        ours = local_environment()
        # The same source tree as ours, and no module from the user's current folder (a json.py, say).
        source = {name: ours[name] for name in ("PYTHONPATH", "PYTHONSAFEPATH")}
        self.process = Supervised(
            [sys.executable, "-m", "pipelines.servers", self.module, *self.arguments],
            environment=child_environment(source | dict(self.environment)),
            log_path=self.log_path,
            grace_seconds=self.grace_seconds,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()
        self.process.folder.cleanup()

    def failure(self, what: str) -> ServerFailed:
        """The error that shows why: the last lines of the log."""
        tail = "\n".join(last_lines(self.log_path).splitlines()[-20:]) or "(nothing)"
        return ServerFailed(f"{self.name} {what}. Its log is {self.log_path}; it ends with:\n{tail}")

    def check_running(self) -> None:
        """Raises ServerFailed when it has ended by itself."""
        if self.process.ended:
            raise self.failure(f"ended with exit code {self.process.exit_code}")

    def healthy(self) -> bool:
        """Whether it answers. Raises ServerFailed when it has ended."""
        self.check_running()
        return self._listens() and self.ready()

    def _listens(self) -> bool:
        """Whether our child has the port: another user's program there would be told our credential."""
        if self.port is None:
            return True
        with contextlib.suppress(psutil.NoSuchProcess):  # a child that has just ended
            leader = psutil.Process(self.process.pid)
            for process in (leader, *leader.children(recursive=True)):
                sockets = process.net_connections("tcp")
                if any(one.status == psutil.CONN_LISTEN and one.laddr.port == self.port for one in sockets):
                    return True
        return False


def wait_healthy(
    servers: Sequence[Server],
    *,
    timeout_seconds: float = 240.0,
    sleep: Callable[[float], object] = time.sleep,
) -> bool:
    """Whether all answer, before `sleep` says that somebody wants to stop.

    Raises ServerFailed when one ends or stays silent.
    """
    deadline = time.monotonic() + timeout_seconds
    while late := [server for server in servers if not server.healthy()]:
        if time.monotonic() > deadline:
            raise late[0].failure(f"did not become healthy in {timeout_seconds:.0f} s")
        if sleep(0.1):
            return False
    return True


# No proxy: our addresses are on loopback, and a proxy from the environment could not reach them.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(url: str) -> bool:
    """Whether `url` answers with a success."""
    try:
        with _OPENER.open(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def require_free_port(port: int, *, server: str, option: str) -> None:
    """Raises BadParameter, naming the option to change, when something listens on `port` already."""
    if not 1 <= port <= 65535:
        raise BadParameter(f"{option} {port}: a port is a number from 1 to 65535")
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        # Servers set this too: without it, a port whose last connection has just closed looks taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            raise BadParameter(
                f"port {port} for {server} is taken: stop what listens there, or give {option} another number"
            ) from None


def prefect_database_address(settings: Settings) -> str:
    """Prefect's own default does not quote the path."""
    return database_address(settings.prefect_database).replace("sqlite:", "sqlite+aiosqlite:", 1)


def prefect_server(settings: Settings, credential: Credential, *, port: int, ui: bool) -> Server:
    """A Prefect server on loopback with its SQLite database in the output folder.

    `ui`: with its page and its schedules; without, it serves one run, also beside another on this database.
    """
    page = f"http://{LOOPBACK}:{port}"
    return Server(
        name="Prefect server",
        module="pipelines.prefect_app",
        arguments=(str(port),),
        environment={
            **prefect_environment(settings, {}),
            **prefect_client_environment(credential, port),
            "PREFECT_SERVER_API_AUTH_STRING": credential.pair,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": prefect_database_address(settings),
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": page,
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_UI_ENABLED": str(ui).lower(),
            "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": str(ui).lower(),
            "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": str(ui).lower(),
            # The newer page asks a tracking service on the internet at every load, whatever is switched off.
            "PREFECT_SERVER_UI_V2_ENABLED": "false",
            # The page does not follow the port: it would ask port 4200.
            "PREFECT_SERVER_UI_API_URL": f"{page}/api",
        },
        log_path=settings.output / "logs" / "prefect-server.log",
        port=port,
        ready=lambda: answers(f"{page}/api/health"),
    )


def mlflow_client_environment(settings: Settings, credential: Credential) -> dict[str, str]:
    """What leads a run to our MLflow server, and lets it in."""
    return {
        "LCO_TRACKING_URI": settings.mlflow_url,
        "MLFLOW_TRACKING_USERNAME": credential.user,
        "MLFLOW_TRACKING_PASSWORD": credential.password,
    }


def mlflow_server(settings: Settings, credential: Credential) -> Server:
    """The MLflow server on the database that `lco run` writes to as well."""
    return Server(
        name="MLflow server",
        module="mlflow",
        arguments=(
            *("server", "--app-name", "lco"),
            *("--host", LOOPBACK, "--port", str(settings.mlflow_port), "--workers", "1"),
            *("--backend-store-uri", settings.tracking_uri),
            # Artifacts at a path, not behind the server: `lco run` writes to the same experiment without one.
            *("--default-artifact-root", settings.artifact_root.as_uri(), "--no-serve-artifacts"),
        ),
        environment={
            "LCO_MLFLOW_PORT": str(settings.mlflow_port),
            mlflow_app.CREDENTIAL: credential.pair,
            # Job consumers would take 1 GB of memory in eight more processes.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        log_path=settings.output / "logs" / "mlflow-server.log",
        port=settings.mlflow_port,
        ready=lambda: answers(settings.mlflow_url + mlflow_app.HEALTH),
    )


def deployments_server(settings: Settings, credential: Credential) -> Server:
    """The process that polls for runs of the deployments and starts each in a process of its own."""
    ready = settings.output / "logs" / "deployments.ready"
    ready.unlink(missing_ok=True)
    return Server(
        name="deployments",
        module="pipelines.serve",
        arguments=(str(ready),),
        environment={
            # What a person has set for runs: LCO_STORE, LCO_PROCESSES, ...
            **{name: value for name, value in os.environ.items() if name.startswith(_for_runs(settings))},
            **prefect_environment(settings, {}),
            **prefect_client_environment(credential, settings.prefect_port),
            **settings.places,
            **mlflow_client_environment(settings, credential),
            # The default of 10 s is for fleets of runners; here a person waits.
            "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        },
        log_path=settings.output / "logs" / "deployments.log",
        ready=ready.exists,
        # A running flow stops its training (20 s of grace there) and tells MLflow how it ended (20 s);
        # Prefect's runner waits 30 s for it.
        grace_seconds=60.0,
    )


def _for_runs(settings: Settings) -> tuple[str, ...]:
    """Beginnings of variables that runs need: with a store in a bucket, the credentials for it."""
    return ("LCO_", "AWS_") if settings.bucket else ("LCO_",)


def _run_server() -> None:
    """`python -m pipelines.servers MODULE ARGUMENTS...`: run a module that cannot outlive its parent."""
    watch_parent()
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run_server()
