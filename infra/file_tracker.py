"""Runs recorded in a file, for a tracker that cannot be reached; `replay` sends them later."""

import contextlib
import fcntl
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.tracker import Point, Status, Tracker


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


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that a living FileTracker holds. Raises BlockingIOError if one does."""
    with path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: str(value) for key, value in (values or {}).items()}


def _replace_text(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    temporary.replace(path)
