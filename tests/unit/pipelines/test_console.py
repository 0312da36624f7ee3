"""Progress as a person sees it."""

import dataclasses
import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.console import Reporter, StageView, clock_time, terminal_reporter
from pipelines.documents import inventory_summary
from pipelines.stage_table import Output
from stages.cells import Cell


def test_clock_time() -> None:
    assert [clock_time(seconds) for seconds in (0, 75.9, 3600 + 61)] == ["0:00", "1:15", "1:01:01"]


def test_a_line_shows_count_rate_and_time_left() -> None:
    now = [100.0]
    view = StageView("refine", cells=3, clock=lambda: now[0])
    assert view.line() == "refine: starting (0:00)"
    for now[0], step in ((110.0, 10), (120.0, 30)):
        view.tell(label=f"seed {step // 30}", step=step, total=100, cells_done=step // 30)
    assert view.line() == "refine [1 of 3 done]: seed 1 30/100, 2.0/s, 0:35 left (0:20)"
    now[0] = 130.0  # nothing new: the time left does not grow
    assert "2.0/s, 0:35 left (0:30)" in view.line()
    view.tell(label="seed 2", step=0, total=60, cells_done=2)  # new work: another rate
    assert view.line() == "refine [2 of 3 done]: seed 2 0/60 (0:30)"
    now[0] = 0.0
    slow = StageView("generation", cells=1, clock=lambda: now[0])
    for now[0], step in ((0.0, 1), (30.0, 2)):
        slow.tell(label="dose 0", step=step, total=4, cells_done=0)
    assert slow.line() == "generation: dose 0 2/4, 30 s each, 1:00 left (0:30)"
    for step in (0, 2):
        slow.tell(label="dose 32", step=step, total=2, cells_done=0)
    assert slow.line() == "generation: dose 32 2/2 (0:30)"


def test_lines_go_on_when_a_stage_says_nothing() -> None:
    lines: list[str] = []
    reporter = Reporter(write=lines.append, interval=0.02)
    reporter.stage_started("pretrain", cells=2, reused=1)
    wait_until(lambda: len([line for line in lines if "starting" in line]) > 2)
    reporter.stage_finished("pretrain: done")
    time.sleep(0.1)
    assert (lines[0], lines[-1]) == ("pretrain: 2 to do, 1 reused", "pretrain: done")


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def bars() -> tuple[Reporter, io.StringIO]:
    screen = io.StringIO()
    return terminal_reporter(Console(file=screen, force_terminal=True, width=100)), screen


def test_a_bar_shows_a_running_clock_then_label_count_and_rate_and_leaves_a_line() -> None:
    reporter, screen = bars()
    reporter.stage_started("refine", cells=2, reused=0)
    wait_until(lambda: "(0:01)" in screen.getvalue())  # the stage has said nothing yet
    assert "refine: starting" in screen.getvalue()
    for step in range(1, 6):
        reporter.progress(label="seed 0", step=step, total=10)
        time.sleep(0.05)
    reporter.stage_finished("refine: done")
    shown = screen.getvalue()
    assert all(text in shown for text in ("seed 0 (0 of 2 done)", "5/10", "/s"))
    assert shown.rstrip().endswith("refine: done")


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_bar_shows_its_numbers_on_a_narrow_screen(width: int) -> None:
    screen, now = io.StringIO(), [0.0]
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    view = StageView("refine", cells=4, console=console, clock=lambda: now[0])
    for now[0], step in ((1.0, 1), (11.0, 21), (21.0, 41)):
        view.tell(label="dose 4800, seed 0, text-only", step=step, total=100, cells_done=1)
    console.print(view.make_tasks_table(view.tasks))
    for text in ("41/100", "2.0/s", "0:00:30", "(0:21)"):
        assert text in screen.getvalue()


def test_a_note_is_one_line_on_a_narrow_screen_so_that_what_it_names_can_be_copied() -> None:
    screen = io.StringIO()
    reporter = terminal_reporter(Console(file=screen, force_terminal=True, width=20))
    reporter.note("events wait in /home/anna/lco output/runs/1/journal.jsonl")
    assert screen.getvalue() == "events wait in /home/anna/lco output/runs/1/journal.jsonl\n"


def test_a_pipe_gets_lines_with_the_time_of_day_and_the_log_the_summaries(capsys) -> None:
    logged = []
    reporter = dataclasses.replace(terminal_reporter(Console(file=io.StringIO())), log=logged.append)
    reporter.stage_started("refine", cells=1, reused=0)
    reporter.progress(label="seed 0", step=1, total=2)
    reporter.stage_finished("refine: done")
    reporter.note("a.pdf: empty")
    lines = [re.fullmatch(r"\d\d:\d\d:\d\d (.*)", line)[1] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["refine: 1 to do", *logged]
    assert logged == ["refine: done", "a.pdf: empty"]


NOTHING_LEFT_OUT = {"refused_pages": 0, "first_refused_pages": [], "left_out_characters": {}}


@pytest.mark.parametrize(
    ("name", "shown"),
    [("[/].pdf", "[/].pdf"), ("\x1b[2Jtrắng\n.pdf", r"\x1b[2Jtrắng\n.pdf"), ("\udcff.pdf", r"\udcff.pdf")],
)
def test_a_file_name_is_neither_markup_nor_a_terminal_command(tmp_path: Path, name: str, shown: str) -> None:
    document = {"path": name, "status": "quarantined", "reason": "empty"} | NOTHING_LEFT_OUT
    content = {"documents": [document], "warnings": [name], "unused_queries": []}
    (tmp_path / "inventory.json").write_text(json.dumps(content))
    inventory = Output(stage="documents-inventory", cell=Cell(), path=tmp_path, digest="d")
    used, quarantined, lines = inventory_summary(inventory)
    assert (used, quarantined, lines) == (0, 1, [f"{shown}: empty", shown])
    reporter, screen = bars()
    reporter.stage_started(lines[1], cells=1, reused=0)
    reporter.progress(label=lines[1], step=1, total=2)
    reporter.stage_finished(lines[1])
    reporter.note(lines[0])
    assert screen.getvalue().endswith(f"{shown}\n{shown}: empty\n")


def test_the_screen_has_all_warnings_and_the_first_ten_of_what_is_not_used(tmp_path: Path) -> None:
    bad = {"status": "quarantined", "reason": "empty"} | NOTHING_LEFT_OUT
    documents = [{"path": f"{n}.pdf"} | bad for n in range(12)]
    lines = [f"line {n}: no document" for n in range(1, 41)]
    content = {"documents": documents, "warnings": ["one", "two"], "unused_queries": lines}
    (tmp_path / "inventory.json").write_text(json.dumps(content))
    inventory = Output(stage="documents-inventory", cell=Cell(), path=tmp_path, digest="d")
    assert inventory_summary(inventory)[2] == [
        *(f"{n}.pdf: empty" for n in range(10)),
        "... and 2 more, in the report",
        "one",
        "two",
        *(f"queries.jsonl: {line}" for line in lines[:10]),
        "... and 30 more, in the report",
    ]


def test_the_screen_has_what_was_left_out_of_the_documents_used(tmp_path: Path) -> None:
    first = {"page": 7, "reason": "too large"}
    of = {"status": "used", "reason": None} | NOTHING_LEFT_OUT
    documents = [
        {"path": "a.pdf"} | of,
        {"path": "b.pdf"} | of | {"left_out_characters": {"no ink": 300}},
        {"path": "c.pdf"} | of | {"refused_pages": 1_200, "first_refused_pages": [first]},
        {"path": "d.pdf"} | of | {"left_out_characters": {"turned": 28, "no ink": 1_012}},
    ]
    content = {"documents": documents, "warnings": [], "unused_queries": []}
    (tmp_path / "inventory.json").write_text(json.dumps(content))
    inventory = Output(stage="documents-inventory", cell=Cell(), path=tmp_path, digest="d")
    assert inventory_summary(inventory)[2] == [
        "1,200 page(s) of 1 document(s) could not be used; the first is page 7 of c.pdf: too large",
        "1,340 character(s) of 2 document(s) left out: no ink (1,312), turned (28)",
    ]
    many = {"left_out_characters": {f"reason {n}": 20 - n for n in range(12)}}
    (tmp_path / "inventory.json").write_text(json.dumps(content | {"documents": [of | many]}))
    [line] = inventory_summary(inventory)[2]
    assert line.endswith(", reason 8 (12), reason 9 (11), other reasons, in the report")
