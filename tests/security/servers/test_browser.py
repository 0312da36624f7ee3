"""A hostile page in a browser that is signed in gets nowhere, though it has even been given the credential.

pytest tests/security -m browser        (needs Chromium: apt-get install chromium)
"""

import base64
import contextlib
import http.server
import json
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest

from pipelines.servers import free_port
from tests.security.servers.conftest import Target

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

SIGNED_IN = "/?signed-in"
PAGE = """<!doctype html><meta charset="utf-8"><script>
const told = [];
async function attempt(name, action) {
  try { told.push(name + ": " + await action()); } catch (error) { told.push(name + ": refused"); }
}
function socket(address) {
  return new Promise((opened, failed) => {
    const line = new WebSocket(address, ["prefect"]);
    line.onopen = () => opened("OPEN");
    line.onerror = failed;
  });
}
async function status(address, options) { return "READ " + (await fetch(address, options)).status; }
async function attack(given) {
  const body = JSON.stringify({name: "intruder"}), known = {"Authorization": given.authorization};
  const json = {...known, "Content-Type": "application/json"};
  window.open(given.sign_in);  // from now on, the browser sends the credential by itself
  await new Promise(later => setTimeout(later, 5000));
  for (const address of given.addresses) {
    await attempt("read " + address, () => status(address, {headers: known}));
    await attempt("signed in " + address, () => status(address, {credentials: "include"}));
    await attempt("write " + address, () => status(address, {method: "POST", headers: json, body}));
    await attempt("blind " + address, async () => {
      await fetch(address, {method: "POST", mode: "no-cors", credentials: "include", body});
      return "sent";
    });
  }
  for (const address of given.sockets) await attempt(address, () => socket(address));
  await fetch("/", {method: "POST", body: JSON.stringify(told)});
}
attack(GIVEN);
</script>"""


def pair_of(target: Target) -> str:
    return base64.b64decode(target.credential["Authorization"].removeprefix("Basic ")).decode()


def addresses(target: Target) -> list[str]:
    path = {"prefect": "/api/flows/", "mlflow": "/api/2.0/mlflow/experiments/create"}[target.name]
    port = target.host.split(":")[1]
    # The last is a name of the attacker's that leads here: the browser then takes both for one site.
    return [f"http://{host}:{port}{path}" for host in ("127.0.0.1", "localhost", "rebound.test")]


@pytest.fixture
def hostile_page(servers) -> Iterator[tuple[int, Queue]]:
    """Its port, and where it tells what came of each attempt."""
    given = {
        "addresses": [address for target in servers.values() for address in addresses(target)],
        "sockets": [f"ws://{target.host}{path}" for target in servers.values() for path in target.sockets],
        "authorization": servers["prefect"].credential["Authorization"],
        "sign_in": f"http://{pair_of(servers['mlflow'])}@{servers['mlflow'].host}{SIGNED_IN}",
    }
    told: Queue = Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE.replace("GIVEN", json.dumps(given)).encode())

        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], told
        server.shutdown()


@contextlib.contextmanager
def opened(address: str, profile: Path) -> Iterator[None]:
    """In Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "Chromium is not installed"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    options += [f"--user-data-dir={profile}", "--remote-debugging-port=0", "--disable-popup-blocking"]
    options += ["--host-resolver-rules=MAP rebound.test 127.0.0.1, MAP evil.test 127.0.0.1"]
    with subprocess.Popen([chromium, *options, address], stderr=subprocess.DEVNULL) as browser:
        try:
            yield
        finally:
            browser.terminate()


@pytest.mark.parametrize("origin", ["127.0.0.1", "evil.test"])
def test_a_hostile_page_reads_nothing_and_changes_nothing(servers, hostile_page, tmp_path, origin):
    port, told = hostile_page
    with opened(f"http://{origin}:{port}/", tmp_path):
        attempts = told.get(timeout=200)
    assert f'"GET {SIGNED_IN} HTTP/1.1" 200' in servers["mlflow"].log_path.read_text()
    assert len(attempts) >= 4 * 6 + 5
    for attempt in attempts:
        assert attempt.endswith(": sent" if attempt.startswith("blind ") else ": refused")
    for target in servers.values():
        assert "intruder" not in everything(target)


def everything(target: Target) -> str:
    """The flows, or the experiments, that the server knows."""
    path = {"prefect": "/api/flows/filter", "mlflow": "/api/2.0/mlflow/experiments/search"}[target.name]
    body = {"prefect": b"{}", "mlflow": b'{"max_results": 1000}'}[target.name]
    headers = {"Content-Type": "application/json"} | dict(target.credential)
    request = urllib.request.Request(f"http://{target.host}{path}", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.read().decode()


def test_what_the_page_sends_blind_would_change_something_if_it_were_let_in(servers):
    """Else the other test would show nothing."""
    for target in servers.values():
        [address, *_] = addresses(target)
        headers = {"Content-Type": "application/json"} | dict(target.credential)
        request = urllib.request.Request(address, data=b'{"name": "invited"}', headers=headers)
        with urllib.request.urlopen(request, timeout=30):
            pass
        assert "invited" in everything(target)
