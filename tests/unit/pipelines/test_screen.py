"""A screen that goes away, or lacks a letter, ends no run."""

import io
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.console import terminal_reporter
from pipelines.screen import lasting_screen

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="pipelines.screen")
    return caplog


def show_on(descriptor: int, monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8") -> None:
    """Standard output and error are this descriptor."""
    for name in ("stdout", "stderr"):
        stream = open(descriptor, "w", encoding=encoding, closefd=False, buffering=1)  # noqa: SIM115
        monkeypatch.setattr(sys, name, stream)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:  # the test closed it
            continue


@pytest.mark.chaos
def test_a_reader_that_goes_away_ends_nothing_and_the_log_has_what_it_missed(pipe, monkeypatch, log) -> None:
    read_end, write_end = pipe
    show_on(write_end, monkeypatch)
    with lasting_screen():
        reporter = terminal_reporter(Console())
        reporter.note("seen")
        assert os.read(read_end, 100).endswith(b"seen\n")
        os.close(read_end)
        reporter.note("the verdict: đọc")
        print("an error", file=sys.stderr)
    assert [record.getMessage().split(": ", 1)[0] for record in log.records] == [
        "not shown (Broken pipe)"
    ] * 2
    assert "the verdict: đọc" in log.text and "an error" in log.text


@pytest.mark.chaos
def test_a_closed_terminal_ends_nothing_and_its_progress_bars_do_not_fill_the_log(monkeypatch, log) -> None:
    master, terminal = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    show_on(terminal, monkeypatch)
    with lasting_screen():
        console = Console()
        assert console.is_terminal
        reporter = terminal_reporter(console)
        reporter.stage_started("training", cells=1, reused=0)
        os.close(master)
        for step in range(50):
            reporter.progress(label="dose 0", step=step, total=50)
            reporter._view.refresh()
        reporter.stage_finished("training: done")
        console.print("Verdict: inconclusive", style="bold")
    os.close(terminal)
    assert "not shown (Input/output error): Verdict: inconclusive" in log.text
    assert "dose 0" not in log.text and "\x1b" not in log.text and len(log.records) < 10


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_letters_that_the_screen_lacks_become_escapes(pipe, monkeypatch, encoding) -> None:
    show_on(pipe[1], monkeypatch, encoding)
    with lasting_screen():
        print("tài liệu đọc.pdf: truncated")
        Console().print("tài liệu")
    shown = os.read(pipe[0], 1000).decode(encoding)
    assert "li\\u1ec7u \\u0111\\u1ecdc.pdf: truncated\n" in shown and shown.count("li\\u1ec7u") == 2


def test_output_that_somebody_collects_in_memory_is_left_alone(monkeypatch) -> None:
    collected = io.StringIO()
    monkeypatch.setattr(sys, "stdout", collected)
    with lasting_screen():
        assert sys.stdout is collected
    assert sys.stdout is collected


def test_afterwards_the_streams_are_the_old_ones_and_everything_is_written(
    tmp_path: Path, monkeypatch
) -> None:
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        print("before", end=" ")
        with lasting_screen():
            print("half a line", end="")
        assert sys.stdout is file
        assert (tmp_path / "out").read_text() == "before half a line"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_is_closed_is_the_null_device_and_no_child_gets_its_number(tmp_path: Path, closed: str) -> None:
    program = (
        "import json, os, sys; from pipelines.screen import open_closed_streams; open_closed_streams()\n"
        "print('out'); print('error', file=sys.stderr); sys.stdin.read()\n"
        "open(sys.argv[1], 'w').write(json.dumps(min(os.pipe())))"
    )
    command = f'"$@" {closed} </dev/null' if "<" not in closed else f'"$@" {closed}'
    result = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, "-c", program, str(tmp_path / "said")],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (
        0, "" if ">&-" in closed.split() else "out\n", "" if "2>&-" in closed else "error\n"
    )  # fmt: skip
    assert json.loads((tmp_path / "said").read_text()) > 2
