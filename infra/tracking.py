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
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.file_tracker import FileTracker, locked, replay
from infra.mlflow_tracker import MLflowTracker
from infra.settings import Settings
from infra.tracker import Point, Status, Tracker, in_short

logger = logging.getLogger(__name__)

FLUSH_POINTS = 500
FLUSH_SECONDS = 5.0


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
        self.failure = in_short(error)
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
                stack.enter_context(locked(folder / "events.jsonl"))
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
                    in_short(error),
                )
    return done


def _points(metrics: Mapping[str, float], step: int) -> list[Point]:
    now = int(time.time() * 1000)
    return [Point(key=key, value=float(value), step=step, timestamp=now) for key, value in metrics.items()]
