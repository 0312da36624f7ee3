"""A server behind the guard answers to its own name and its own page only."""

import asyncio

import pytest

from infra.credential import Credential
from infra.guard import Guard

HOST = "127.0.0.1:4200"
CREDENTIAL = Credential("lco", "secret")
OWN = {
    "host": HOST,
    "authorization": CREDENTIAL.header["Authorization"],
    "origin": f"http://{HOST}",
    "sec_fetch_site": "same-origin",
}


def answer(kind: str = "http", method: str = "GET", *, path="/", **headers: str | list[str]) -> list[dict]:
    """What a request with these headers (`_` for `-`) is answered with."""

    async def app(scope, receive, send):
        await send({"type": "reached"})

    async def send(message):
        sent.append(message)

    sent: list[dict] = []
    pairs = [
        (name.replace("_", "-").encode(), one.encode())
        for name, value in headers.items()
        for one in ([value] if isinstance(value, str) else value)
    ]
    scope = {"type": kind, "path": path, "headers": pairs} | ({"method": method} if kind == "http" else {})
    asyncio.run(Guard(app, host=HOST, credential=CREDENTIAL, open_paths={"/health"})(scope, None, send))
    return sent


def reached(*arguments: str, **headers: str | list[str]) -> bool:
    return answer(*arguments, **headers) == [{"type": "reached"}]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_programs_and_the_own_page_are_let_in(kind):
    program = {name: OWN[name] for name in ("host", "authorization")}  # it says nothing of pages
    assert reached(kind, **program)
    assert reached(kind, **OWN)


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "foreign",
    [
        {"host": "evil.example"},
        {"host": "evil.example:4200"},
        {"host": "localhost:4200"},
        {"host": "127.0.0.1"},
        {"host": "127.0.0.1:4201"},
        {"host": [HOST, "evil.example"]},
        {"host": []},
        {"origin": "http://evil.example"},
        {"origin": "https://127.0.0.1:4200"},
        {"origin": "http://127.0.0.1:6666"},  # another user's page on the same machine
        {"origin": "null"},  # a file, or a frame in a sandbox
        {"origin": [f"http://{HOST}", "http://evil.example"]},
        {"sec_fetch_site": "cross-site", "origin": []},
        {"sec_fetch_site": "same-site", "origin": []},  # ports are one site
    ],
)
def test_other_names_and_other_pages_are_refused(kind, foreign):
    message, *_ = answer(kind, **OWN | foreign)
    if kind == "http":
        assert (message["type"], message["status"]) == ("http.response.start", 403)
    else:
        assert message["type"] == "websocket.close"


def test_a_link_on_another_page_leads_here_and_nothing_else_does():
    link = OWN | {"origin": [], "sec_fetch_site": "cross-site"}
    assert reached("http", "GET", **link, sec_fetch_dest="document")
    assert not reached("http", "POST", **link, sec_fetch_dest="document")
    for embedded in ("iframe", "image", "script", "empty"):
        assert not reached("http", "GET", **link, sec_fetch_dest=embedded), embedded


def test_the_refusal_says_where_the_server_is():
    *_, body = answer(host="localhost:4200")
    assert body["body"] == b"This server answers at http://127.0.0.1:4200 only.\n"


def test_a_servers_own_start_is_let_through():
    assert reached("lifespan")


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "given",
    [
        [],
        "Basic bGNvOmd1ZXNz",
        "Basic",
        "Bearer secret",
        "lco:secret",
        OWN["authorization"].lower(),
        OWN["authorization"] + " ",
        [OWN["authorization"], "Basic bGNvOmd1ZXNz"],
    ],
)
def test_a_request_without_the_credential_is_asked_for_it(kind, given):
    message, *_ = answer(kind, **OWN | {"authorization": given})
    if kind == "http":
        assert message["status"] == 401
        assert dict(message["headers"])[b"www-authenticate"].startswith(b"Basic ")
    else:
        assert message["type"] == "websocket.close"


def test_whether_the_server_lives_is_no_secret():
    assert reached(path="/health", host=HOST)
    for path in ("/health/", "/healthy", "/x/health", "/health/../x", "//health"):
        assert not reached(path=path, host=HOST), path
