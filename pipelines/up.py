"""`lco up`: Prefect server, MLflow server and the deployments, on loopback, until Ctrl-C.

All data lies below the output folder in SQLite. When one of the three ends by itself, the others are
stopped and its log is shown: half a system would only look alive.
"""

import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from infra.artifact_locations import repair_artifact_locations
from infra.credential import Credential
from infra.databases import check_mlflow_database, check_prefect_database
from infra.mlflow_client import runs_page
from infra.process import handled
from infra.settings import Settings, command, without_password
from pipelines.owner import only_servers
from pipelines.parameters import BadParameter
from pipelines.servers import (
    deployments_server,
    mlflow_server,
    prefect_server,
    require_free_port,
    wait_healthy,
)

POLL_SECONDS = 0.5


def up(settings: Settings) -> int:
    """Start everything, print the addresses, wait for Ctrl-C or SIGTERM; return the exit status 0.

    Raises BadParameter for a taken port or folder, SettingsError for a database that cannot be used,
    NotPrivate, and ServerFailed when a server does not start or ends by itself.
    """
    _check(settings)
    settings.make_private()
    addresses = f"{settings.prefect_url}, {settings.mlflow_url}"
    with stop_signals() as stop, only_servers(settings.output, addresses), ExitStack() as stack:
        _require_free_ports(settings)
        check_prefect_database(settings)
        check_mlflow_database(settings)
        repair_artifact_locations(settings)
        credential = Credential.new()
        credential.write(settings.credential_path)
        print(f"Starting Prefect and MLflow, all data in {settings.output} ...", flush=True)
        prefect = prefect_server(settings, credential, port=settings.prefect_port, ui=True)
        servers = [stack.enter_context(server) for server in (prefect, mlflow_server(settings, credential))]
        if not wait_healthy(servers, sleep=stop.wait):
            return 0
        servers.append(stack.enter_context(deployments_server(settings, credential)))
        if not wait_healthy(servers, sleep=stop.wait):
            return 0
        mlflow_page = runs_page(settings.mlflow_url, settings.experiment, credential)
        print(_welcome(settings, credential, mlflow_page), flush=True)
        while not stop.wait(POLL_SECONDS):
            for server in servers:
                server.check_running()
        print("Stopping ...", flush=True)
    print("Stopped: Prefect, MLflow and the deployment.", flush=True)
    return 0


def _check(settings: Settings) -> None:
    """Raises BadParameter for a tracking server that runs already, and for one port for two servers."""
    if not settings.tracks_here:
        raise BadParameter(
            f"LCO_TRACKING_URI={without_password(settings.tracking_uri)}: "
            "`lco up` starts an MLflow server of its own; unset the variable"
        )
    if settings.prefect_port == settings.mlflow_port:
        raise BadParameter(
            f"--prefect-port and --mlflow-port are both {settings.prefect_port}: give two numbers"
        )


def _require_free_ports(settings: Settings) -> None:
    require_free_port(settings.prefect_port, server="the Prefect server", option="--prefect-port")
    require_free_port(settings.mlflow_port, server="the MLflow server", option="--mlflow-port")


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a closed terminal set, instead of an exception in the middle of a
    start or stop."""
    stop = threading.Event()
    with handled((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), lambda *_: stop.set()):
        yield stop


def _welcome(settings: Settings, credential: Credential, mlflow_page: str) -> str:
    path = settings.credential_path
    # A person at the terminal may read it there; a log may not hold it.
    shown = credential.pair if sys.stdout.isatty() else f"(in {path})"
    return f"""
Prefect   {settings.prefect_url}
MLflow    {mlflow_page}
Sign in   {shown}
          New at each start, and kept in {path}: each page asks once
          (Prefect for all of it, MLflow for name and password).
Outputs   {settings.output}
Logs      {settings.output / "logs"}

Start a run from the Prefect page (Deployments, full-pipeline, Run), or from another terminal:

  export PREFECT_HOME={shlex.quote(str(settings.prefect_home))}
  {command("prefect")} deployment run lco/full-pipeline --watch       # or sweep/grsl

Parameters, as JSON:  --param documents=/path/to/pdfs --param doses='[0, 3200]' --param seeds='[0]'
Ctrl-C stops everything."""
