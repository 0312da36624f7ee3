"""Processor seconds from PDFs to committed samples, against pypdfium2 alone on the same files, in turn.

    python -m tests.bench.reading FOLDER [--runs 3] [--json FILE]

Ours is `data_prep.reading.read_documents` into an empty store: the sandbox with its start and its children,
layout, crops, shards and their commit; in pages and in blocks, with one process and with two. The other opens
each file, renders every page in grey at the same resolution and reads its text. Variants alternate; ratios
are taken within a round, then the median. Processor time is user and system time of this process and of all
its descendants: each counts once it has been waited for, and all have when a run returns. Wall time, and so
what a second process gains, says little on a busy machine.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pypdfium2
from rich.console import Console
from rich.table import Table

from data_prep.config import ReadingConfig
from data_prep.reading import read_documents
from data_prep.source_files import SourceFile, find_documents
from infra.store import LocalStore
from tests.bench.measure import Moment, Run, in_turn

PDFIUM = "pypdfium2, render and text"
GOALS = {"ours, pages": 1.5, "ours, blocks": 3.0}
SPEED_UP_GOAL = 1.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run's numbers")
    arguments = parser.parse_args()
    files, _ = find_documents(arguments.folder)
    variants: dict[str, Callable[[], int]] = {
        PDFIUM: lambda: read_with_pdfium(files),
        "ours, pages": lambda: read_with_ours(files, ReadingConfig(unit="page"), workers=1),
        "ours, blocks": lambda: read_with_ours(files, ReadingConfig(unit="block"), workers=1),
        "ours, pages, 2 processes": lambda: read_with_ours(files, ReadingConfig(unit="page"), workers=2),
        "ours, blocks, 2 processes": lambda: read_with_ours(files, ReadingConfig(unit="block"), workers=2),
    }
    runs: dict[str, list[Run]] = {name: [] for name in variants}
    for _, name in in_turn(tuple(variants), arguments.runs):
        began = now()
        pages = variants[name]()
        runs[name].append(Run(work=pages, took=now() - began))
    show(runs)
    if arguments.json:
        numbers = {
            name: [{"pages": run.work} | asdict(run.took) for run in each] for name, each in runs.items()
        }
        arguments.json.write_text(json.dumps(numbers, indent=1), encoding="utf-8")


def now() -> Moment:
    """The two clocks in seconds; the processor's is that of this process and of what it has waited for."""
    times = os.times()
    processor = times.user + times.system + times.children_user + times.children_system
    return Moment(wall=time.perf_counter(), processor=processor)


def read_with_pdfium(files: Sequence[SourceFile]) -> int:
    scale, pages = ReadingConfig().dots_per_inch / 72, 0
    for file in files:
        with closing(pypdfium2.PdfDocument(file.path.read_bytes())) as document:
            for number in range(len(document)):
                with closing(document[number]) as page, closing(page.get_textpage()) as textpage:
                    page.render(scale=scale, grayscale=True).close()
                    textpage.get_text_range()
            pages += len(document)
    return pages


def read_with_ours(files: Sequence[SourceFile], config: ReadingConfig, *, workers: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        readings = read_documents(files, config, store, lambda *progress: None, workers=workers)
    for reading in readings:
        if reading.reason is not None:
            raise SystemExit(f"{reading.source.name}: {reading.reason}; take it out of the folder")
    return sum(reading.pages for reading in readings)


def show(runs: dict[str, list[Run]]) -> None:
    """Print medians, and ratios to pypdfium2 and of two processes to one, within a round."""
    console = Console(width=150)
    table = Table("", title=f"Reading {runs[PDFIUM][0].work:,} pages, median of {len(runs[PDFIUM])}")
    for column in ("processor s", "of pypdfium2's", "goal at most", "wall s", "pages/s of wall"):
        table.add_column(column, justify="right")
    for name, each in runs.items():
        processor = [run.took.processor for run in each]
        ratios = [mine / other.took.processor for mine, other in zip(processor, runs[PDFIUM], strict=True)]
        table.add_row(
            name,
            f"{statistics.median(processor):.2f}",
            spread(ratios),
            f"{GOALS[name]:.1f}" if name in GOALS else "",
            f"{statistics.median(run.took.wall for run in each):.2f}",
            f"{statistics.median(run.work / run.took.wall for run in each):.1f}",
        )
    console.print(table)
    for name in GOALS:
        pairs = zip(runs[name], runs[f"{name}, 2 processes"], strict=True)
        faster = spread([one.took.wall / two.took.wall for one, two in pairs])
        console.print(f"{name}: {faster} times faster on two processes (goal {SPEED_UP_GOAL})")


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
