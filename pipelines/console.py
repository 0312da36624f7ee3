"""What a person sees while a pipeline runs: progress of every stage, at any time, on any output.

A stage reports through the reporter of the current context, so that the same flow draws bars in a terminal
(`lco run`), prints a plain line every ten seconds into a file or pipe, or logs to Prefect (a deployment).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Reporter(Protocol):
    """Shows one running stage at a time."""

    def stage_started(self, title: str, *, cells: int, reused: int) -> None: ...

    def progress(self, *, label: str, step: int, total: int, cells_done: int = 0) -> None: ...

    def stage_finished(self, summary: str) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(kw_only=True)
class StageView:
    """State of the running stage, from which every reporter derives what it shows. Times in seconds."""

    title: str
    cells: int
    clock: Callable[[], float] = time.monotonic
    label: str = ""
    step: int = 0
    total: int = 0
    cells_done: int = 0
    began: float = field(init=False)
    work_began: float = field(init=False)
    newest_event: float = field(init=False)
    first_step: int = 0

    def __post_init__(self) -> None:
        self.began = self.work_began = self.newest_event = self.clock()

    def update(self, *, label: str, step: int, total: int, cells_done: int) -> bool:
        """Take one event; True if it opens new work, for which rate and time left start afresh."""
        opened = total != self.total or step < self.step
        if opened:
            self.work_began, self.first_step = self.clock(), step
        self.newest_event = self.clock()
        self.label, self.step, self.total, self.cells_done = label, step, total, cells_done
        return opened

    def rate(self) -> float | None:
        """Steps per second from the first to the newest event of this work; None before the second step."""
        steps, seconds = self.step - self.first_step, self.newest_event - self.work_began
        return steps / seconds if steps > 0 and seconds > 0 else None

    def pace(self) -> str:
        """The rate as text: `3.2/s`, or `12 s each` where one step takes long; empty while unknown."""
        rate = self.rate()
        if rate is None:
            return ""
        return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.0f} s each"

    def seconds_left(self) -> float | None:
        """At the present rate, counted from the newest event; None while the rate is unknown."""
        rate = self.rate()
        if rate is None:
            return None
        return max(0.0, (self.total - self.step) / rate - (self.clock() - self.newest_event))

    def elapsed(self) -> float:
        return self.clock() - self.began

    def line(self) -> str:
        """The running stage in one line of text."""
        elapsed = clock_time(self.elapsed())
        if not self.total:
            return f"{self.title}: starting ({elapsed})"
        left = self.seconds_left()
        pace = "" if left is None else f", {self.pace()}, {clock_time(left)} left"
        done = f" [{self.cells_done} of {self.cells} done]" if self.cells > 1 else ""
        return f"{self.title}{done}: {self.label} {self.step}/{self.total}{pace} ({elapsed})"


def clock_time(seconds: float) -> str:
    """`75.2` -> `1:15`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def printable(line: str) -> str:
    """One line without what a terminal obeys (a file name may hold any byte): `\\x1b` for an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class LineReporter:
    """One line of text every `interval` seconds, from a timer: it goes on when a stage reports nothing."""

    def __init__(self, write: Callable[[str], None], *, interval: float = 10.0) -> None:
        self._write = write
        self._interval = interval
        self._view: StageView | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def _tick(self, stop: threading.Event) -> None:
        while not stop.wait(self._interval):
            with self._lock:
                if self._view:
                    self._write(self._view.line())

    def stage_started(self, title: str, *, cells: int, reused: int) -> None:
        with self._lock:
            self._view = StageView(title=title, cells=cells)
        self._write(f"{title}: {cells} to do" + (f", {reused} reused" if reused else ""))
        self._stop = threading.Event()
        threading.Thread(target=self._tick, args=(self._stop,), name="progress-lines", daemon=True).start()

    def progress(self, *, label: str, step: int, total: int, cells_done: int = 0) -> None:
        with self._lock:
            if self._view:
                self._view.update(label=label, step=step, total=total, cells_done=cells_done)

    def stage_finished(self, summary: str) -> None:
        self._stop.set()
        with self._lock:
            self._view = None
            self._write(summary)

    def note(self, text: str) -> None:
        self._write(text)


class _Elapsed(ProgressColumn):
    """Time since the stage began; it also runs before the first event, while the program is imported."""

    def __init__(self, view: StageView) -> None:
        self._view = view
        super().__init__()

    def render(self, task: Task) -> Text:
        return Text(f"({clock_time(self._view.elapsed())})")


class BarReporter:
    """Rich progress bars: label, count, rate, time left; finished stages stay as lines above the bar."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._view: StageView | None = None

    def stage_started(self, title: str, *, cells: int, reused: int) -> None:
        self._view = StageView(title=title, cells=cells)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            _Elapsed(self._view),
            console=self._console,
            transient=True,
            # A stage may take a second per step or a minute: keep an estimate over many steps.
            speed_estimate_period=120.0,
        )
        self._progress.start()
        self._task = self._progress.add_task(f"{title}: starting", total=None, rate="")

    def progress(self, *, label: str, step: int, total: int, cells_done: int = 0) -> None:
        if self._progress is None or self._task is None or self._view is None:
            return
        view = self._view
        if view.update(label=label, step=step, total=total, cells_done=cells_done):
            self._progress.reset(self._task, total=total, completed=step)
        done = f" ({cells_done} of {view.cells} done)" if view.cells > 1 else ""
        self._progress.update(
            self._task,
            completed=step,
            description=f"{label}{done}",
            rate=view.pace(),
        )

    def stage_finished(self, summary: str) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = self._view = None
        self._console.print(summary, markup=False, highlight=False)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


class LoggedReporter:
    """Another reporter, of which summaries and notes are also written to a log."""

    def __init__(self, reporter: Reporter, log: Callable[[str], None]) -> None:
        self._reporter = reporter
        self._log = log
        self.stage_started, self.progress = reporter.stage_started, reporter.progress

    def stage_finished(self, summary: str) -> None:
        self._reporter.stage_finished(summary)
        self._log(summary)

    def note(self, text: str) -> None:
        self._reporter.note(text)
        self._log(text)


_current: ContextVar[Reporter | None] = ContextVar("reporter", default=None)


@contextmanager
def reporting(reporter: Reporter) -> Iterator[Reporter]:
    """Make `reporter` the one that stages of this context report to."""
    token = _current.set(reporter)
    try:
        yield reporter
    finally:
        _current.reset(token)


def current_reporter() -> Reporter | None:
    """The reporter of this context, None where nobody set one (a run that a Prefect deployment started)."""
    return _current.get()


def terminal_reporter(console: Console) -> Reporter:
    """Bars on a terminal, plain lines anywhere else."""
    if console.is_terminal:
        return BarReporter(console)
    return LineReporter(lambda text: print(f"{time.strftime('%H:%M:%S')} {text}", flush=True))
