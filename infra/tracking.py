"""Experiment tracking: runs, metrics, datasets and figures in MLflow, or in a file that is replayed into it.

    tracker = open_tracker(settings)
    run = tracker.start_run("lco tiny", params={"recipe": "tiny"})
    child = tracker.start_run("refine dose 300 seed 0", parent=run, tags={"dose": "300"})
    tracker.log_metrics(child, {"loss": 0.4}, step=10)
    tracker.log_metrics(run, {"dose/ndcg@10": 0.35}, step=300)
    tracker.finish_run(child, "FINISHED"); tracker.finish_run(run, "FINISHED"); tracker.close()

Every call names its run: there is no "active run" that a thread or a rank could get wrong. A tracker that is
down does not stop a training: ResilientTracker warns, writes to a file, and the file is replayed later.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import os
import re
import shutil
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from infra.settings import Settings, without_password

logger = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

# MLflow's limits (mlflow.utils.validation).
ENTRIES_PER_BATCH = 100
METRICS_PER_BATCH = 1000 - ENTRIES_PER_BATCH  # a request holds 1000 of all kinds
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
DATASET_DIGEST_CHARACTERS = 36

# Without it, MLflow opens an experiment as one of language-model traces, with an empty overview.
_TRAINING_PAGES = "workflowType=machine_learning"

FLUSH_POINTS = 500
FLUSH_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of one metric; `timestamp` in milliseconds since the epoch."""

    key: str
    value: float
    step: int
    timestamp: int


class Tracker(Protocol):
    """Where runs are recorded. Every method may raise when the place cannot be reached."""

    def start_run(
        self, name: str, *, parent: str | None = None, tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None, points: Sequence[Point] = (),
    ) -> str: ...  # fmt: skip

    def log_points(self, run: str, points: Sequence[Point]) -> None: ...

    def log_dataset(self, run: str, *, name: str, digest: str, source: str, context: str) -> None: ...

    def log_artifact(self, run: str, path: Path, folder: str = "") -> None: ...

    def set_tags(self, run: str, tags: Mapping[str, Any]) -> None: ...

    def finish_run(self, run: str, status: Status) -> None: ...

    def page(self, run: str) -> str | None: ...


class MLflowTracker:
    """Records into MLflow through its client API: `sqlite:///...` or an http address.

    `artifact_root`: where files go when MLflow runs on SQLite in this process (a server has its own place).
    """

    def __init__(self, uri: str, *, experiment: str = "lco", artifact_root: Path | None = None) -> None:
        self.uri = uri
        self._client = _quiet_client(uri)
        self._experiment = self._find_or_create(experiment, artifact_root)

    def _find_or_create(self, name: str, artifact_root: Path | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = (
                artifact_root.absolute().as_uri()
                if artifact_root and not self.uri.startswith("http")
                else None
            )
            try:
                return self._client.create_experiment(name, artifact_location=location)
            except MlflowException:
                found = self._client.get_experiment_by_name(name)  # another run was faster
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise RuntimeError(f"MLflow experiment {name!r} is deleted: restore it, or set LCO_EXPERIMENT")
        return found.experiment_id

    def start_run(
        self, name: str, *, parent: str | None = None, tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None, points: Sequence[Point] = (),
    ) -> str:  # fmt: skip
        """Create a run, below `parent` if given, with all that is known of it; return its id.

        Two requests where params and metrics fit into one batch.
        """
        known = {"mlflow.source.name": "lco", "mlflow.source.type": "LOCAL"}
        if parent:
            known["mlflow.parentRunId"] = parent
        known |= {mlflow_name(key): _shorten(value, TAG_CHARACTERS) for key, value in (tags or {}).items()}
        run = self._client.create_run(self._experiment, run_name=name, tags=known).info.run_id
        self._log(run, params or {}, points)
        return run

    def _log(self, run: str, params: Mapping[str, Any], points: Sequence[Point]) -> None:
        from mlflow.entities import Metric, Param

        metrics = [Metric(mlflow_name(p.key), float(p.value), p.timestamp, p.step) for p in points]
        named = [Param(mlflow_name(key), _shorten(value, PARAM_CHARACTERS)) for key, value in params.items()]
        for some_params, some_metrics in itertools.zip_longest(
            _batches(named, ENTRIES_PER_BATCH), _batches(metrics, METRICS_PER_BATCH), fillvalue=[]
        ):
            self._client.log_batch(run, params=some_params, metrics=some_metrics)

    def log_points(self, run: str, points: Sequence[Point]) -> None:
        """Record metric values, at most 900 per request."""
        self._log(run, {}, points)

    def log_dataset(self, run: str, *, name: str, digest: str, source: str, context: str) -> None:
        """Link a dataset by its content digest (its first 36 digits: MLflow's limit) and where it lies.

        The digest is always ours: MLflow's default hashes metadata only.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=digest[:DATASET_DIGEST_CHARACTERS],
            source_type="local",
            source=json.dumps({"uri": source, "digest": digest}),
        )
        tags = [InputTag("mlflow.data.context", context)]
        self._client.log_inputs(run, datasets=[DatasetInput(dataset=dataset, tags=tags)])

    def log_artifact(self, run: str, path: Path, folder: str = "") -> None:
        """Copy a small file or folder (figures, tables, reports; never weights) to the run."""
        if path.is_dir():
            self._client.log_artifacts(run, str(path), folder or None)
        else:
            self._client.log_artifact(run, str(path), folder or None)

    def set_tags(self, run: str, tags: Mapping[str, Any]) -> None:
        """Set or replace tags."""
        from mlflow.entities import RunTag

        entries = [RunTag(mlflow_name(key), _shorten(value, TAG_CHARACTERS)) for key, value in tags.items()]
        for batch in _batches(entries, ENTRIES_PER_BATCH):
            self._client.log_batch(run, tags=batch)

    def finish_run(self, run: str, status: Status) -> None:
        """Set the final status: MLflow itself leaves killed runs RUNNING."""
        self._client.set_terminated(run, status)

    def page(self, run: str) -> str | None:
        """The address of the run's page; None without a server."""
        if not self.uri.startswith("http"):
            return None
        address = without_password(self.uri).rstrip("/")
        return f"{address}/#/experiments/{self._experiment}/runs/{run}?{_TRAINING_PAGES}"


class FileTracker:
    """Records as JSON lines in `folder/events.jsonl`, with copies of artifacts beside; `replay` reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "events.jsonl"
        self._stream = self.path.open("ab", buffering=0)
        fcntl.flock(self._stream, fcntl.LOCK_EX)  # until close or death: nobody replays what is being written

    def start_run(
        self, name: str, *, parent: str | None = None, tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None, points: Sequence[Point] = (),
    ) -> str:  # fmt: skip
        """Invent a run id, valid in this file and translated by `replay`."""
        run = f"file-{uuid.uuid4().hex}"
        self._append("start_run", run, name=name, parent=parent, tags=_texts(tags), params=_texts(params))
        if points:
            self.log_points(run, points)
        return run

    def log_points(self, run: str, points: Sequence[Point]) -> None:
        """Append metric values."""
        self._append("log_points", run, points=[asdict(point) for point in points])

    def log_dataset(self, run: str, *, name: str, digest: str, source: str, context: str) -> None:
        """Append a dataset link."""
        self._append("log_dataset", run, name=name, digest=digest, source=source, context=context)

    def log_artifact(self, run: str, path: Path, folder: str = "") -> None:
        """Copy the file or folder now: it may be gone when the file is replayed."""
        copy = self.folder / "artifacts" / uuid.uuid4().hex / Path(path).name
        copy.parent.mkdir(parents=True)
        (shutil.copytree if Path(path).is_dir() else shutil.copyfile)(path, copy)
        self._append("log_artifact", run, path=copy.relative_to(self.folder).as_posix(), folder=folder)

    def set_tags(self, run: str, tags: Mapping[str, Any]) -> None:
        """Append tags."""
        self._append("set_tags", run, tags=_texts(tags))

    def finish_run(self, run: str, status: Status) -> None:
        """Append the final status."""
        self._append("finish_run", run, status=status)

    def page(self, run: str) -> str | None:
        """A file has none."""
        return None

    def _append(self, event: str, run: str, **fields: Any) -> None:
        line = json.dumps({"event": event, "run": run, **fields}, ensure_ascii=False) + "\n"
        self._stream.write(line.encode())

    def close(self) -> None:
        """Let the file be replayed."""
        self._stream.close()


def replay(folder: Path, tracker: Tracker) -> dict[str, str]:
    """Send the events of a FileTracker's folder to `tracker`, in order; return file run id -> new run id.

    Progress is kept in `replayed.json`: an interrupted replay goes on where it stopped. Raises what the
    tracker raises. Runs that the file did not start keep their id: they were started in the tracker.
    """
    folder = Path(folder)
    progress = folder / "replayed.json"
    state = json.loads(progress.read_text()) if progress.exists() else {"lines": 0, "runs": {}}
    events = folder / "events.jsonl"
    lines = (
        events.read_bytes().split(b"\n")[:-1] if events.exists() else []
    )  # a half-written last line is dropped
    for number in range(state["lines"], len(lines)):
        _replay_one(json.loads(lines[number]), folder, tracker, state["runs"])
        state["lines"] = number + 1
        _replace_text(progress, json.dumps(state))
    return state["runs"]


def _replay_one(event: dict, folder: Path, tracker: Tracker, runs: dict[str, str]) -> None:
    kind, file_run = event.pop("event"), event.pop("run")
    run = runs.get(file_run, file_run)
    if kind == "start_run":
        parent = event.pop("parent")
        runs[file_run] = tracker.start_run(event.pop("name"), parent=runs.get(parent, parent), **event)
    elif kind == "log_points":
        tracker.log_points(run, [Point(**point) for point in event["points"]])
    elif kind == "log_artifact":
        tracker.log_artifact(run, folder / event["path"], event["folder"])
    elif kind in ("log_dataset", "set_tags", "finish_run"):
        getattr(tracker, kind)(run, **event)
    else:
        raise ValueError(f"{folder}: unknown event {kind!r}; it was written by another version")


class ResilientTracker:
    """What the pipeline uses: buffers metrics, never raises because the tracker is down, warns instead.

    At the first failure of `primary` everything from then on goes to a FileTracker below `pending`, which
    `open_tracker` replays at its next chance. Safe to use from several threads.
    """

    def __init__(self, primary: Callable[[], Tracker], pending: Path) -> None:
        self._lock = threading.RLock()
        self._pending = Path(pending)
        self._buffer: dict[str, list[Point]] = {}
        self._last_flush = time.monotonic()
        self._file: FileTracker | None = None
        self._primary: Tracker | None = None
        self.failure: str | None = None
        try:
            self._primary = primary()
        except Exception as error:  # noqa: BLE001 - whatever the tracker raises, the run goes on
            self._fall_back(error)

    def start_run(
        self, name: str, *, parent: str | None = None, tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None, metrics: Mapping[str, float] | None = None,
    ) -> str:  # fmt: skip
        """Create a run, below `parent` if given, `metrics` at step 0; return its id."""
        points = _points(metrics or {}, step=0)
        return self._call("start_run", name, parent=parent, tags=tags, params=params, points=points)

    def log_metrics(self, run: str, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Record values at `step`; they are sent in batches, every few seconds or hundreds of points."""
        with self._lock:
            self._buffer.setdefault(run, []).extend(_points(metrics, step))
            waiting = sum(map(len, self._buffer.values()))
            if waiting >= FLUSH_POINTS or time.monotonic() - self._last_flush > FLUSH_SECONDS:
                self.flush()

    def log_points(self, run: str, points: Sequence[Point]) -> None:
        """Record metric values at once."""
        self._call("log_points", run, points)

    def log_dataset(self, run: str, *, name: str, digest: str, source: str, context: str) -> None:
        """Link a dataset by its content digest."""
        self._call("log_dataset", run, name=name, digest=digest, source=source, context=context)

    def log_artifact(self, run: str, path: Path, folder: str = "") -> None:
        """Copy a small file or folder to the run."""
        self._call("log_artifact", run, Path(path), folder)

    def set_tags(self, run: str, tags: Mapping[str, Any]) -> None:
        """Set or replace tags."""
        self._call("set_tags", run, tags)

    def finish_run(self, run: str, status: Status) -> None:
        """Send what is buffered and set the final status."""
        self.flush()
        self._call("finish_run", run, status)

    def page(self, run: str) -> str | None:
        """The address of the run's page; None where no server has it."""
        return self._call("page", run)

    def flush(self) -> None:
        """Send the buffered metrics now."""
        with self._lock:
            buffered, self._buffer = self._buffer, {}
            self._last_flush = time.monotonic()
            for run, points in buffered.items():
                self._call("log_points", run, points)

    def close(self) -> None:
        """Send what is buffered; say where it went if the tracker was down."""
        self.flush()
        if self._file:
            self._file.close()
            logger.warning(
                "Tracking events wait in %s; the next run sends them to the tracker.", self._file.folder
            )

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        with self._lock:
            if self._primary is not None:
                try:
                    return getattr(self._primary, method)(*arguments, **options)
                except Exception as error:  # noqa: BLE001 - whatever the tracker raises, the run goes on
                    self._fall_back(error)
            return getattr(self._file, method)(*arguments, **options)

    def _fall_back(self, error: Exception) -> None:
        self._primary = None
        self.failure = _in_short(error)
        self._file = FileTracker(self._pending / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}")
        logger.warning(
            "THE TRACKER IS DOWN (%s). The run goes on; its tracking events are kept in %s and sent later.",
            self.failure,
            self._file.folder,
        )


def open_tracker(settings: Settings) -> ResilientTracker:
    """The tracker of these settings; events that an earlier run could not send are sent first."""

    def primary() -> Tracker:
        tracker = MLflowTracker(
            settings.tracking_uri, experiment=settings.experiment, artifact_root=settings.artifact_root
        )
        replay_pending(settings.pending_tracking, tracker)
        return tracker

    settings.output.mkdir(parents=True, exist_ok=True)
    return ResilientTracker(primary, settings.pending_tracking)


def replay_pending(pending: Path, tracker: Tracker) -> int:
    """Replay every waiting folder, oldest first, and delete it; return how many.

    Folders that a living run still writes, or that another process replays, are left alone. One that cannot
    be sent stays for the next time, with a warning; it stops neither the others nor the caller.
    """
    from mlflow.exceptions import MlflowException

    # MLflow refuses it or does not answer; a file of ours is gone or torn; another version wrote it.
    unsendable = (MlflowException, OSError, ValueError, KeyError, TypeError)
    done = 0
    for folder in sorted(path for path in Path(pending).glob("*") if path.is_dir()):
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_locked(folder / "events.jsonl"))
            except (BlockingIOError, FileNotFoundError):
                continue  # it is being written or sent; it has not begun, or has been sent
            try:
                replay(folder, tracker)
                shutil.rmtree(folder)
                done += 1
            except unsendable as error:
                logger.warning(
                    "Tracking events in %s cannot be sent (%s). They stay, the next run tries again; "
                    "delete the folder to give them up.",
                    folder,
                    _in_short(error),
                )
    return done


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock that a living FileTracker holds. Raises BlockingIOError if one does."""
    with path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def runs_page(uri: str, experiment: str) -> str:
    """The page of an MLflow server that lists the experiment's runs; the experiment is made if missing.

    Without MLflow's client, which takes seconds and 200 MB to load. Raises OSError.
    """
    api = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments"
    try:
        made = _ask(f"{api}/create", {"name": experiment})
    except urllib.error.HTTPError:  # it is there
        made = _ask(f"{api}/get-by-name?{urllib.parse.urlencode({'experiment_name': experiment})}")[
            "experiment"
        ]
    return f"{uri.rstrip('/')}/#/experiments/{made['experiment_id']}/runs?{_TRAINING_PAGES}"


def _ask(url: str, content: Mapping[str, Any] | None = None) -> dict:
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    # No proxy: the address is on loopback, and a proxy from the environment could not reach it.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as response:
        return json.load(response)


def mlflow_name(key: str) -> str:
    """A metric, param or tag name that MLflow takes: `ndcg@10` becomes `ndcg_at_10`, like its own."""
    return re.sub(r"[^\w./ :-]", "_", key.replace("@", "_at_"))[:250]


def _shorten(value: Any, limit: int) -> str:
    """Text of at most `limit` characters; what is cut is marked and keeps its digest."""
    text = str(value)
    if len(text) <= limit:
        return text
    mark = f"... ({len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]})"
    return text[: limit - len(mark)] + mark


def _points(metrics: Mapping[str, float], step: int) -> list[Point]:
    now = int(time.time() * 1000)
    return [Point(key=key, value=float(value), step=step, timestamp=now) for key, value in metrics.items()]


def _in_short(error: Exception) -> str:
    return without_password(f"{type(error).__name__}: {error}")[:300]


def _texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: str(value) for key, value in (values or {}).items()}


def _batches(entries: list, size: int) -> Iterator[list]:
    for start in range(0, len(entries), size):
        yield entries[start : start + size]


def _replace_text(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    temporary.replace(path)


def _quiet_client(uri: str):
    """MLflow's client, loaded late (2 s), without links, migration logs, telemetry, minutes of retries."""
    for name, value in {
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # we tell it once, in full
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri)
