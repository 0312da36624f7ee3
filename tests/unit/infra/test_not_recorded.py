"""What MLflow does not take is told once, when it is found out, and at the end: what, why, where it waits and
what to do."""

import http.server
import math
import subprocess
import threading
import time

import pytest

from infra import mlflow_shipper
from infra.journal import JOURNAL, Journal
from infra.mlflow_client import MLflow
from infra.mlflow_shipper import Shipper
from infra.settings import Settings
from tests.unit.infra.conftest import wait_until
from tests.unit.infra.databases import execute
from tests.unit.infra.test_mlflow_shipper import Recorder, record_everything, spoil_kind, use

pytestmark = pytest.mark.chaos


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(output=tmp_path / "output")


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """No wait between tries, and none for an MLflow that is down."""
    monkeypatch.setattr(mlflow_shipper, "RETRY_SECONDS", 0.05)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


class OneRun:
    """A run of an output folder, and what it tells."""

    def __init__(self, settings: Settings, name: str = "1") -> None:
        folder = settings.runs / name
        folder.mkdir(parents=True)
        self.journal, self.told = Journal(folder / JOURNAL), []
        self.shipper = Shipper(settings, self.journal.path, tell=self.told.append)

    def whole(self, folder) -> "OneRun":
        with self.shipper:
            record_everything(self.journal, folder)
        return self

    def end(self) -> str:
        """The line at the end."""
        assert not self.shipper.sent
        [line] = self.shipper.missing
        waits = f"What is missing waits in {self.journal.path}; the next run on this output folder sends it."
        assert line.endswith(waits)
        return line


def assert_told_once(run: OneRun, reason: str) -> None:
    waits = f"The run goes on; its events wait in {run.journal.path}."
    assert run.told == [f"MLFLOW TAKES NO EVENTS: {reason}. {waits}"]


def test_a_run_that_is_recorded_tells_nothing(settings, tmp_path):
    run = OneRun(settings).whole(tmp_path)
    assert (run.told, run.shipper.missing, run.shipper.sent) == ([], [], True)


def test_a_deleted_experiment_and_the_command_that_restores_it(settings, tmp_path):
    mlflow = MLflow(settings)
    mlflow._client.delete_experiment(mlflow._experiment)
    run = OneRun(settings).whole(tmp_path)
    assert "does not have this run: MLflow experiment 'lco' is deleted: restore it (" in run.end()
    assert_told_once(run, run.shipper.failure)
    assert run.shipper.failure.endswith("or set LCO_EXPERIMENT to another name")
    restore = run.shipper.failure.partition("restore it (")[2].partition("), or")[0]
    subprocess.run(restore, shell=True, check=True, timeout=120, capture_output=True)
    after = OneRun(settings, "2").whole(tmp_path)
    assert (after.told, after.shipper.missing) == ([], [])
    assert Shipper(settings, run.journal.path).missing == []


def test_an_experiment_that_is_deleted_in_the_middle_of_a_run(settings):
    run = OneRun(settings)
    with run.shipper as shipper:
        run.journal.start("run", "lco")
        assert shipper.run_id("run")
        mlflow = MLflow(settings)
        mlflow._client.delete_experiment(mlflow._experiment)
        run.journal.finish("run")
        assert wait_until(lambda: run.told)
    assert "has only a part of this run: MLflow experiment 'lco' is deleted: restore it (" in run.end()


def test_a_tracker_that_comes_back_says_so_and_all_is_as_usual(settings, tmp_path, monkeypatch):
    recorder = use(Recorder(working_calls=0), monkeypatch)
    run = OneRun(settings)
    with run.shipper as shipper:
        record_everything(run.journal, tmp_path)
        assert wait_until(lambda: run.told)
        recorder.working_calls = math.inf
        assert wait_until(lambda: len(run.told) == 2)
        assert shipper.sent
    assert run.told[1] == "MLflow takes events again; what waited is sent."
    assert shipper.missing == [] and recorder.names()[-1] == "finish"


def test_one_that_came_back_is_asked_once_more_at_the_end(settings, monkeypatch):
    monkeypatch.setattr(mlflow_shipper, "RETRY_SECONDS", 600)
    recorder = use(Recorder(working_calls=0), monkeypatch)
    run = OneRun(settings)
    with run.shipper as shipper:
        run.journal.start("run", "lco")
        assert wait_until(lambda: run.told)
        recorder.working_calls = math.inf
    assert shipper.sent and shipper.missing == []


class Answers(http.server.BaseHTTPRequestHandler):
    """Something that is no MLflow, or does not let us in."""

    def do_GET(self):
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"<html>\nHello")

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (None, "%s does not answer: start that server, or unset the variable"),
        (401, "%s does not let us in: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (403, "%s does not let us in: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (404, "what answers at %s is no MLflow: give the address of one, or unset the variable"),
        (503, "%s does not answer: start that server, or unset the variable"),
    ],
)
def test_an_address_without_an_mlflow(settings, status, words):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.status = status
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1] if status else 1
        address = f"http://anna:secret@127.0.0.1:{port}"
        run = OneRun(settings.model_copy(update={"tracking_uri": address}))
        with run.shipper:
            run.journal.start("run", "lco")
        server.shutdown()
    assert_told_once(run, words % f"LCO_TRACKING_URI=http://127.0.0.1:{port}")
    assert "does not have this run: " in run.end() and "secret" not in run.end()


def test_one_that_never_answers_is_told_at_the_end(settings, tmp_path, monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(mlflow_shipper, "MLflow", lambda settings: answered.wait(60))
    monkeypatch.setattr(mlflow_shipper, "FLUSH_SECONDS", 0.2)
    run = OneRun(settings).whole(tmp_path)
    assert_told_once(run, "it has not answered in time")
    assert "does not have this run: it has not answered in time." in run.end()
    answered.set()
    run.shipper._thread.join(60)  # alembic, which makes a database, is not for two threads at once


def test_a_store_that_takes_no_artifacts(settings, tmp_path):
    MLflow(settings)
    settings.artifact_root.write_text("no folder")
    run = OneRun(settings).whole(tmp_path)
    assert "has only a part of this run: " in run.end() and str(settings.artifact_root) in run.end()
    settings.artifact_root.unlink()
    assert OneRun(settings, "2").whole(tmp_path).shipper.missing == []
    assert Shipper(settings, run.journal.path).sent


def test_an_event_that_mlflow_refuses_for_ever(settings, tmp_path):
    run = OneRun(settings)
    with run.shipper:
        run.journal.start("run", "lco", params={"recipe": "tiny"})
        run.journal.start("run", "lco", params={"recipe": "smoke"})  # MLflow lets no param change
        run.journal.finish("run")
    assert "has only a part of this run: MlflowException: " in run.end()
    assert "\n" not in run.end()
    after = OneRun(settings, "2").whole(tmp_path)
    assert after.shipper.sent and after.told == after.shipper.missing
    [line] = after.told
    assert line.startswith(f"Tracking events in {run.journal.path} cannot be sent (MlflowException: ")
    assert line.endswith("They stay, the next run tries again; delete the file to give them up.")


def test_earlier_journals_that_cannot_be_sent_are_one_line(settings, tmp_path):
    for name in ("1", "2", "3"):
        path = OneRun(settings, name).journal.path
        record_everything(Journal(path), tmp_path)
        spoil_kind(path)
    run = OneRun(settings, "4").whole(tmp_path)
    [line] = run.told
    assert line.startswith(f"Tracking events in {settings.runs / '1' / JOURNAL} cannot be sent (ValueError: ")
    assert line.endswith("So it is with 2 more: see the log.")
    assert run.shipper.sent and run.shipper.missing == [line]


def test_a_database_of_another_version(settings, tmp_path):
    MLflow(settings)
    execute(settings.output / "mlflow.db", "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    run = OneRun(settings).whole(tmp_path)
    assert f"MLflow's database {settings.output / 'mlflow.db'} was written by a newer version" in run.end()


def test_a_run_that_ends_while_mlflow_is_asked_loses_nothing(settings, tmp_path, monkeypatch):
    """The last events come while the last try is under way."""
    recorder = use(Recorder(), monkeypatch)
    asked = threading.Event()
    log = recorder.log

    def slowly(*arguments, **options):
        asked.set()
        time.sleep(0.5)
        return log(*arguments, **options)

    recorder.log = slowly
    run = OneRun(settings)
    with run.shipper:
        run.journal.start("run", "lco")
        assert asked.wait(10)
        run.journal.finish("run")
    assert run.shipper.sent and recorder.names()[-1] == "finish"
