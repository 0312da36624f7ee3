"""`lco inspect`: what the reader makes of documents, on the screen, as JSON lines, or as pages to look at."""

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from data_prep.config import ReadingConfig
from data_prep.inspecting import (
    Inspected,
    Outcome,
    Summary,
    Transcribe,
    given_documents,
    inspect_documents,
    page_pictures,
)
from data_prep.plain_text import escaped
from data_prep.samples import Sample
from data_prep.source_files import SourceFile
from pipelines.console import clock_time, print_table, terminal_reporter
from pipelines.inspect_pages import PagesFolder
from pipelines.run import EXIT_FAILED
from stages.recipes import Recipe

# What a reason begins with, and what a person can do about it.
ADVICE = {
    "encrypted": "save a copy that needs no password",
    "truncated": "fetch the file again: its end is missing",
    "cannot be read: No such file": "check the path",
    "cannot be read: Permission": "correct the file's permissions",
    "no usable text": "recognise the text anew (OCR): what the file says is not what it shows",
    "no text": "recognise the text first (OCR), or put a .txt of the same name beside a page image",
    "more text than one block": "read whole pages (--unit page), or use PDFs with a text layer",
}
SHOWN = 10
_NUMBER = re.compile(r"\d[\d,]*")


def inspect(
    files: Sequence[Path],
    recipe: Recipe,
    config: ReadingConfig,
    *,
    as_json: bool,
    html: Path | None,
    model: Path | None,
    workers: int,
) -> int:
    """Read the files and show what came of them; return the exit status, 1 where none could be read.

    JSON lines are written as the documents are read; when their reader goes away, this ends with status 0.
    `model` is asked what it reads, too. Raises BadParameter where the folder `html` or the model cannot be
    used.
    """
    progress = _Progress(Console(stderr=True))
    transcribe = _opened(model, recipe, progress.wrote) if model else None
    folder = PagesFolder.new(html, documents=files, config=config) if html else None
    documents, unsupported = given_documents(files)
    outcomes: list[Outcome] = []
    try:
        with closing(
            _read(documents, config, progress, transcribe, pictures=folder is not None, workers=workers)
        ) as read:
            for document, pictures in read:
                if as_json:
                    write_lines(document)
                if folder:
                    folder.add(document, pictures)
                outcomes.append(document.outcome())
        if as_json:
            for one in unsupported:
                write_lines(Inspected(name=one.name, reason=one.reason))
    except BrokenPipeError:
        return 0
    usable = any(one.summary for one in outcomes)
    if not as_json:
        _print_summary(outcomes, Counter(one.reason for one in unsupported), config)
    if folder:
        folder.finish(outcomes, unsupported)
        say(Console(stderr=as_json), f"Pages with their boxes: {folder.index}")
    elif usable and not as_json:
        say(Console(), "To look at the pages with their boxes: the same with --html FOLDER")
    if usable and not as_json:
        say(Console(), "To train on them: lco run --documents FOLDER; what is refused here takes no part")
    return 0 if usable else EXIT_FAILED


def _opened(model: Path, recipe: Recipe, wrote: Callable[[int], None]) -> Transcribe:
    from pipelines.inspect_model import model_folder, transcriber  # slow to import: torch

    folder = model_folder(model)
    if folder != model:
        say(Console(stderr=True), f"The model that reads: {folder}")
    return transcriber(folder, recipe, wrote)


class _Progress:
    """How far reading is, on a console."""

    def __init__(self, console: Console) -> None:
        self.reporter = terminal_reporter(console)
        self._told: tuple[float, int] = (0.0, 1)
        self._written = 0

    def read(self, label: str, step: float, total: int) -> None:
        self._told = (step, total)
        self.reporter.progress(label=label, step=step, total=total)

    def wrote(self, passages: int) -> None:
        self._written += passages
        step, total = self._told
        self.reporter.progress(label=f"transcribing, {self._written:,} done", step=step, total=total)


def _read(
    documents: Sequence[SourceFile],
    config: ReadingConfig,
    progress: _Progress,
    transcribe: Transcribe | None,
    *,
    pictures: bool,
    workers: int,
) -> Iterator[tuple[Inspected, Iterator[Sample]]]:
    """Each document with the pictures of its pages, where they are asked for; progress goes to stderr."""
    began, pages, said = time.monotonic(), 0, ""
    passes = [0.0, 0.0] if pictures else [0.0]

    def told(number: int, done: float, label: str) -> None:
        passes[number] = done
        progress.read(label, sum(passes) / len(passes), len(documents))

    progress.reporter.stage_started("reading documents", cells=1, reused=0)
    try:
        with ExitStack() as stack:
            first = inspect_documents(
                documents, config, partial(told, 0), workers=workers, transcribe=transcribe
            )
            read = stack.enter_context(closing(first))
            shown: Iterator[Iterator[Sample]] = repeat(iter(()))
            if pictures:
                second = page_pictures(documents, config, partial(told, 1), workers=workers)
                shown = stack.enter_context(closing(second))
            for document, its_pictures in zip(read, shown, strict=False):
                yield document, its_pictures
                pages += document.summary().pages
        took = clock_time(time.monotonic() - began)
        said = f"read {len(documents):,} document(s), {pages:,} page(s), in {took}"
    finally:
        progress.reporter.stage_finished(said)


def write_lines(document: Inspected) -> None:
    """Write the document as JSON lines to standard output, in UTF-8 whatever the terminal's letters are.

    Raises BrokenPipeError when the reader has gone away: what sys.stdout is here would go on without a word.
    """
    descriptor = sys.stdout.fileno()
    for line in lines_of(document):
        rest = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError as error:
            error.filename = "standard output"
            raise


def lines_of(document: Inspected) -> Iterator[dict[str, Any]]:
    """What `lco inspect --json` says of a document, in reading order."""
    if document.reason:
        yield {"document": document.name, "page": None, "reason": document.reason}
    for part in document.parts:
        place = {"document": document.name, "page": part.page}
        if isinstance(part, Sample):
            shown = ("block", "text", "box", "ink", "trainable", "reason")
            line = place | {name: getattr(part, name) for name in shown}
            if part.key in document.written:
                line["written"] = escaped(document.written[part.key].text)
            yield line
            continue
        if part.refused:
            yield place | {"reason": part.refused}
        if part.left_out:
            yield place | {"left_out": part.left_out}


def _print_summary(outcomes: Sequence[Outcome], others: Mapping[str, int], config: ReadingConfig) -> None:
    console = Console()
    titles = ["Pages", "Blocks" if config.unit == "block" else "Read whole", "Trainable"]
    asked = any(one.summary and one.summary.compared for one in outcomes)
    titles += ["Wrong characters"] if asked else []
    table = Table(Column("Document", overflow="fold"), *(Column(title, justify="right") for title in titles))
    for one in outcomes:
        table.add_row(_name(one), *(_counts(one.summary, asked) if one.summary else "–" * len(titles)))
    total = sum((one.summary for one in outcomes if one.summary), Summary())
    if len(outcomes) > 1:
        table.add_section()
        table.add_row(f"{len(outcomes):,} documents", *_counts(total, asked), style="bold")
    if outcomes and console.is_terminal:
        console.print(table)  # a long name takes several lines
    elif outcomes:
        print_table(console, table)
    refused = Counter(one.reason for one in outcomes if one.reason)
    unit = "blocks" if config.unit == "block" else "pages"
    _print_reasons(console, f"Searched, not trained on ({unit})", total.not_trained_on)
    _print_reasons(console, "Left out (characters)", total.left_out)
    _print_reasons(console, "Refused (pages)", total.refused_pages)
    _print_reasons(console, "Refused (documents)", refused)
    _print_reasons(console, "Not documents (files)", others)


def _name(outcome: Outcome) -> Text:
    """The document's name; below it what is not read of it, and why."""
    lines = [f"refused: {outcome.reason}"] if outcome.reason else []
    if outcome.summary:
        left_out, refused = outcome.summary.left_out, outcome.summary.refused_pages
        lines += [f"{count:,} characters left out: {reason}" for reason, count in left_out.items()]
        lines += [f"{count:,} page(s) refused: {reason}" for reason, count in refused.items()]
    return Text.assemble(outcome.name, *((f"\n  {line}", "italic") for line in lines))


def _counts(summary: Summary, asked: bool) -> list[str]:
    """`asked`: with the share of characters that a model writes wrongly."""
    share = summary.wrong_share
    wrong = ["–" if share is None else f"{share:.1%}"] if asked else []
    return [f"{count:,}" for count in (summary.pages, summary.blocks, summary.trainable)] + wrong


def _print_reasons(console: Console, title: str, reasons: Mapping[str, int]) -> None:
    """The most frequent ones with their numbers, and what to do about them."""
    if not reasons:
        return
    say(console, f"{title}:")
    found = alike(reasons).most_common()
    for reason, count in found[:SHOWN]:
        advice = [words for beginning, words in ADVICE.items() if reason.startswith(beginning)]
        say(console, f"  {count:>7,}  {reason}" + (f" ({advice[0]})" if advice else ""))
    if len(found) > SHOWN:
        say(console, f"           and {len(found) - SHOWN:,} other reasons: --json has all")


def alike(reasons: Mapping[str, int]) -> Counter[str]:
    """Reasons that differ only in their numbers are counted as one, without them."""
    groups: dict[str, list[str]] = {}
    for reason in reasons:
        groups.setdefault(_NUMBER.sub("…", reason), []).append(reason)
    return Counter(
        {
            group[0] if len(group) == 1 else without: sum(reasons[one] for one in group)
            for without, group in groups.items()
        }
    )


def say(console: Console, text: str) -> None:
    """Print it as it is: it may hold a path or a part of a document."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
