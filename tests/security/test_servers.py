"""Nobody gets into the two servers without the credential, nor with it through a foreign page or name."""

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from infra.settings import Settings
from pipelines.servers import free_port, mlflow_server, prefect_server, wait_healthy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

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
        prefect = prefect_server(settings, port=settings.prefect_port, ui=True)
        both = [running.enter_context(server) for server in (prefect, mlflow_server(settings))]
        sockets = listed(PREFECT_SOCKETS, HOME=str(root), PREFECT_HOME=str(root / "prefect"))
        routes = listed(MLFLOW_ROUTES, HOME=str(root))
        assert wait_healthy(both)
        credential, host = settings.credential.header, f"127.0.0.1:{settings.prefect_port}"
        request = urllib.request.Request(f"http://{host}/api/openapi.json", headers=credential)
        with urllib.request.urlopen(request, timeout=60) as response:
            known = json.load(response)["paths"]
        yield {
            "prefect": Target(
                name="prefect",
                host=host,
                credential=credential,
                routes=private("prefect", [(m.upper(), f"/api{p}") for p, ms in known.items() for m in ms]),
                sockets=[filled(path) for path in sockets],
            ),
            "mlflow": Target(
                name="mlflow",
                host=f"127.0.0.1:{settings.mlflow_port}",
                credential=credential,
                routes=private("mlflow", [tuple(route) for route in routes]),
                sockets=[],
            ),
        }


def private(name: str, routes: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those that need the credential; OPTIONS is a browser's question before it asks."""
    return sorted(
        {
            (method, filled(path))
            for method, path in routes
            if method not in ("HEAD", "OPTIONS") and path not in OPEN[name]
        }
    )


@pytest.fixture(params=["prefect", "mlflow"])
def target(servers, request) -> Target:
    return servers[request.param]


def test_every_route_is_known_and_the_credential_opens_some(target):
    assert len(target.routes) > 100
    path = {"prefect": "/api/admin/version", "mlflow": "/version"}[target.name]
    assert target.status("GET", path, target.credential) == 200
    for path in OPEN[target.name]:
        assert target.status("GET", path, {}) == 200


@pytest.mark.parametrize(
    "credential", [{}, {"Authorization": "Basic bGNvOmd1ZXNz"}, {"Authorization": "Bearer x"}]
)
def test_no_route_answers_without_the_credential(target, credential):
    assert target.answers(credential) == {401: target.routes}


@pytest.mark.parametrize(
    "foreign",
    [
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_no_route_answers_a_foreign_page_or_name_even_with_the_credential(target, foreign):
    assert target.answers({**target.credential, **foreign}) == {403: target.routes}


def test_no_page_of_another_origin_is_allowed_to_ask(target):
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for _, path in target.routes[:20]:
        assert target.status("OPTIONS", path, asked) == 403


def test_prefects_page_is_open_so_that_it_can_ask_for_the_credential_and_shows_where_its_api_is(servers):
    target = servers["prefect"]
    assert target.status("GET", "/", {}) == 200
    with urllib.request.urlopen(f"http://{target.host}/ui-settings", timeout=30) as response:
        settings = json.load(response)
    assert (settings["auth"], settings["api_url"]) == ("BASIC", f"http://{target.host}/api")


@pytest.mark.parametrize("token", [None, "lco:guess", {"a": "dictionary"}])
def test_no_socket_says_anything_without_the_credential(servers, token):
    target = servers["prefect"]
    assert len(target.sockets) >= 5
    for path in target.sockets:
        with connect(f"ws://{target.host}{path}", subprotocols=["prefect"], open_timeout=30) as line:
            if token is not None:
                line.send(json.dumps({"type": "auth", "token": token}))
            with pytest.raises((ConnectionClosed, TimeoutError)):
                said = json.loads(line.recv(timeout=2 if token is None else 20))
                assert said["type"] == "auth_failure", f"{path}: {said}"
                line.recv(timeout=20)


@pytest.mark.parametrize("foreign", ["origin", "host"])
def test_no_socket_opens_for_a_foreign_page_or_name(servers, foreign):
    target = servers["prefect"]
    address, port = target.host.split(":")
    name = f"evil.example:{port}" if foreign == "host" else target.host
    origin = "http://evil.example" if foreign == "origin" else None
    for path in target.sockets:
        line = socket.create_connection((address, int(port)))
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://{name}{path}", sock=line, subprotocols=["prefect"], origin=origin)
