"""`lco up`: Prefect server, MLflow server and the deployments, on loopback, until Ctrl-C.

All data lies below the output folder in SQLite. When one of the three ends by itself, the others are
stopped and its log is shown: half a system would only look alive.
"""

from __future__ import annotations

import json
import signal
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from infra.mlflow_tracker import runs_page
from infra.settings import LOOPBACK, Settings, without_password
from pipelines.parameters import BadParameter
from pipelines.prefect_settings import prefect_environment
from pipelines.run import prefect_server_definition
from pipelines.services import Service, ServiceDefinition, command, require_free_port, running

DEPLOYMENT = "lco/full-pipeline"
DEPLOYMENTS = ("pipelines.flow:lco=full-pipeline", "pipelines.sweep:sweep=grsl")
POLL_SECONDS = 0.5


def up(
    settings: Settings,
    *,
    prefect_port: int | None = None,
    mlflow_port: int | None = None,
    deployments: Sequence[str] = DEPLOYMENTS,
) -> int:
    """Start everything, print the addresses, wait for Ctrl-C or SIGTERM; return the exit status 0.

    `deployments`: what to serve; see pipelines.serve. Raises BadParameter for a taken port, ServiceFailed
    when a server does not start or ends by itself.
    """
    settings = replace(
        settings,
        prefect_port=settings.prefect_port if prefect_port is None else prefect_port,
        mlflow_port=settings.mlflow_port if mlflow_port is None else mlflow_port,
    )
    _check(settings)
    settings.output.mkdir(parents=True, exist_ok=True)
    with stop_signals() as stop, ExitStack() as stack:
        print(f"Starting Prefect and MLflow, all data in {settings.output} ...", flush=True)
        servers = [
            stack.enter_context(running(definition))
            for definition in (
                prefect_server_definition(settings, port=settings.prefect_port, ui=True),
                mlflow_definition(settings),
            )
        ]
        if not _wait_healthy(servers, stop):
            return 0
        deployment = stack.enter_context(running(deployment_definition(settings, deployments)))
        if not _wait_healthy([*servers, deployment], stop):
            return 0
        print(_welcome(settings, runs_page(settings.mlflow_url, settings.experiment)), flush=True)
        _watch([*servers, deployment], stop)
        print("Stopping ...", flush=True)
    print("Stopped: Prefect, MLflow and the deployment.", flush=True)
    return 0


def _check(settings: Settings) -> None:
    """Raises BadParameter for ports that are taken and for a tracking server that runs already."""
    if not settings.tracking_uri.startswith("sqlite:"):
        raise BadParameter(
            f"LCO_TRACKING_URI={without_password(settings.tracking_uri)}: "
            "`lco up` starts an MLflow server of its own; unset the variable"
        )
    require_free_port(settings.prefect_port, server="the Prefect server", option="--prefect-port")
    require_free_port(settings.mlflow_port, server="the MLflow server", option="--mlflow-port")
    if settings.prefect_port == settings.mlflow_port:
        raise BadParameter(
            f"--prefect-port and --mlflow-port are both {settings.prefect_port}: give two numbers"
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


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, instead of an exception in the middle of a start or stop."""
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_healthy(services: list[Service], stop: threading.Event, timeout_seconds: float = 240.0) -> bool:
    """True when all are healthy, False when asked to stop. Raises ServiceFailed."""
    waited = 0.0
    while not all(service.healthy() for service in services):
        if stop.wait(POLL_SECONDS):
            return False
        waited += POLL_SECONDS
        if waited > timeout_seconds:
            late = next(service for service in services if not service.healthy())
            raise late.failure(f"did not become healthy in {timeout_seconds:.0f} s")
    return True


def _watch(services: list[Service], stop: threading.Event) -> None:
    """Return when asked to stop. Raises ServiceFailed when a service ends by itself."""
    while not stop.wait(POLL_SECONDS):
        for service in services:
            service.check_running()


def _welcome(settings: Settings, mlflow_page: str) -> str:
    return f"""
Prefect   {settings.prefect_url}
MLflow    {mlflow_page}
Outputs   {settings.output}
Logs      {settings.output / "logs"}

Start a run from the Prefect page (Deployments, full-pipeline, Run), or from another terminal:

  export PREFECT_API_URL={settings.prefect_url}/api
  {command("prefect")} deployment run {DEPLOYMENT} --watch       # or sweep/grsl, the law's laboratory

Parameters, as JSON:  --param documents=/path/to/pdfs --param doses='[0, 3200]' --param seeds='[0]'
Ctrl-C stops everything."""
