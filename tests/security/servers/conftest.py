"""Both servers as `lco up` starts them, and every route and socket that they say they have."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.credential import Credential
from infra.settings import Settings
from pipelines.servers import free_port, mlflow_server, prefect_server, wait_healthy

# What the servers themselves know of their routes, from processes of their own: both are heavy to import.
PREFECT_SOCKETS = """
import json
from prefect.server.api.server import API_ROUTERS
routes = [route for router in API_ROUTERS for route in router.routes if not hasattr(route, "methods")]
print(json.dumps(["/api" + route.path for route in routes]))
"""
MLFLOW_ROUTES = """
import json
from mlflow.server import app
routes = [(method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods]
from mlflow.server.fastapi_app import app
routes += [(method, route.path) for route in app.routes for method in getattr(route, "methods", None) or ()]
print(json.dumps(routes))
"""
# They tell whether a server lives. Prefect's page is the same for all: what it shows comes from its API.
OPEN = {
    "prefect": {"/api/health", "/api/ready"},
    "mlflow": {"/health"},
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server under attack: its address, its routes (method, path) and its sockets."""

    name: str
    host: str
    credential: Mapping[str, str]
    log_path: Path
    routes: list[tuple[str, str]]
    sockets: list[str]

    def status(self, method: str, path: str, headers: Mapping[str, str]) -> int:
        data = b"{}" if method in ("POST", "PUT", "PATCH") else None
        sent = {"Content-Type": "application/json"} | dict(headers)
        request = urllib.request.Request(f"http://{self.host}{path}", data=data, headers=sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code

    def answers(self, headers: Mapping[str, str]) -> dict[int, list[tuple[str, str]]]:
        """The routes by the status of their answer."""
        found: dict[int, list[tuple[str, str]]] = {}
        with ThreadPoolExecutor(8) as pool:
            statuses = pool.map(lambda route: self.status(*route, headers), self.routes)
            for route, status in zip(self.routes, statuses, strict=True):
                found.setdefault(status, []).append(route)
        return found


def listed(program: str, **environment: str) -> list:
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": "/usr/bin:/bin", "HOME": environment["HOME"]} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def filled(path: str) -> str:
    """A path with something in the place of each parameter."""
    return re.sub(r"[{<][^}>]*[}>]", "1", path)


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[dict[str, Target]]:
    root = tmp_path_factory.mktemp("servers")
    settings = Settings(output=root / "output", prefect_port=free_port(), mlflow_port=free_port())
    settings.make_private()
    with ExitStack() as running:
        secret = Credential.new()
        prefect = prefect_server(settings, secret, port=settings.prefect_port, ui=True)
        both = [running.enter_context(server) for server in (prefect, mlflow_server(settings, secret))]
        sockets = listed(PREFECT_SOCKETS, HOME=str(root), PREFECT_HOME=str(root / "prefect"))
        routes = listed(MLFLOW_ROUTES, HOME=str(root))
        assert wait_healthy(both)
        credential, host = secret.header, f"127.0.0.1:{settings.prefect_port}"
        request = urllib.request.Request(f"http://{host}/api/openapi.json", headers=credential)
        with urllib.request.urlopen(request, timeout=60) as response:
            known = json.load(response)["paths"]
        yield {
            "prefect": Target(
                name="prefect",
                host=host,
                credential=credential,
                log_path=both[0].log_path,
                routes=private("prefect", [(m.upper(), f"/api{p}") for p, ms in known.items() for m in ms]),
                sockets=[filled(path) for path in sockets],
            ),
            "mlflow": Target(
                name="mlflow",
                host=f"127.0.0.1:{settings.mlflow_port}",
                credential=credential,
                log_path=both[1].log_path,
                routes=private("mlflow", [tuple(route) for route in routes]),
                sockets=[],
            ),
        }


def private(name: str, routes: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those that need the credential; OPTIONS is a browser's question before it asks."""
    return sorted(
        {(method, filled(path)) for method, path in routes if method != "OPTIONS" and path not in OPEN[name]}
    )
