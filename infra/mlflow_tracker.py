"""Runs recorded in MLflow, through its client: no active run, no patience with a server that is down."""

import hashlib
import itertools
import json
import logging
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.settings import without_password
from infra.tracker import Point, Status

# MLflow's limits (mlflow.utils.validation).
ENTRIES_PER_BATCH = 100
METRICS_PER_BATCH = 1000 - ENTRIES_PER_BATCH  # a request holds 1000 of all kinds
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
DATASET_DIGEST_CHARACTERS = 36

# Without it, MLflow opens an experiment as one of language-model traces, with an empty overview.
_TRAINING_PAGES = "workflowType=machine_learning"


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


def _batches(entries: list, size: int) -> Iterator[list]:
    for start in range(0, len(entries), size):
        yield entries[start : start + size]


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
