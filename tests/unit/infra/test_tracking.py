"""MLflow gets the run tree; a tracker that is down costs a warning, and nothing is lost."""

import json
import math
import threading
import time
from pathlib import Path

import pytest

from infra.file_tracker import FileTracker, replay
from infra.mlflow_tracker import MLflowTracker, mlflow_name
from infra.settings import Settings
from infra.tracker import Point
from infra.tracking import ResilientTracker, open_tracker, replay_pending


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory) -> MLflowTracker:
    """MLflow on SQLite, as `lco run` uses it without a server."""
    folder = tmp_path_factory.mktemp("mlflow")
    return MLflowTracker(
        f"sqlite:///{folder}/sub/mlflow.db", experiment="lco", artifact_root=folder / "artifacts"
    )


class Recorder:
    """A tracker in memory that can be broken, for good or after some calls."""

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

    def of(self, name: str) -> list[tuple]:
        return [(arguments, options) for called, arguments, options in self.calls if called == name]


def points(count: int, key: str = "loss") -> list[Point]:
    return [Point(key=key, value=float(n), step=n, timestamp=1_700_000_000_000 + n) for n in range(count)]


def record_everything(tracker, tmp_path: Path) -> str:
    """Use every method once, as the flow does; return the parent's id."""
    figure = tmp_path / "curve.txt"
    figure.write_text("figure")
    run = tracker.start_run(
        "lco tiny", tags={"verdict": "open"}, params={"recipe": "tiny", "doses": (0, 300)}
    )
    child = tracker.start_run("dose 300", parent=run, tags={"dose": 300})
    tracker.log_points(child, points(3))
    tracker.log_points(run, [Point(key="dose/ndcg@10", value=0.35, step=300, timestamp=1_700_000_000_000)])
    tracker.log_dataset(child, name="target", digest="ab" * 32, source="/store/x", context="training")
    tracker.log_artifact(run, figure, "figures")
    tracker.set_tags(run, {"verdict": "supported"})
    tracker.finish_run(child, "FAILED")
    tracker.finish_run(run, "FINISHED")
    figure.unlink()
    return run


def assert_everything(mlflow: MLflowTracker, run: str) -> None:
    client = mlflow._client
    parent = client.get_run(run)
    children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run}'")
    assert (parent.info.run_name, parent.info.status) == ("lco tiny", "FINISHED")
    assert parent.data.params == {"recipe": "tiny", "doses": "(0, 300)"}
    assert parent.data.tags["verdict"] == "supported"
    assert [(c.info.run_name, c.info.status, c.data.tags["dose"]) for c in children] == [
        ("dose 300", "FAILED", "300")
    ]
    history = client.get_metric_history(children[0].info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 0.0), (1, 1.0), (2, 2.0)]
    (curve,) = client.get_metric_history(run, "dose/ndcg_at_10")
    assert (curve.step, curve.value) == (300, 0.35)
    (dataset,) = children[0].inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("target", ("ab" * 32)[:36])
    assert json.loads(dataset.dataset.source) == {"uri": "/store/x", "digest": "ab" * 32}
    assert [tag.value for tag in dataset.tags] == ["training"]
    assert [file.path for file in client.list_artifacts(run, "figures")] == ["figures/curve.txt"]


def test_mlflow_holds_the_whole_tree(mlflow, tmp_path):
    assert_everything(mlflow, record_everything(mlflow, tmp_path))


def test_a_replayed_file_gives_the_same_tree(mlflow, tmp_path):
    tracker = FileTracker(tmp_path / "pending" / "one")
    run = record_everything(tracker, tmp_path)
    tracker.close()
    assert_everything(mlflow, replay(tracker.folder, mlflow)[run])


def test_more_than_a_batch_of_metrics_params_and_tags(mlflow, monkeypatch):
    sizes = []

    def log_batch(*arguments, original=mlflow._client.log_batch, **options):
        sizes.append({kind: len(entries) for kind, entries in options.items()})
        return original(*arguments, **options)

    monkeypatch.setattr(mlflow._client, "log_batch", log_batch)
    run = mlflow.start_run(
        "many", params={f"p{n}": n for n in range(250)} | {"long": "x" * 9000}, tags={"long": "y" * 9000}
    )
    mlflow.log_points(run, points(2500))
    found = mlflow._client.get_run(run)
    assert len(found.data.params) == 251
    assert len(found.data.params["long"]) == 6000 and "9000 characters, sha256" in found.data.params["long"]
    assert len(found.data.tags["long"]) == 8000
    assert len(mlflow._client.get_metric_history(run, "loss")) == 2500
    # A server refuses more than 1000 metrics or 100 params per request; SQLite without one takes any number.
    assert [size["metrics"] for size in sizes if size["metrics"]] == [900, 900, 700]
    assert max(size["params"] for size in sizes) == 100


def test_what_is_known_of_a_run_at_its_start_takes_two_requests(mlflow, monkeypatch):
    called = []
    for name in ("create_run", "log_batch", "set_tags"):
        original = getattr(mlflow._client, name, None)
        call = lambda *a, _name=name, _original=original, **o: called.append(_name) or _original(*a, **o)  # noqa: E731
        monkeypatch.setattr(mlflow._client, name, call, raising=False)
    run = mlflow.start_run("child", tags={"dose": 3}, params={"steps": 7}, points=points(2))
    found = mlflow._client.get_run(run).data
    assert (found.tags["dose"], found.params["steps"], found.metrics["loss"]) == ("3", "7", 1.0)
    assert called == ["create_run", "log_batch"]


def test_nan_is_kept_and_does_not_break(mlflow):
    run = mlflow.start_run("nan")
    mlflow.log_points(run, [Point(key="loss", value=math.nan, step=1, timestamp=1)])
    assert math.isnan(mlflow._client.get_run(run).data.metrics["loss"])


@pytest.mark.parametrize("name", ["ndcg@10", "recall@1 (low)", "a[0]", "loss%", "tên"])
def test_every_name_becomes_one_that_mlflow_takes(mlflow, name):
    run = mlflow.start_run("names")
    mlflow.log_points(run, points(1, key=name))
    assert mlflow._client.get_run(run).data.metrics == {mlflow_name(name): 0.0}


def test_a_second_tracker_uses_the_same_experiment_and_artifacts_stay_below_the_root(
    mlflow, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    again = MLflowTracker(mlflow.uri, experiment="lco", artifact_root=tmp_path / "other")
    assert again._experiment == mlflow._experiment
    record_everything(again, tmp_path)
    assert not list(tmp_path.iterdir())  # no ./mlruns, no ./mlflow.db


def test_nothing_is_printed(tmp_path, capfd):
    tracker = open_tracker(Settings(output=tmp_path / "out"))
    record_everything(tracker, tmp_path)
    tracker.close()
    assert tracker.failure is None
    assert capfd.readouterr() == ("", "")


def test_metrics_are_sent_in_batches(tmp_path):
    primary = Recorder()
    tracker = ResilientTracker(lambda: primary, tmp_path)
    for step in range(499):
        tracker.log_metrics("a", {"loss": 1.0}, step=step)
    assert not primary.calls
    tracker.log_metrics("b", {"loss": 1.0, "rate": 2.0}, step=0)
    assert [(run, len(batch)) for (run, batch), _ in primary.of("log_points")] == [("a", 499), ("b", 2)]


def test_metrics_do_not_wait_long(tmp_path, monkeypatch):
    primary = Recorder()
    tracker = ResilientTracker(lambda: primary, tmp_path)
    tracker.log_metrics("a", {"loss": 1.0}, step=0)
    now = time.monotonic() + 6
    monkeypatch.setattr("infra.tracking.time.monotonic", lambda: now)
    tracker.log_metrics("a", {"loss": 1.0}, step=1)
    assert len(primary.of("log_points")) == 1


def test_a_run_gets_its_metrics_before_its_status(tmp_path):
    primary = Recorder()
    tracker = ResilientTracker(lambda: primary, tmp_path)
    tracker.log_metrics("a", {"ndcg@10": 0.3}, step=300)
    tracker.finish_run("a", "FINISHED")
    assert [name for name, *_ in primary.calls] == ["log_points", "finish_run"]
    (((_, (point,)), _),) = primary.of("log_points")
    assert (point.key, point.step) == ("ndcg@10", 300)


@pytest.mark.chaos
@pytest.mark.parametrize("working_calls", range(9))
def test_a_tracker_that_dies_at_any_call_loses_nothing(tmp_path, caplog, working_calls):
    primary = Recorder(working_calls)
    tracker = ResilientTracker(lambda: primary, tmp_path / "pending")
    record_everything(tracker, tmp_path)
    tracker.close()
    assert "refused" in tracker.failure
    assert caplog.text.count("THE TRACKER IS DOWN") == 1
    primary.working_calls = math.inf
    assert replay_pending(tmp_path / "pending", primary) == 1
    names = [name for name, *_ in primary.calls]
    assert names == [
        "start_run", "start_run", "log_points", "log_points", "log_dataset", "log_artifact", "set_tags",
        "finish_run", "finish_run",
    ]  # fmt: skip
    assert primary.calls[1][2]["parent"] == "run1"  # also where the parent began before and the child after
    assert [arguments[0] for (arguments, _) in primary.of("finish_run")] == ["run2", "run1"]
    assert not list((tmp_path / "pending").iterdir())


@pytest.mark.chaos
def test_buffered_metrics_survive_the_tracker(tmp_path):
    primary = Recorder(working_calls=0)
    tracker = ResilientTracker(lambda: primary, tmp_path)
    tracker.log_metrics("a", {"loss": 0.5}, step=3)
    tracker.close()
    primary.working_calls = math.inf
    replay_pending(tmp_path, primary)
    (((run, (point,)), _),) = primary.of("log_points")
    assert (run, point.value, point.step) == ("a", 0.5, 3)


@pytest.mark.chaos
@pytest.mark.parametrize("working_calls", range(9))
def test_an_interrupted_replay_goes_on_where_it_stopped(tmp_path, caplog, working_calls):
    tracker = FileTracker(tmp_path / "pending" / "one")
    record_everything(tracker, tmp_path)
    tracker.close()
    primary = Recorder(working_calls)
    assert replay_pending(tmp_path / "pending", primary) == 0
    assert len(primary.calls) == working_calls
    assert f"{tracker.folder} cannot be sent (ConnectionError: refused)" in caplog.text
    primary.working_calls = math.inf
    assert replay_pending(tmp_path / "pending", primary) == 1
    assert len(primary.calls) == 9
    assert [arguments[0] for (arguments, _) in primary.of("finish_run")] == ["run2", "run1"]


def spoil_artifact(folder: Path) -> None:
    next((folder / "artifacts").rglob("curve.txt")).unlink()


def spoil_line(folder: Path) -> None:
    events = folder / "events.jsonl"
    events.write_bytes(events.read_bytes().replace(b'{"event": "set_tags"', b"{torn", 1))


def spoil_fields(folder: Path) -> None:
    events = folder / "events.jsonl"
    events.write_bytes(events.read_bytes().replace(b'"timestamp"', b'"time"', 1))


def spoil_run(folder: Path) -> None:
    """Its events belong to a run that MLflow no longer has."""
    (folder / "replayed.json").write_text('{"lines": 2, "runs": {}}')


@pytest.mark.chaos
@pytest.mark.parametrize("spoil", [spoil_artifact, spoil_line, spoil_fields, spoil_run])
def test_a_folder_that_cannot_be_sent_stops_neither_the_others_nor_this_run(tmp_path, caplog, spoil):
    settings = Settings(output=tmp_path / "out")
    spoilt, good = (settings.pending_tracking / name for name in ("1", "2"))
    for folder in (spoilt, good):
        tracker = FileTracker(folder)
        record_everything(tracker, tmp_path)
        tracker.close()
    spoil(spoilt)
    tracker = open_tracker(settings)
    assert tracker.failure is None
    assert tracker.page("a") is None and isinstance(tracker._primary, MLflowTracker)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{spoilt} cannot be sent (" in caplog.text
    assert (spoilt / "events.jsonl").exists() and not good.exists()
    client, experiment = tracker._primary._client, tracker._primary._experiment
    sent = client.search_runs(
        [experiment], "attributes.run_name = 'lco tiny' and attributes.status = 'FINISHED'"
    )
    assert_everything(tracker._primary, sent[0].info.run_id)


def test_a_file_that_is_still_written_is_not_replayed(tmp_path):
    tracker, primary = FileTracker(tmp_path / "one"), Recorder()
    tracker.start_run("x")
    assert replay_pending(tmp_path, primary) == 0
    assert not primary.calls
    tracker.close()
    assert replay_pending(tmp_path, primary) == 1


def test_a_torn_last_line_is_dropped(tmp_path):
    tracker, primary = FileTracker(tmp_path / "one"), Recorder()
    tracker.start_run("x")
    tracker.close()
    with tracker.path.open("ab") as stream:
        stream.write(b'{"event": "finish_r')
    replay_pending(tmp_path, primary)
    assert len(primary.calls) == 1


@pytest.mark.chaos
def test_no_server_at_the_address_is_a_warning_and_is_sent_later(tmp_path, caplog):
    down = Settings(output=tmp_path / "out", tracking_uri="http://127.0.0.1:9")
    start = time.monotonic()
    tracker = open_tracker(down)
    assert time.monotonic() - start < 30
    assert "THE TRACKER IS DOWN" in caplog.text
    record_everything(tracker, tmp_path)
    tracker.close()
    up = open_tracker(Settings(output=tmp_path / "out"))
    (run,) = up._primary._client.search_runs([up._primary._experiment], "attributes.run_name = 'lco tiny'")
    assert_everything(up._primary, run.info.run_id)


def test_a_password_in_the_address_is_not_shown(tmp_path, caplog, monkeypatch):
    def refuse(uri):
        raise ConnectionError(f"API request to {uri}/api/2.0/mlflow failed")

    monkeypatch.setattr("infra.mlflow_tracker._quiet_client", refuse)
    settings = Settings(output=tmp_path, tracking_uri="https://anna:secret@mlflow.example:5000")
    tracker = open_tracker(settings)
    tracker.close()
    assert (
        tracker.failure == "ConnectionError: API request to https://mlflow.example:5000/api/2.0/mlflow failed"
    )
    assert "mlflow.example" in caplog.text and "secret" not in caplog.text


def test_the_page_of_a_run_holds_no_password(monkeypatch):
    monkeypatch.setattr("infra.mlflow_tracker._quiet_client", lambda uri: None)
    monkeypatch.setattr(MLflowTracker, "_find_or_create", lambda *arguments: "7")
    page = MLflowTracker("http://anna:secret@mlflow.example:5000/").page("r")
    assert page == "http://mlflow.example:5000/#/experiments/7/runs/r?workflowType=machine_learning"


def test_threads_may_share_a_tracker(tmp_path):
    primary = Recorder()
    tracker = ResilientTracker(lambda: primary, tmp_path)

    def work(number):
        for step in range(300):
            tracker.log_metrics(str(number), {"loss": 1.0}, step=step)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    tracker.close()
    assert sum(len(batch) for (_, batch), _ in primary.of("log_points")) == 1200
