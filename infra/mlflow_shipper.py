"""Brings journals to MLflow: the run's own as it grows, and what earlier runs could not send.

    with Shipper(settings, folder / JOURNAL) as shipper:
        ...                                   # the flow and its stages append to the journal
        page = shipper.page("run")

How far a journal is sent, and which MLflow run each of its runs is, stands beside it
(`journal.jsonl.shipped`): an interrupted shipping goes on where it stopped. Metrics whose receipt was lost
are sent again, which changes nothing: for MLflow, a point of the same step, time and value is the same point.
MLflow is never waited for: it is loaded and asked in a thread. What it does not take is told once, when it is
found out, and `missing` says at the end what MLflow lacks.
"""

import contextlib
import fcntl
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.journal import JOURNAL, JournalTail
from infra.mlflow_client import MLflow, in_one_line, why
from infra.settings import Settings

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0  # what the journal gained meanwhile goes out together
RETRY_SECONDS = 30.0
FLUSH_SECONDS = 20.0  # how long the end of a run waits for MLflow
NO_EVENTS = "MLFLOW TAKES NO EVENTS: %s. The run goes on; its events wait in %s."
TAKES_AGAIN = "MLflow takes events again; what waited is sent."
NO_ANSWER = "it has not answered in time"
NOT_RECORDED = "%s: %s. What is missing waits in %s; the next run on this output folder sends it."
NOT_STARTED = "%s: skipped %s of %r, which was not started"
CANNOT_BE_SENT = (
    "Tracking events in %s cannot be sent (%s). They stay, the next run tries again; "
    "delete the file to give them up."
)
AND_OTHERS = "%s So it is with %d more: see the log."


class Shipper:
    """Ships one journal from a thread of this process while it is written; `failure` says why it cannot.

    `tell` gets a line, from the thread, when MLflow takes no events, and when it does again.
    """

    def __init__(
        self, settings: Settings, journal_path: Path, *, tell: Callable[[str], object] = lambda line: None
    ) -> None:
        self.failure: str | None = None
        self._settings, self._tell = settings, tell
        self._journal = ShippedJournal(journal_path)
        self._mlflow: MLflow | None = None
        self._earlier: list[str] | None = None
        """What could not be sent of earlier runs; None while it was not tried."""
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
        hangs = not self.sent and self.failure is None
        self._end.set()
        self._wake.set()
        # Where MLflow answers, earlier runs get their end, too; where it did not, it is asked once more. Else
        # the thread may wait for an answer: it is a daemon, and ends with the process.
        self._thread.join(timeout=1.0 if hangs else FLUSH_SECONDS)
        if not self.sent and self.failure is None:
            self._failed(NO_ANSWER)

    @property
    def sent(self) -> bool:
        """Whether MLflow has what the journal holds now."""
        return self._journal.offset >= self._journal.size

    @property
    def missing(self) -> list[str]:
        """Lines for people: what MLflow lacks of this run, why, and where it waits; else of earlier runs."""
        if self.sent:
            return _in_one(self._earlier or [])
        what = "has only a part of this run" if self._journal.runs else "does not have this run"
        return [NOT_RECORDED % (what, self.failure, self._journal.path)]

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
        with self._held:
            while True:
                self._wake.clear()
                last = self._end.is_set()
                try:
                    self._send()
                except Exception as error:  # noqa: BLE001 - whatever MLflow raises, the run goes on
                    self._failed(why(self._cause(error), self._settings))
                if last:
                    return
                self._end.wait(RETRY_SECONDS) if self.failure else self._wake.wait(POLL_SECONDS)

    def _send(self) -> None:
        self._mlflow = self._mlflow or MLflow(self._settings)
        self._journal.ship(self._mlflow)
        if self.failure is not None:
            self.failure = None
            logger.info(TAKES_AGAIN)
            self._tell(TAKES_AGAIN)
        if self._earlier is None:
            self._earlier = ship_pending(self._settings.runs, self._mlflow) or []
            for line in _in_one(self._earlier):
                self._tell(line)

    def _cause(self, error: Exception) -> Exception:
        """Why one that was used before takes no more: made anew, it says whether the experiment is there."""
        if self._mlflow is not None:
            self._mlflow = None
            try:
                self._mlflow = MLflow(self._settings)
            except Exception as cause:  # noqa: BLE001 - whatever MLflow raises
                return cause
        return error

    def _failed(self, reason: str) -> None:
        known, self.failure = self.failure, reason
        if known is None:  # once for each time that MLflow goes away
            logger.warning(NO_EVENTS, reason, self._journal.path)
            self._tell(NO_EVENTS % (reason, self._journal.path))


def _in_one(lines: list[str]) -> list[str]:
    """One line for any number of journals that cannot be sent."""
    return [AND_OTHERS % (lines[0], len(lines) - 1)] if len(lines) > 1 else lines


def ship_pending(runs: Path, mlflow: MLflow) -> list[str]:
    """Send what earlier runs could not, oldest first; return, and log, a line for each that cannot be sent.

    Those that a living run writes, or another process ships, are left alone. One that cannot be sent stays
    for the next time; it stops no other.
    """
    refused = []
    for path in sorted(runs.glob(f"*/{JOURNAL}")):
        try:
            with _locked(path):
                journal = ShippedJournal(path)  # only now: another process may just have shipped it
                journal.ship(mlflow)
                journal.end_runs(mlflow)
        except BlockingIOError:
            continue
        except Exception as error:  # noqa: BLE001 - MLflow refuses it; a file is gone; another version wrote it
            refused.append(CANNOT_BE_SENT % (path, in_one_line(error)))
            logger.warning(refused[-1])
    return refused


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
