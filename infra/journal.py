"""The journal of a run: one file in which every event is a line of JSON, written by whoever knows of it.

    journal = Journal(folder / JOURNAL)
    journal.start("run", "lco tiny", params={"recipe": "tiny"})
    journal.start(fingerprint, "d300 s0 - refine", parent="run", tags={"dose": 300})
    journal.progress(fingerprint, label="refining", step=10, done=10, total=30, metrics={"loss": 0.4})
    journal.finish(fingerprint, "FINISHED")

Every event names its run by an id of the writer's choice ("run", the fingerprint of a cell). A run's start
comes before its other events. The flow and the ranks of its stages append to the same file; `JournalTail`
reads it as it grows, and infra.mlflow_shipper brings it to MLflow, at once or later.
"""

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

logger = logging.getLogger(__name__)

JOURNAL = "journal.jsonl"
"""The file's name in the folder of each run."""
Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class Journal:
    """Appends events: whole lines, visible at once, from any number of processes and threads.

    Every method raises OSError where there is no room for its event; the next one is whole again.
    """

    path: Path

    def start(
        self, run: str, name: str, *, parent: str | None = None, tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """A run begins, below `parent` if given."""
        self._append("start", run, name=name, parent=parent, tags=_texts(tags), params=_texts(params))

    def progress(
        self, run: str, *, label: str, step: int, done: int, total: int, worker: int = 0,
        metrics: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        """`worker` has done `done` of its `total` (rate and time left); `metrics` of the run at `step`."""
        place = {"label": label, "step": step, "done": done, "total": total, "worker": worker}
        self._append("progress", run, **place, metrics=dict(metrics or {}))

    def metrics(self, run: str, metrics: Mapping[str, float], *, step: int) -> None:
        """Values at `step` of the run's own axis; NaN and infinities are kept."""
        self._append("metrics", run, step=step, metrics=dict(metrics))

    def inputs(self, run: str, inputs: Sequence[Mapping[str, str]]) -> None:
        """What the run reads: each with `name`, `digest` (of its content), `source` and `context`."""
        self._append("inputs", run, inputs=[dict(one) for one in inputs])

    def artifact(self, run: str, path: Path, folder: str = "") -> None:
        """A small file or folder for the run's page, copied now: it may be gone when it is sent."""
        copy = self.path.parent / "artifacts" / uuid.uuid4().hex / Path(path).name
        copy.parent.mkdir(parents=True)
        (shutil.copytree if Path(path).is_dir() else shutil.copyfile)(path, copy)
        self._append("artifact", run, path=copy.relative_to(self.path.parent).as_posix(), folder=folder)

    def tags(self, run: str, tags: Mapping[str, Any]) -> None:
        """Set or replace tags."""
        self._append("tags", run, tags=_texts(tags))

    def finish(self, run: str, status: Status = "FINISHED") -> None:
        """The run ends."""
        self._append("finish", run, status=status)

    def _append(self, event: str, run: str, **fields: Any) -> None:
        line = json.dumps({"event": event, "run": run, "time": time.time(), **fields}, ensure_ascii=False)
        rest = line.encode() + b"\n"
        with self.path.open("a+b", buffering=0) as stream:
            if _ends_within_a_line(stream):
                rest = b"\n" + rest
            while rest:  # one write in append mode, so that lines do not interleave; a full disk takes a part
                rest = rest[stream.write(rest) :]


class JournalTail:
    """Reads what is appended from `offset` (bytes) on, or from the file's present end; half a line waits."""

    def __init__(self, path: Path, offset: int | None = None) -> None:
        self.path = Path(path)
        if offset is None:
            offset = self.path.stat().st_size if self.path.exists() else 0
        self.offset = offset

    def __iter__(self) -> Iterator[dict]:
        """New events; `offset` stands behind the last one handed out."""
        if not self.path.exists():  # no event yet
            return
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                if line == b"\n":
                    continue
                try:
                    event = json.loads(line)
                except ValueError:  # a writer was killed within its line
                    logger.warning("%s: skipped a line that is no JSON: %.80r", self.path, line)
                else:
                    yield event


def _ends_within_a_line(stream: BinaryIO) -> bool:
    """Whether a writer was killed, or found the disk full, before the end of its line."""
    seen = size, last = _size_and_last_byte(stream)
    if not size or last == b"\n":
        return False
    time.sleep(0.01)  # a living writer is at the end of its line by then
    return _size_and_last_byte(stream) == seen


def _size_and_last_byte(stream: BinaryIO) -> tuple[int, bytes]:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 1))
    return size, stream.read(1)


def _texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: str(value) for key, value in (values or {}).items()}
