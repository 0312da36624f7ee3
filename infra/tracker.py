"""What a tracker is: a place where runs, metrics, datasets and files are recorded. See infra.tracking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from infra.settings import without_password

Status = Literal["FINISHED", "FAILED", "KILLED"]


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


def in_short(error: Exception) -> str:
    """An error in one line, without passwords."""
    return without_password(f"{type(error).__name__}: {error}")[:300]
