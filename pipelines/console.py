"""What a person sees while a pipeline runs: progress of every stage, at any time, on any output.

A stage reports through the reporter of the current context, so that the same flow draws bars in a terminal
(`lco run`), prints a plain line every ten seconds into a file or pipe, or logs to Prefect (a deployment).
"""

import functools
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text


class _Elapsed(ProgressColumn):
    """Time since the stage began; it also runs before the first event, while the program is imported."""

    def render(self, task: Task) -> Text:
        return Text(f"({_elapsed(task)})")


class _Label(ProgressColumn):
    """What a stage does now: on a narrow screen it gives way to the numbers."""

    def render(self, task: Task) -> Text:
        return Text(task.description, style="bold", no_wrap=True, overflow="ellipsis")


def _whole() -> Column:
    """A column that nothing shortens while another one can be."""
    return Column(no_wrap=True)


class StageView(Progress):
    """The running stage as rich's progress, which knows rate and time left; drawn only on a `console`."""

    def __init__(
        self,
        title: str,
        *,
        cells: int,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            SpinnerColumn(),
            _Label(),
            BarColumn(bar_width=20 if console is None or console.width >= 100 else 6),
            MofNCompleteColumn(table_column=_whole()),
            TextColumn("{task.fields[rate]}"),
            TextColumn("left"),
            TimeRemainingColumn(table_column=_whole()),
            _Elapsed(table_column=_whole()),
            console=console,
            disable=console is None,
            transient=True,
            get_time=clock,
            # A stage may take a second per step or a minute: keep an estimate over many steps.
            speed_estimate_period=120.0,
        )
        self.title, self.cells = title, cells
        self.label = self.done = ""
        self.add_task(f"{title}: starting", total=None, rate="", began=clock())

    @property
    def stage(self) -> Task:
        return self.tasks[0]

    def tell(self, *, label: str, step: float, total: int, cells_done: int) -> None:
        """Take one event; for new work, rate and time left start afresh."""
        if total != self.stage.total or step < self.stage.completed:
            self.reset(self.stage.id, total=total)
        self.label, self.done = label, f"{cells_done} of {self.cells} done" if self.cells > 1 else ""
        shown = f"{label} ({self.done})" if self.done else label
        self.update(self.stage.id, completed=step, description=shown)
        self.update(self.stage.id, rate=self.pace())

    def pace(self) -> str:
        """The rate as text: `3.2/s`, or `12 s each` where one step takes long; empty while unknown."""
        rate = self.stage.speed
        if not rate:
            return ""
        return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.0f} s each"

    def line(self) -> str:
        """The running stage in one line of text."""
        task, elapsed = self.stage, _elapsed(self.stage)
        if not task.total:
            return f"{self.title}: starting ({elapsed})"
        done = f" [{self.done}]" if self.done else ""
        pace, left = self.pace(), task.time_remaining
        pace = f", {pace}, {clock_time(left)} left" if pace and left is not None else ""
        count = f"{int(task.completed)}/{int(task.total)}"
        return f"{self.title}{done}: {self.label} {count}{pace} ({elapsed})"


def _elapsed(task: Task) -> str:
    return clock_time(task.get_time() - task.fields["began"])


def clock_time(seconds: float) -> str:
    """`75.2` -> `1:15`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def printable(line: str) -> str:
    """One line without what a terminal obeys (a file name may hold any byte): `\\x1b` for an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def print_table(console: Console, table: Table) -> None:
    """Print a table of texts without cutting any, whatever the width of the screen.

    Into a file or pipe it is as wide as it needs. On a screen that is too narrow for it, titles take several
    lines; where that is not enough, each row is a record: its first cell as a heading, then a line per value.
    """
    everything = console.options.update(max_width=10_000)
    needed = Measurement.get(console, everything, table).maximum
    if console.is_terminal and needed > console.width:
        for column in table.columns:  # cells whole, titles between words
            words = [*str(column.header).split(), *column.cells]
            column.width = max(len(word) for word in words)
        needed = Measurement.get(console, everything, table).maximum
        if needed > console.width:
            _print_records(console, table)
            return
    table.width = needed
    console.print(table, crop=False)


def _print_records(console: Console, table: Table) -> None:
    say = functools.partial(console.print, markup=False, highlight=False)
    if table.title:
        say(table.title, style="italic")
    first, *others = table.columns
    for heading, *row in zip(first.cells, *(column.cells for column in others), strict=True):
        say(f"{first.header} {heading}".strip(), style="bold")
        for column, cell in zip(others, row, strict=True):
            say(f"  {column.header}: {cell}")
    if table.caption:
        say(table.caption)


@dataclass(kw_only=True)
class Reporter:
    """Shows one running stage at a time: as a bar on `console`, else one line to `write` every `interval`
    seconds, from a timer that goes on when a stage reports nothing. `log` has summaries and notes, too."""

    console: Console | None = None
    write: Callable[[str], None] = print
    interval: float = 10.0
    log: Callable[[str], None] | None = None
    result: dict[str, Any] | None = None
    failure: BaseException | None = None
    """What the run found, once all of it is committed and recorded; or what ended it."""
    _view: StageView | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def stage_started(self, title: str, *, cells: int, reused: int) -> None:
        with self._lock:
            self._view = StageView(title, cells=cells, console=self.console)
        if self.console:
            self._view.start()
            return
        self.write(f"{title}: {cells} to do" + (f", {reused} reused" if reused else ""))
        self._stop = threading.Event()
        threading.Thread(target=self._tick, args=(self._stop,), name="progress-lines", daemon=True).start()

    def progress(self, *, label: str, step: float, total: int, cells_done: int = 0) -> None:
        with self._lock:
            if self._view:
                self._view.tell(label=label, step=step, total=total, cells_done=cells_done)

    def stage_finished(self, summary: str) -> None:
        self._stop.set()
        with self._lock:
            if self._view:
                self._view.stop()
            self._view = None
            if summary:
                self.note(summary)

    def note(self, text: str) -> None:
        if self.console:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)  # it may hold a path
        else:
            self.write(text)
        if self.log:
            self.log(text)

    def _tick(self, stop: threading.Event) -> None:
        while not stop.wait(self.interval):
            with self._lock:
                if self._view:
                    self.write(self._view.line())


current_reporter: ContextVar[Reporter | None] = ContextVar("reporter", default=None)
"""The one of this context, None where nobody set one (a run that a Prefect deployment started)."""


def terminal_reporter(console: Console) -> Reporter:
    """Bars on a terminal, plain lines anywhere else."""
    if console.is_terminal:
        return Reporter(console=console)

    def write(text: str) -> None:
        stream = sys.stderr if console.stderr else sys.stdout
        print(f"{time.strftime('%H:%M:%S')} {text}", file=stream, flush=True)

    return Reporter(write=write)
