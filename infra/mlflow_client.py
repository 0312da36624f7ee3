"""MLflow's client as this project uses it: no active run, its limits kept, loaded late, short of patience."""

import hashlib
import json
import logging
import os
import re
import shlex
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.artifact_locations import repair_artifact_locations
from infra.credential import Credential
from infra.databases import check_mlflow_database
from infra.settings import SQLITE, Settings, SettingsError, command, database_path, without_password

# MLflow's limits (mlflow.utils.validation).
METRICS_PER_BATCH = 800  # a request holds 1000 entries of all kinds
ENTRIES_PER_BATCH = 100  # params, or tags
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
DATASET_DIGEST_CHARACTERS = 36
# Without it, MLflow opens an experiment as one of language-model traces, with an empty overview.
_TRAINING_PAGES = "workflowType=machine_learning"


class MLflow:
    """One experiment of an MLflow: `sqlite:///...` or an http address. Methods raise what MLflow raises.

    To make one raises SettingsError, too: a database or an experiment that cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._uri = settings.tracking_uri
        check_mlflow_database(settings)
        repair_artifact_locations(settings)
        _make_database(settings)
        self._client = _quiet_client(self._uri)
        self._experiment = self._find_or_create(settings.experiment, settings.artifact_root)
        _remove_misread_folder(settings)

    def _find_or_create(self, name: str, artifact_root: Path) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = None if self._uri.startswith("http") else artifact_root.as_uri()
            return self._client.create_experiment(name, artifact_location=location)
        if found.lifecycle_stage != "active":
            restore = (
                f"MLFLOW_TRACKING_URI={shlex.quote(without_password(self._uri))} {command('mlflow')} "
                f"experiments restore --experiment-id {found.experiment_id}"
            )
            raise SettingsError(
                f"MLflow experiment {name!r} is deleted: restore it ({restore}), or set LCO_EXPERIMENT to "
                "another name"
            )
        return found.experiment_id

    def start(self, name: str, *, parent: str | None, tags: Mapping[str, str], when: int) -> str:
        """Create a run, below `parent` if given; return its id."""
        known = {"mlflow.source.name": "lco", "mlflow.source.type": "LOCAL"}
        known |= {"mlflow.parentRunId": parent} if parent else {}
        known |= dict(_texts(tags, TAG_CHARACTERS))
        made = self._client.create_run(self._experiment, run_name=name, tags=known, start_time=when)
        return made.info.run_id

    def log(
        self, run: str, *, params: Mapping[str, str] | None = None, metrics: Sequence[tuple] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Record params, metrics (name, value, milliseconds, step) and tags, in few requests."""
        from mlflow.entities import Metric, Param, RunTag

        values = [Metric(mlflow_name(name), float(value), when, step) for name, value, when, step in metrics]
        named = [Param(name, value) for name, value in _texts(params or {}, PARAM_CHARACTERS)]
        marks = [RunTag(name, value) for name, value in _texts(tags or {}, TAG_CHARACTERS)]
        while values or named or marks:
            batch = {"metrics": values[:METRICS_PER_BATCH], "params": named[:ENTRIES_PER_BATCH]}
            self._client.log_batch(run, **batch, tags=marks[:ENTRIES_PER_BATCH])
            values, named = values[METRICS_PER_BATCH:], named[ENTRIES_PER_BATCH:]
            marks = marks[ENTRIES_PER_BATCH:]

    def inputs(self, run: str, inputs: Sequence[Mapping[str, str]]) -> None:
        """Link datasets by their content digests (the first 36 digits: MLflow's limit) and where they lie.

        The digest is always ours: MLflow's default hashes metadata only.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        datasets = []
        for one in inputs:
            source = json.dumps({"uri": one["source"], "digest": one["digest"]})
            digest = one["digest"][:DATASET_DIGEST_CHARACTERS]
            dataset = Dataset(name=one["name"], digest=digest, source_type="local", source=source)
            datasets.append(DatasetInput(dataset, [InputTag("mlflow.data.context", one["context"])]))
        self._client.log_inputs(run, datasets=datasets)

    def artifact(self, run: str, path: Path, folder: str) -> None:
        """Copy a small file or folder (figures, tables, reports; never weights) to the run."""
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        log(run, str(path), folder or None)

    def finish(self, run: str, status: str, *, when: int) -> None:
        """Set the final status."""
        self._client.set_terminated(run, status, end_time=when)

    def page(self, run: str) -> str | None:
        """The address of the run's page; None without a server."""
        if not self._uri.startswith("http"):
            return None
        address = without_password(self._uri).rstrip("/")
        return f"{address}/#/experiments/{self._experiment}/runs/{run}?{_TRAINING_PAGES}"


def runs_page(uri: str, experiment: str, credential: Credential) -> str:
    """The page of our MLflow server that lists the experiment's runs; the experiment is made if missing.

    Without MLflow's client, which takes seconds and 200 MB to load. Raises OSError.
    """
    api = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments"
    try:
        made = _ask(f"{api}/create", credential, {"name": experiment})
    except urllib.error.HTTPError:  # it is there
        query = urllib.parse.urlencode({"experiment_name": experiment})
        made = _ask(f"{api}/get-by-name?{query}", credential)["experiment"]
    return f"{uri.rstrip('/')}/#/experiments/{made['experiment_id']}/runs?{_TRAINING_PAGES}"


def _ask(url: str, credential: Credential, content: Mapping[str, Any] | None = None) -> dict:
    data = None if content is None else json.dumps(content).encode()
    headers = {"Content-Type": "application/json"} | credential.header
    request = urllib.request.Request(url, data=data, headers=headers)
    # No proxy: the address is on loopback, and a proxy from the environment could not reach it.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as response:
        return json.load(response)


def mlflow_name(key: str) -> str:
    """A metric, param or tag name that MLflow takes: `ndcg@10` becomes `ndcg_at_10`, like its own."""
    return re.sub(r"[^\w./ :-]", "_", key.replace("@", "_at_"))[:250]


def _texts(values: Mapping[str, str], limit: int) -> Iterator[tuple[str, str]]:
    """Names and texts that MLflow takes; one that is cut to `limit` characters says so, with its digest."""
    for key, value in values.items():
        if len(value) > limit:
            mark = f"... ({len(value)} characters, sha256 {hashlib.sha256(value.encode()).hexdigest()[:16]})"
            value = value[: limit - len(mark)] + mark
        yield mlflow_name(key), value


def why(error: Exception, settings: Settings) -> str:
    """Why MLflow took nothing, and what to do where that is known: one line, without passwords."""
    import requests  # MLflow's

    if isinstance(error, SettingsError):
        return str(error)
    if not settings.tracking_uri.startswith("http"):
        return in_one_line(error)
    address = f"LCO_TRACKING_URI={without_password(settings.tracking_uri)}"
    code = getattr(error, "error_code", None)
    if isinstance(error.__cause__ or error.__context__, requests.RequestException):
        return f"{address} does not answer: start that server, or unset the variable"
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return f"{address} does not let us in: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if code == "ENDPOINT_NOT_FOUND":
        return f"what answers at {address} is no MLflow: give the address of one, or unset the variable"
    return in_one_line(error)


def in_one_line(error: Exception) -> str:
    """An error in one line, without passwords."""
    return without_password(" ".join(f"{type(error).__name__}: {error}".split()))[:300]


def _quiet_client(uri: str):
    """MLflow's client, loaded late (2 s)."""
    _quiet()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _quiet() -> None:
    """No links, migration logs, telemetry, minutes of retries; before MLflow is imported."""
    for name, value in {
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401 - it sets levels itself

    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # we tell it once, in full


def _make_database(settings: Settings) -> None:
    """Make a new database as the server does: the client would keep the default experiment's files in the
    current folder."""
    path = database_path(settings.tracking_uri)
    if path is None or path.exists():
        return
    _quiet()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    SqlAlchemyStore(settings.tracking_uri, settings.artifact_root.as_uri())


def _remove_misread_folder(settings: Settings) -> None:
    """MLflow makes the database's folder, and beside it, of an address with `%25`, one that is named so."""
    path = database_path(settings.tracking_uri)
    as_written = Path(settings.tracking_uri.removeprefix(SQLITE)).parent
    if path is not None and as_written != path.parent:
        with suppress(OSError):  # it holds something, or is not there
            os.removedirs(as_written)
