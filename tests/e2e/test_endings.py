"""Runs that are killed, and a Prefect server that dies: what a person sees, and what the servers say later.

Real servers and processes, made-up stages; one output folder: a new Prefect database takes half a minute.
"""

import http.server
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import lco, start_lco
from tests.unit.infra.conftest import wait_until
from tests.unit.pipelines.fake_stages import LONG

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("endings")
    (place / "documents").mkdir()
    (place / "documents" / "a.txt").write_text("trang")
    return place


def start(place: Path, dose: int, **environment: str) -> subprocess.Popen:
    options = ["--documents", place / "documents", "--output", place / "output", "--doses", "0", str(dose)]
    command = [sys.executable, "-m", "tests.e2e.small_run", "run", *options, "--seeds", "0"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    (place / "go-on").unlink(missing_ok=True)
    environment["LCO_TEST_GO_ON"] = str(place / "go-on")
    return start_lco(command, environment=environment, start_new_session=True, **streams)


def in_the_middle_of_a_stage(run: subprocess.Popen, place: Path) -> psutil.Process:
    """The run, whose long stage is under way and known to MLflow."""
    assert run.stdout is not None
    told = []
    while not told or "(CGP): " not in told[-1]:
        told.append(run.stdout.readline())
        assert told[-1], "".join(told)
    # MLflow is told by the way. (Of a running task, Prefect's server shows now one state, now another.)
    assert wait_until(lambda: states(place)["mlflow"][-1:] == ["RUNNING"], 60), states(place)
    return psutil.Process(run.pid)


def states(place: Path) -> dict[str, list[str]]:
    """What Prefect says of flow and task runs, and MLflow of runs, oldest first."""
    prefect, mlflow = place / "output" / "prefect" / "prefect.db", place / "output" / "mlflow.db"
    asked = {
        "flows": (prefect, "select state_name from flow_run order by created"),
        "mlflow": (mlflow, "select status from runs where name like 'lco tiny %' order by start_time"),
        "cells": (mlflow, "select distinct status from runs order by 1"),
    }
    found = {}
    for name, (path, question) in asked.items():
        with closing(sqlite3.connect(path)) as database:
            found[name] = [row[0] for row in database.execute(question)]
    return found


def test_a_dead_server_loses_no_verdict_and_the_start_before_gave_a_killed_run_its_end(place: Path) -> None:
    killed = start(place, LONG)
    in_the_middle_of_a_stage(killed, place).kill()
    killed.wait()
    assert states(place)["flows"] == ["Running"]
    assert states(place)["mlflow"] == ["RUNNING"]

    run = start(place, LONG)
    servers = [
        one for one in in_the_middle_of_a_stage(run, place).children() if "pipelines.servers" in one.cmdline()
    ]
    assert states(place)["flows"] == ["Crashed", "Running"]  # the killed one has its end
    for server in servers:
        server.kill()
    (place / "go-on").touch()
    shown, _ = run.communicate(timeout=120)
    assert run.returncode == 0, shown
    assert "Verdict: inconclusive" in shown and "Traceback" not in shown
    assert shown.count("Prefect's server did not answer at the end") == 1
    assert states(place)["flows"] == ["Crashed", "Running"]
    assert states(place)["mlflow"] == ["KILLED", "FINISHED"]


def test_a_closed_terminal_stops_a_run_that_says_so_everywhere(place: Path) -> None:
    run = start(place, LONG + 32)
    in_the_middle_of_a_stage(run, place)
    assert states(place)["flows"] == ["Crashed", "Completed", "Running"]  # what the dead server missed
    os.killpg(run.pid, signal.SIGHUP)
    shown, _ = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM  # as which it is handled
    assert shown.splitlines()[-1] == "lco: interrupted; what was committed is kept, run again to continue"
    assert states(place) == {
        "flows": ["Crashed", "Completed", "Crashed"],
        "mlflow": ["KILLED", "FINISHED", "KILLED"],
        "cells": ["FINISHED", "KILLED"],
    }


def test_a_verdict_that_mlflow_does_not_take_stands_and_the_next_run_sends_it(place: Path) -> None:
    shown = short_run(place, LCO_TRACKING_URI="http://127.0.0.1:1")
    assert "Verdict: inconclusive" in shown and shown.count("MLFLOW TAKES NO EVENTS: ") == 1
    reason = "LCO_TRACKING_URI=http://127.0.0.1:1 does not answer: start that server, or unset the variable"
    [told] = [line for line in shown.splitlines() if line.startswith("MLflow:  ")]
    assert told.startswith(f"MLflow:  does not have this run: {reason}. What is missing waits in {place}")
    with closing(sqlite3.connect(place / "output" / "prefect" / "prefect.db")) as database:
        newest = "select data from artifact where key = 'run-card' order by created desc limit 1"
        [(card,)] = database.execute(newest)
    assert f"MLflow does not have this run: {reason}" in card and "lco up" not in card
    before = states(place)["mlflow"]
    shown = short_run(place)
    assert "NO EVENTS" not in shown and "MLflow:  " in shown and "lco up --output" in shown
    assert states(place)["mlflow"] == [*before, "FINISHED", "FINISHED"]


def short_run(place: Path, **environment: str) -> str:
    """What a run shows that computes next to nothing and ends well."""
    run = start(place, 32, **environment)
    shown, _ = run.communicate(timeout=200)
    assert run.returncode == 0, shown
    return shown


class LocksUsOut(http.server.BaseHTTPRequestHandler):
    """A Prefect server that lives and asks for a credential."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/health" else 401)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("behind_a_proxy", [False, True])
def test_a_server_of_the_user_that_does_not_let_us_in_is_one_line(place: Path, behind_a_proxy: bool) -> None:
    """It is reached as `prefect` reaches it: one behind a proxy, through that."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), LocksUsOut) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_address[1]}"
        address = "http://prefect.invalid/api" if behind_a_proxy else f"{here}/api"
        variables = {"PREFECT_API_URL": address, "HTTP_PROXY": here, "ALL_PROXY": ""}
        options = ["--documents", place / "documents", "--output", place / "other"]
        result = lco("run", *options, **variables, timeout=120)
        server.shutdown()
    assert result.returncode == 2
    [told] = result.stderr.splitlines()
    assert told.startswith(
        f"lco: PREFECT_API_URL={address} does not let us in (401): set PREFECT_API_AUTH_STRING"
    )
