"""Brings journals to MLflow: the run's own as it grows, and what earlier runs could not send.

    with Shipper(settings, folder / JOURNAL) as shipper:
        ...                                   # the flow and its stages append to the journal
        page = shipper.page("run")

How far a journal is sent, and which MLflow run each of its runs is, stands beside it
(`journal.jsonl.shipped`): an interrupted shipping goes on where it stopped. Metrics whose receipt was lost
are sent again, which changes nothing: for MLflow, a point of the same step, time and value is the same point.
MLflow is never waited for: it is loaded and asked in a thread, and one that is down costs a warning.
"""

import contextlib
import fcntl
import json
import logging
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.journal import JOURNAL, JournalTail
from infra.mlflow_client import MLflow
from infra.settings import Settings, without_password

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0  # what the journal gained meanwhile goes out together
RETRY_SECONDS = 30.0
FLUSH_SECONDS = 20.0  # how long the end of a run waits for MLflow
NO_EVENTS = "MLFLOW TAKES NO EVENTS (%s). The run goes on; they are kept in %s and sent later."
EVENTS_WAIT = "Tracking events wait in %s; the next run sends them to MLflow."
NOT_STARTED = "%s: skipped %s of %r, which was not started"
CANNOT_BE_SENT = (
    "Tracking events in %s cannot be sent (%s). They stay, the next run tries again; "
    "delete the file to give them up."
)


class Shipper:
    """Ships one journal from a thread of this process while it is written; `failure` says why it cannot."""

    def __init__(self, settings: Settings, journal_path: Path) -> None:
        self.failure: str | None = None
        self._settings = settings
        self._journal = ShippedJournal(journal_path)
        self._mlflow: MLflow | None = None
        self._wake, self._end = threading.Event(), threading.Event()
        self._held = contextlib.ExitStack()
        self._thread = threading.Thread(target=self._work, name="mlflow-shipper", daemon=True)

    def __enter__(self) -> "Shipper":
        self._journal.path.touch()
        self._held.enter_context(_locked(self._journal.path))  # until the end or death: no other run ships it
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        self._end.set()
        self._wake.set()
        sent = self._journal.offset >= self._journal.size
        # Where MLflow answers, earlier runs get their end, too. Else the thread may wait for an answer: it is
        # a daemon, and ends with the process.
        self._thread.join(timeout=FLUSH_SECONDS if sent else 1.0)
        if not sent:
            logger.warning(EVENTS_WAIT, self._journal.path)

    def flush(self) -> None:
        """Wait until MLflow has what the journal holds now, unless it cannot be reached."""
        wanted, deadline = self._journal.size, time.monotonic() + FLUSH_SECONDS
        self._wake.set()
        while self._journal.offset < wanted and self.failure is None and time.monotonic() < deadline:
            time.sleep(0.02)

    def run_id(self, run: str) -> str | None:
        """MLflow's id of a run that the journal has started; None while MLflow cannot be reached."""
        if run not in self._journal.runs:
            self.flush()
        return self._journal.runs.get(run)

    def page(self, run: str) -> str | None:
        """The address of the run's page; None where no server has it."""
        found = self.run_id(run)
        return self._mlflow.page(found) if found and self._mlflow else None

    def _work(self) -> None:
        pending_sent = False
        with self._held:
            while not self._end.is_set():
                self._wake.clear()
                try:
                    self._mlflow = self._mlflow or MLflow(self._settings)
                    self._journal.ship(self._mlflow)
                    self.failure = None
                    if not pending_sent:
                        ship_pending(self._settings.runs, self._mlflow)
                    pending_sent = True
                except Exception as error:  # noqa: BLE001 - whatever MLflow raises, the run goes on
                    known, self.failure = self.failure, _in_short(error)
                    if known is None:  # once for each time that MLflow goes away
                        logger.warning(NO_EVENTS, self.failure, self._journal.path)
                self._end.wait(RETRY_SECONDS) if self.failure else self._wake.wait(POLL_SECONDS)


def ship_pending(runs: Path, mlflow: MLflow) -> None:
    """Send what earlier runs could not, oldest first.

    Those that a living run writes, or another process ships, are left alone. One that cannot be sent stays
    for the next time, with a warning; it stops no other.
    """
    for path in sorted(runs.glob(f"*/{JOURNAL}")):
        try:
            with _locked(path):
                journal = ShippedJournal(path)  # only now: another process may just have shipped it
                journal.ship(mlflow)
                journal.end_runs(mlflow)
        except BlockingIOError:
            continue
        except Exception as error:  # noqa: BLE001 - MLflow refuses it; a file is gone; another version wrote it
            logger.warning(CANNOT_BE_SENT, path, _in_short(error))


def something_waits(runs: Path) -> bool:
    """Whether a journal has what MLflow does not know: events, or the end of a run."""
    return any(_waits(path) for path in runs.glob(f"*/{JOURNAL}"))


def _waits(path: Path) -> bool:
    try:
        journal = ShippedJournal(path)
    except ValueError:  # ship_pending says what is wrong with it
        return True
    return bool(journal.open) or journal.offset < journal.size


class ShippedJournal:
    """A journal, how far it is sent, and the MLflow run of each of its runs."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._state_path = self.path.with_name(self.path.name + ".shipped")
        state = json.loads(self._state_path.read_text()) if self._state_path.exists() else {}
        self.offset: int = state.get("offset", 0)
        self.runs: dict[str, str] = state.get("runs", {})
        self.open: list[str] = state.get("open", [])
        """Runs that have started and not finished."""

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def ship(self, mlflow: MLflow) -> None:
        """Send everything new, in order, metrics in batches. Raises what MLflow raises."""
        tail = JournalTail(self.path, self.offset)
        points: dict[str, list[tuple]] = {}
        before = self.offset
        for event in tail:
            if event["event"] in ("metrics", "progress"):
                when, step = _milliseconds(event), event["step"]
                values = [(name, value, when, step) for name, value in event["metrics"].items()]
                points.setdefault(event["run"], []).extend(values)
            else:
                self._send_points(mlflow, points, before)
                self._send(mlflow, event)
                self._save(tail.offset)
                if event["event"] == "artifact":  # only now: an interrupted shipping needs the copy again
                    shutil.rmtree((self.path.parent / event["path"]).parent, ignore_errors=True)
            before = tail.offset
        self._send_points(mlflow, points, before)

    def _send_points(self, mlflow: MLflow, points: dict[str, list[tuple]], offset: int) -> None:
        for run, values in points.items():
            if run in self.runs:
                mlflow.log(self.runs[run], metrics=values)
            elif values:
                logger.warning(NOT_STARTED, self.path, "metrics", run)
        points.clear()
        if offset > self.offset:
            self._save(offset)

    def _send(self, mlflow: MLflow, event: Mapping[str, Any]) -> None:
        kind, run, when = event["event"], event["run"], _milliseconds(event)
        if kind == "start":
            if run not in self.runs:
                parent = self.runs.get(event["parent"])
                self.runs[run] = mlflow.start(event["name"], parent=parent, tags=event["tags"], when=when)
                self.open.append(run)
                self._save(self.offset)  # at once: sent again, it would be a second run
            mlflow.log(self.runs[run], params=event["params"])
        elif run not in self.runs:
            logger.warning(NOT_STARTED, self.path, kind, run)
        elif kind == "inputs":
            mlflow.inputs(self.runs[run], event["inputs"])
        elif kind == "artifact":
            mlflow.artifact(self.runs[run], self.path.parent / event["path"], event["folder"])
        elif kind == "tags":
            mlflow.log(self.runs[run], tags=event["tags"])
        elif kind == "finish":
            mlflow.finish(self.runs[run], event["status"], when=when)
            self.open = [other for other in self.open if other != run]
        else:
            raise ValueError(f"unknown event {kind!r}: another version wrote it")

    def end_runs(self, mlflow: MLflow) -> None:
        """Give runs whose process was killed their true end: MLflow itself leaves them RUNNING."""
        for run in reversed(self.open):
            mlflow.finish(self.runs[run], "KILLED", when=int(self.path.stat().st_mtime * 1000))
        if self.open:
            self.open = []
            self._save(self.offset)

    def _save(self, offset: int) -> None:
        self.offset = offset
        temporary = self._state_path.with_name(self._state_path.name + ".new")
        temporary.write_text(json.dumps({"offset": offset, "runs": self.runs, "open": self.open}))
        temporary.replace(self._state_path)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a journal against other shippers. Raises BlockingIOError if one holds it."""
    with path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _milliseconds(event: Mapping[str, Any]) -> int:
    return int(event["time"] * 1000)


def _in_short(error: Exception) -> str:
    """An error in one line, without passwords."""
    return without_password(f"{type(error).__name__}: {error}")[:300]
