"""MLflow gets the run tree; one that is down costs a warning, nothing is lost, and nobody waits."""

import json
import math
import threading
import time
from pathlib import Path

import pytest

from infra import mlflow_shipper
from infra.journal import JOURNAL, Journal
from infra.mlflow_client import MLflow, mlflow_name
from infra.mlflow_shipper import ShippedJournal, Shipper, ship_pending
from infra.settings import Settings
from tests.unit.infra.conftest import wait_until


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    """MLflow on SQLite, as `lco run` uses it without a server."""
    return Settings(output=tmp_path_factory.mktemp("output"))


@pytest.fixture(scope="module")
def mlflow(settings) -> MLflow:
    return MLflow(settings)


class Recorder:
    """An MLflow in memory that can be broken, for good or after some calls."""

    def __init__(self, working_calls: float = math.inf):
        self.calls: list[tuple] = []
        self.working_calls = working_calls

    def __getattr__(self, name):
        def call(*arguments, **options):
            if len(self.calls) >= self.working_calls:
                raise ConnectionError("refused")
            self.calls.append((name, arguments, options))
            return f"run{len(self.calls)}"

        return call

    def names(self) -> list[str]:
        return [name for name, *_ in self.calls]


@pytest.fixture
def journal(tmp_path) -> Journal:
    """Of a run of its own output folder, `tmp_path`."""
    folder = tmp_path / "runs" / "1"
    folder.mkdir(parents=True)
    return Journal(folder / JOURNAL)


def use(recorder: Recorder, monkeypatch) -> Recorder:
    monkeypatch.setattr(mlflow_shipper, "MLflow", lambda settings: recorder)
    return recorder


CALLS = ["start", "log", "start", "log", "log", "log", "inputs", "artifact", "log", "finish", "finish"]


def record_everything(journal: Journal, folder: Path) -> None:
    """Use every kind of event once, as the flow does."""
    figure = folder / "curve.txt"
    figure.write_text("figure")
    journal.start("run", "lco tiny", tags={"verdict": "open"}, params={"recipe": "tiny", "doses": (0, 300)})
    journal.start("cell", "dose 300", parent="run", tags={"dose": 300})
    for step in range(3):
        journal.progress("cell", label="", step=step, done=step, total=3, metrics={"loss": float(step)})
    journal.metrics("run", {"dose/ndcg@10": 0.35}, step=300)
    journal.inputs("cell", [{"name": "target", "digest": "ab" * 32, "source": "/s/x", "context": "training"}])
    journal.artifact("run", figure, "figures")
    journal.tags("run", {"verdict": "supported"})
    journal.finish("cell", "FAILED")
    journal.finish("run", "FINISHED")
    figure.unlink()


def assert_everything(mlflow: MLflow, run: str) -> None:
    client = mlflow._client
    parent = client.get_run(run)
    children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run}'")
    assert (parent.info.run_name, parent.info.status) == ("lco tiny", "FINISHED")
    assert parent.data.params == {"recipe": "tiny", "doses": "(0, 300)"}
    assert parent.data.tags["verdict"] == "supported"
    found = [(child.info.run_name, child.info.status, child.data.tags["dose"]) for child in children]
    assert found == [("dose 300", "FAILED", "300")]
    history = client.get_metric_history(children[0].info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    (curve,) = client.get_metric_history(run, "dose/ndcg_at_10")
    assert (curve.step, curve.value) == (300, 0.35)
    assert abs(curve.timestamp / 1000 - time.time()) < 60
    (dataset,) = children[0].inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("target", ("ab" * 32)[:36])
    assert json.loads(dataset.dataset.source) == {"uri": "/s/x", "digest": "ab" * 32}
    assert [tag.value for tag in dataset.tags] == ["training"]
    assert [file.path for file in client.list_artifacts(run, "figures")] == ["figures/curve.txt"]


def new_run(mlflow: MLflow, name: str = "one") -> str:
    return mlflow.start(name, parent=None, tags={}, when=0)


def test_mlflow_holds_the_whole_tree_and_nothing_is_printed(settings, mlflow, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = settings.runs / "1" / JOURNAL
    path.parent.mkdir(parents=True)
    with Shipper(settings, path) as shipper:
        record_everything(Journal(path), tmp_path)
        run = shipper.run_id("run")
    assert shipper.failure is None and shipper.page("run") is None
    assert_everything(mlflow, run)
    assert capfd.readouterr() == ("", "")
    assert not list((path.parent / "artifacts").iterdir())  # the copies are with MLflow
    assert [file.name for file in tmp_path.iterdir()] == []  # no ./mlruns, no ./mlflow.db


def test_more_than_a_batch_of_metrics_params_and_tags(mlflow, monkeypatch):
    sizes = []

    def log_batch(*arguments, original=mlflow._client.log_batch, **options):
        sizes.append({kind: len(entries) for kind, entries in options.items()})
        return original(*arguments, **options)

    monkeypatch.setattr(mlflow._client, "log_batch", log_batch)
    run = new_run(mlflow)
    params = {f"p{n}": str(n) for n in range(250)} | {"long": "x" * 9000}
    metrics = [("loss", n, n, n) for n in range(2500)]
    mlflow.log(run, params=params, tags={"long": "y" * 9000}, metrics=metrics)
    found = mlflow._client.get_run(run)
    assert len(found.data.params) == 251
    assert len(found.data.params["long"]) == 6000 and "9000 characters, sha256" in found.data.params["long"]
    assert len(found.data.tags["long"]) == 8000
    assert len(mlflow._client.get_metric_history(run, "loss")) == 2500
    # A server refuses more than 1000 metrics or 100 params per request; SQLite without one takes any number.
    assert [size["metrics"] for size in sizes] == [800, 800, 800, 100]
    assert max(size["params"] for size in sizes) == 100


def test_a_point_that_is_sent_again_is_the_same_point(mlflow):
    run = new_run(mlflow)
    for _ in range(2):
        mlflow.log(run, metrics=[("loss", 0.5, 1_700_000_000_000, 3), ("gap", math.nan, 1, 3)])
    assert len(mlflow._client.get_metric_history(run, "loss")) == 1
    assert math.isnan(mlflow._client.get_run(run).data.metrics["gap"])


@pytest.mark.parametrize("name", ["ndcg@10", "recall@1 (low)", "a[0]", "loss%", "tên"])
def test_every_name_becomes_one_that_mlflow_takes(mlflow, name):
    run = new_run(mlflow)
    mlflow.log(run, metrics=[(name, 0.0, 1, 0)])
    assert mlflow._client.get_run(run).data.metrics == {mlflow_name(name): 0.0}


def test_metrics_go_in_batches_and_before_the_status_and_those_of_no_run_are_named(journal, caplog):
    recorder = Recorder()
    journal.metrics("nobody", {"loss": 1.0}, step=1)
    for run in ("a", "b"):
        journal.start(run, run)
    for step in range(200):
        journal.progress("a", label="", step=step, done=step, total=200, metrics={"loss": 1.0})
        journal.progress("b", label="", step=step, done=step, total=200, metrics={"loss": 1.0, "rate": 2.0})
    journal.finish("a")
    ShippedJournal(journal.path).ship(recorder)
    metrics = [(arguments[0], len(options["metrics"])) for _, arguments, options in recorder.calls[4:-1]]
    assert metrics == [("run1", 200), ("run3", 400)]
    assert recorder.names()[-1] == "finish"
    assert "skipped metrics of 'nobody', which was not started" in caplog.text


def test_metrics_are_sent_while_the_run_goes_on(journal, tmp_path, monkeypatch):
    recorder = use(Recorder(), monkeypatch)
    monkeypatch.setattr(mlflow_shipper, "POLL_SECONDS", 0.05)
    with Shipper(Settings(output=tmp_path), journal.path):
        journal.start("run", "lco")
        journal.metrics("run", {"loss": 1.0}, step=1)
        assert wait_until(lambda: len(recorder.calls) == 3)
        assert recorder.names() == ["start", "log", "log"]


def test_nobody_waits_for_mlflow(journal, tmp_path, monkeypatch, caplog):
    answered = threading.Event()
    monkeypatch.setattr(mlflow_shipper, "MLflow", lambda settings: answered.wait(30))
    monkeypatch.setattr(mlflow_shipper, "FLUSH_SECONDS", 0.2)
    began = time.monotonic()
    with Shipper(Settings(output=tmp_path), journal.path):
        record_everything(journal, tmp_path)
    assert time.monotonic() - began < 5
    assert f"wait in {journal.path}" in caplog.text
    answered.set()


@pytest.mark.chaos
@pytest.mark.parametrize("working_calls", range(len(CALLS)))
def test_mlflow_dies_at_any_call_and_nothing_is_lost_or_sent_twice(
    journal, tmp_path, monkeypatch, caplog, working_calls
):
    recorder = use(Recorder(working_calls), monkeypatch)
    runs = tmp_path / "runs"
    with Shipper(Settings(output=tmp_path), journal.path) as shipper:
        record_everything(journal, tmp_path)
    assert "refused" in shipper.failure
    assert caplog.text.count("MLFLOW TAKES NO EVENTS") == 1
    assert caplog.text.count(f"wait in {journal.path}") == 1
    ship_pending(runs, recorder)  # interrupted again
    assert f"{journal.path} cannot be sent (ConnectionError: refused)" in caplog.text
    assert len(recorder.calls) == working_calls
    recorder.working_calls = math.inf
    ship_pending(runs, recorder)
    again = [4] if working_calls == 5 else []  # the batch of one of two runs went out alone: the same points
    assert [name for number, name in enumerate(recorder.names()) if number not in again] == CALLS
    assert recorder.calls[2][2]["parent"] == "run1"  # also where the parent began before and the child after
    assert [arguments[0] for name, arguments, _ in recorder.calls if name == "finish"] == ["run3", "run1"]
    sent = len(recorder.calls)
    ship_pending(runs, recorder)
    assert len(recorder.calls) == sent and not list((journal.path.parent / "artifacts").iterdir())


def spoil_artifact(journal: Path) -> None:
    next((journal.parent / "artifacts").rglob("curve.txt")).unlink()


def spoil_kind(journal: Path) -> None:
    journal.write_bytes(journal.read_bytes().replace(b'{"event": "tags"', b'{"event": "marks"', 1))


def spoil_fields(journal: Path) -> None:
    journal.write_bytes(journal.read_bytes().replace(b'"step"', b'"place"', 1))


def spoil_run(journal: Path) -> None:
    """Its events belong to a run that MLflow no longer has."""
    state = {"offset": journal.read_bytes().index(b'{"event": "progress"'), "runs": {"run": "r", "cell": "c"}}
    journal.with_name(f"{JOURNAL}.shipped").write_text(json.dumps(state))


@pytest.mark.chaos
@pytest.mark.parametrize("spoil", [spoil_artifact, spoil_kind, spoil_fields, spoil_run])
def test_a_journal_that_cannot_be_sent_stops_neither_the_others_nor_this_run(
    settings, mlflow, tmp_path, caplog, spoil
):
    spoilt, good, own = (settings.runs / f"{spoil.__name__}{n}" / JOURNAL for n in range(3))
    for path in (spoilt, good):
        path.parent.mkdir()
        record_everything(Journal(path), tmp_path)
    spoil(spoilt)
    own.parent.mkdir()
    with Shipper(settings, own) as shipper:
        Journal(own).start("run", "own")
        assert shipper.run_id("run")
        Journal(own).finish("run")
        assert wait_until(lambda: ShippedJournal(good).offset == good.stat().st_size)
    assert shipper.failure is None
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert f"{spoilt} cannot be sent (" in caplog.text
    assert f"{own}" not in caplog.text and f"{good}" not in caplog.text
    assert ShippedJournal(spoilt).offset < spoilt.stat().st_size
    assert_everything(mlflow, ShippedJournal(good).runs["run"])
    spoilt.unlink()


def test_a_journal_that_is_still_written_is_left_alone(journal, tmp_path, monkeypatch):
    recorder = use(Recorder(working_calls=0), monkeypatch)
    runs = tmp_path / "runs"
    with Shipper(Settings(output=tmp_path), journal.path) as shipper:
        journal.start("run", "lco")
        shipper.flush()
        recorder.working_calls = math.inf
        ship_pending(runs, recorder)
        assert not recorder.calls
    ship_pending(runs, recorder)
    assert recorder.names() == ["start", "log", "finish"]


def test_runs_of_a_killed_process_get_their_end_and_a_torn_line_is_dropped(journal, tmp_path):
    recorder = Recorder()
    journal.start("run", "lco")
    journal.start("cell", "dose 300", parent="run")
    with journal.path.open("ab") as stream:
        stream.write(b'{"event": "finish", "ru')
    ship_pending(tmp_path / "runs", recorder)
    assert [call[1] for call in recorder.calls[-2:]] == [("run3", "KILLED"), ("run1", "KILLED")]


@pytest.mark.parametrize("lost", ["run", "cell"])
def test_a_lost_start_costs_the_events_of_its_run_and_no_others(journal, tmp_path, caplog, lost):
    record_everything(journal, tmp_path)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    start = f'{{"event": "start", "run": "{lost}"'.encode()
    journal.path.write_bytes(b"".join(line for line in lines if not line.startswith(start)))
    recorder = Recorder()
    ship_pending(tmp_path / "runs", recorder)
    kept = {"run": "dose 300", "cell": "lco tiny"}[lost]
    assert [call[1] for call in recorder.calls if call[0] == "start"] == [(kept,)]
    assert [call[1] for call in recorder.calls if call[0] == "finish"] == [
        ("run1", {"run": "FAILED", "cell": "FINISHED"}[lost])
    ]
    assert f"of {lost!r}, which was not started" in caplog.text and "cannot be sent" not in caplog.text
    assert ShippedJournal(journal.path).offset == journal.path.stat().st_size


@pytest.mark.chaos
def test_a_run_that_ends_at_once_still_tells_how_an_earlier_one_ended(journal, tmp_path, monkeypatch):
    recorder = use(Recorder(), monkeypatch)
    journal.start("run", "killed")  # and nothing more
    real = mlflow_shipper.ship_pending

    def slowly(runs, mlflow):
        time.sleep(1.5)  # MLflow takes its time
        real(runs, mlflow)

    monkeypatch.setattr(mlflow_shipper, "ship_pending", slowly)
    own = tmp_path / "runs" / "2" / JOURNAL
    own.parent.mkdir()
    with Shipper(Settings(output=tmp_path), own):
        Journal(own).start("run", "own")
        Journal(own).finish("run")
    ends = [call[1][1] for call in recorder.calls if call[0] == "finish"]
    assert sorted(ends) == ["FINISHED", "KILLED"]  # which is sent first, the machine's load decides


@pytest.mark.chaos
def test_no_server_at_the_address_is_a_warning_and_is_sent_later(settings, mlflow, tmp_path, caplog):
    down = Settings(output=settings.output, tracking_uri="http://127.0.0.1:9")
    path = settings.runs / "down" / JOURNAL
    path.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with Shipper(down, path) as shipper:
        record_everything(Journal(path), tmp_path)
        assert shipper.page("run") is None
    assert time.monotonic() - began < 30
    assert "MLFLOW TAKES NO EVENTS" in caplog.text
    ship_pending(settings.runs, mlflow)
    assert_everything(mlflow, ShippedJournal(path).runs["run"])


def test_a_password_in_the_address_is_not_shown(journal, caplog, monkeypatch):
    def refuse(uri):
        raise ConnectionError(f"API request to {uri}/api/2.0/mlflow failed")

    monkeypatch.setattr("infra.mlflow_client._quiet_client", refuse)
    settings = Settings(output=journal.path.parent, tracking_uri="https://anna:secret@mlflow.example:5000")
    with Shipper(settings, journal.path) as shipper:
        journal.start("run", "lco")
    message = "ConnectionError: API request to https://mlflow.example:5000/api/2.0/mlflow failed"
    assert shipper.failure == message
    assert "mlflow.example" in caplog.text and "secret" not in caplog.text


def test_the_page_of_a_run_holds_no_password(monkeypatch):
    monkeypatch.setattr("infra.mlflow_client._quiet_client", lambda uri: None)
    monkeypatch.setattr(MLflow, "_find_or_create", lambda *arguments: "7")
    page = MLflow(Settings(tracking_uri="http://anna:secret@mlflow.example:5000/")).page("r")
    assert page == "http://mlflow.example:5000/#/experiments/7/runs/r?workflowType=machine_learning"
