"""Progress as a person sees it."""

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.console import BarReporter, LineReporter, StageView, clock_time, terminal_reporter
from pipelines.results import inventory_summary


def test_clock_time() -> None:
    assert [clock_time(seconds) for seconds in (0, 75.9, 3600 + 61)] == ["0:00", "1:15", "1:01:01"]


def test_a_line_shows_count_rate_and_time_left() -> None:
    now = [100.0]
    view = StageView(title="refine", cells=3, clock=lambda: now[0])
    assert view.line() == "refine: starting (0:00)"
    now[0] = 110.0
    view.update(label="seed 0", step=10, total=100, cells_done=0)
    now[0] = 120.0
    view.update(label="seed 1", step=30, total=100, cells_done=1)
    assert view.line() == "refine [1 of 3 done]: seed 1 30/100, 2.0/s, 0:35 left (0:20)"
    now[0] = 130.0  # nothing new: the time left goes on falling, it does not grow
    assert "0:25 left" in view.line()


def test_slow_steps_are_shown_in_seconds() -> None:
    now = [0.0]
    view = StageView(title="generation", cells=1, clock=lambda: now[0])
    view.update(label="dose 0", step=1, total=4, cells_done=0)
    now[0] = 30.0
    view.update(label="dose 0", step=2, total=4, cells_done=0)
    assert "30 s each, 1:00 left" in view.line()


def test_lines_go_on_when_a_stage_says_nothing() -> None:
    lines: list[str] = []
    reporter = LineReporter(lines.append, interval=0.02)
    reporter.stage_started("pretrain", cells=2, reused=1)
    deadline = time.monotonic() + 10
    while len([line for line in lines if "starting" in line]) < 3:
        assert time.monotonic() < deadline, lines
        time.sleep(0.02)
    reporter.stage_finished("pretrain: done")
    assert lines[0] == "pretrain: 2 to do, 1 reused"
    assert lines[-1] == "pretrain: done"
    time.sleep(0.1)
    assert lines[-1] == "pretrain: done"


def test_bars_show_label_count_and_rate_and_leave_a_line() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    reporter = terminal_reporter(console)
    assert isinstance(reporter, BarReporter)
    reporter.stage_started("refine", cells=2, reused=0)
    for step in range(1, 6):
        reporter.progress(label="seed 0", step=step, total=10)
        time.sleep(0.05)
    reporter.stage_finished("refine: done")
    assert "seed 0 (0 of 2 done)" in screen.getvalue()
    assert "5/10" in screen.getvalue()
    assert "/s" in screen.getvalue()
    assert screen.getvalue().rstrip().endswith("refine: done")


def test_a_pipe_gets_plain_lines() -> None:
    assert isinstance(terminal_reporter(Console(file=io.StringIO())), LineReporter)


def test_a_stage_that_has_said_nothing_yet_shows_its_title_and_a_running_clock() -> None:
    screen = io.StringIO()
    reporter = BarReporter(Console(file=screen, force_terminal=True, width=100))
    reporter.stage_started("refine", cells=2, reused=0)
    deadline = time.monotonic() + 10
    while "(0:01)" not in screen.getvalue():
        assert time.monotonic() < deadline, screen.getvalue()
        time.sleep(0.05)
    reporter.stage_finished("refine: stopped")
    assert "refine: starting" in screen.getvalue()
    assert "(0:00)" in screen.getvalue()


@pytest.mark.parametrize(
    ("name", "shown"),
    [("[/].pdf", "[/].pdf"), ("\x1b[2Jtrắng\n.pdf", r"\x1b[2Jtrắng\n.pdf"), ("\udcff.pdf", r"\udcff.pdf")],
)
def test_a_file_name_is_neither_markup_nor_a_terminal_command(tmp_path: Path, name: str, shown: str) -> None:
    document = {"path": name, "status": "quarantined", "reason": "empty"}
    (tmp_path / "inventory.json").write_text(json.dumps({"documents": [document], "warnings": [name]}))
    used, quarantined, lines = inventory_summary(tmp_path)
    assert (used, quarantined, lines) == (0, 1, [f"{shown}: empty", shown])
    screen = io.StringIO()
    reporter = BarReporter(Console(file=screen, force_terminal=True, width=100))
    reporter.stage_started(lines[1], cells=1, reused=0)
    reporter.progress(label=lines[1], step=1, total=2)
    reporter.stage_finished(lines[1])
    reporter.note(lines[0])
    assert screen.getvalue().endswith(f"{shown}\n{shown}: empty\n")
