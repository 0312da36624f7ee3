"""Nobody gets into the two servers without the credential, nor with it through a foreign page or name."""

import json
import socket
import urllib.request

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.security.servers.conftest import OPEN, Target

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


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
