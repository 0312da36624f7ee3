"""How right the reader of PDFs is over a folder of them, judged by poppler's `pdftotext`, an independent one.

    python -m tests.bench.reading_accuracy FOLDER [--processes 2] [--worst 10] [--json FILE]

Needs poppler-utils. Every PDF is read in a process of its own. Three questions are asked:

Is a crop that is trained on blank? Its PNG is decoded, the white padding at its right and bottom is cut off,
and it is blank where the rest spans fewer than `BLANK_RANGE` greys.

Does a block show what is not in its text? Words and lines are poppler's. A word is in the crop where at least
`poppler.SEEN_SHARE` of its width and the middle half of its height are within the block's box. A word is
foreign to the block where its letters and digits (NFKC, casefolded, without marks) do not stand in those of
the block's text, spaces left out: hyphens, ligatures, accents, spaces and what is drawn twice therefore never
make a word foreign. (Poppler gives right-to-left words letter by letter as they are printed, so of these the
letters in any order within one word of the text are enough.) A block shows another line where the foreign
words of one of poppler's lines are at least `FOREIGN_WORDS`, or have together `FOREIGN_CHARACTERS`. The line
is *another block's* where most of these characters are in words that another block of the page has in its
text; else it is *unread*: in no block, or read with other characters.

Are the page's words poppler's? Words are runs of letters, marks and digits (NFKC, casefolded); in a script
without spaces every letter is one. Poppler joins what a hyphen divides at a line's end, so that `di- vided`
of ours is one word where poppler has it. Counted is the F1 of the two multisets: 1 where both have the same
words.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from data_prep.config import ReadingConfig
from data_prep.documents import read_document
from data_prep.errors import UnreadableDocument
from data_prep.samples import PageNote, Sample
from tests.bench.poppler import SECONDS, Word, bare, poppler_lines, poppler_texts, rejoined, words_of

BLANK_RANGE = 16
FOREIGN_WORDS, FOREIGN_CHARACTERS = 2, 8
LIMITS = (0.99, 0.95, 0.9, 0.5)
EXAMPLES = 40
COUNTED = {
    "files_refused": "file refused",
    "pages_refused": "page refused",
    "reasons": "sample not trained on",
    "left_out": "characters left out",
}
_BEFORE_HYPHEN = re.compile(r"(\w+)[-\u00ad\u2010](?:\s|$)")
SHOWN = 60  # characters of an example


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of ours, as far as it is judged."""

    number: int
    text: str
    box: tuple[float, float, float, float]  # points, from the upper left of the page as displayed
    trainable: bool

    @cached_property
    def letters(self) -> str:
        return bare(self.text)

    @cached_property
    def divided(self) -> tuple[str, ...]:
        """Beginnings of words before a hyphen, of two letters or more: poppler may show the whole word."""
        return tuple(start for start in map(bare, _BEFORE_HYPHEN.findall(self.text)) if len(start) > 1)

    @cached_property
    def words(self) -> list[Counter[str]]:
        return [Counter(bare(word)) for word in self.text.split()]

    def says(self, word: Word) -> bool:
        """Whether the word stands in the block's text."""
        if word.text in self.letters or word.text.startswith(self.divided):
            return True
        return word.is_right_to_left and any(Counter(word.text) <= letters for letters in self.words)


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A line that a block shows and whose words are not in its text."""

    page: int
    block: int
    text: str
    words: str
    of_another: bool
    trainable: bool


@dataclass(kw_only=True)
class Judged:
    """What was found in one document."""

    file: str
    refused: str | None = None
    pages: int = 0
    pages_missing: int = 0
    pages_without_text: int = 0
    blocks: int = 0
    trainable: int = 0
    blank: list[str] = field(default_factory=list)
    pages_refused: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)  # of samples that are not trained on
    left_out: dict[str, int] = field(default_factory=dict)  # characters that are in no sample
    foreign: list[Foreign] = field(default_factory=list)
    f1: list[float] = field(default_factory=list)
    common: int = 0
    only_ours: int = 0
    only_theirs: int = 0
    ours_examples: list[str] = field(default_factory=list)
    theirs_examples: list[str] = field(default_factory=list)

    def note(self, note: PageNote) -> None:
        if note.refused is not None:
            _count(self.pages_refused, _kind(note.refused))
        for reason, characters in note.left_out.items():
            _count(self.left_out, _kind(reason), characters)

    @property
    def document_f1(self) -> float:
        return _f1(self.common, self.only_ours, self.only_theirs) if self.f1 else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--worst", type=int, default=10, help="how many of the worst documents are shown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers of every document too")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # the folder is one PDF
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(asdict(judge(arguments.folder))))
        return
    files = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() == ".pdf")
    with ThreadPoolExecutor(arguments.processes) as pool:
        each = pool.map(_judged, files)
        documents = list(track(each, "judging", total=len(files), console=Console(stderr=True)))
    for document in documents:
        document.file = Path(document.file).relative_to(arguments.folder).as_posix()
    totals = summary(documents)
    show(totals, documents, arguments.worst)
    if arguments.json:
        each = [asdict(document) | {"document_f1": document.document_f1} for document in documents]
        arguments.json.write_text(json.dumps({"totals": totals, "documents": each}, indent=1), "utf-8")


def _judged(path: Path) -> Judged:
    """Judge one document in a process of its own: what a file does to a reader ends there."""
    command = [sys.executable, "-m", "tests.bench.reading_accuracy", "--one", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except subprocess.TimeoutExpired:
        return Judged(file=str(path), refused=f"took longer than {SECONDS} s")
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        return Judged(file=str(path), refused=f"the judge or reader died: {last}")
    fields = json.loads(done.stdout)
    return Judged(**fields | {"foreign": [Foreign(**one) for one in fields["foreign"]]})


def judge(path: Path) -> Judged:
    """Read a document with both readers and compare them."""
    judged = Judged(file=str(path))
    config, samples = ReadingConfig(unit="block"), defaultdict(list)
    try:
        for read in read_document(path.name, path.read_bytes(), None, config):
            if isinstance(read, PageNote):
                judged.note(read)
            else:
                samples[read.page].append(read)
    except UnreadableDocument as error:
        judged.refused = str(error)
        return judged
    texts, lines = poppler_texts(path), poppler_lines(path)
    judged.pages = len(lines)
    for number, (text, lines_of_page) in enumerate(zip(texts, lines, strict=True), start=1):
        _judge_page(judged, number, samples[number], text, lines_of_page, config)
    return judged


def _judge_page(
    judged: Judged,
    number: int,
    samples: list[Sample],
    text: str,
    lines: list[list[Word]],
    config: ReadingConfig,
) -> None:
    judged.pages_missing += not samples
    judged.pages_without_text += bool(samples) and not any(sample.text for sample in samples)
    points = 72 / config.dots_per_inch
    blocks = []
    for sample in samples:
        judged.trainable += sample.trainable
        if sample.reason is not None:
            _count(judged.reasons, _kind(sample.reason))
        if sample.trainable and is_blank(sample.image()):
            judged.blank.append(f"page {number}, block {sample.block}: {sample.text[:SHOWN]}")
        if sample.block is not None:
            box = tuple(side * points for side in sample.box)
            blocks.append(Block(number=sample.block, text=sample.text, box=box, trainable=sample.trainable))
    judged.blocks += len(blocks)
    judged.foreign += foreign_lines(number, blocks, lines)
    _compare(judged, " ".join(sample.text for sample in samples), text)


def foreign_lines(page: int, blocks: Sequence[Block], lines: Sequence[Sequence[Word]]) -> list[Foreign]:
    """Return of every block one line that it shows and does not say: another block's if there is one."""
    found = []
    for block in blocks:
        shown = [
            _foreign(page, block, words, blocks)
            for line in lines
            if is_much(words := [one for one in line if one.is_within(block.box) and not block.says(one)])
        ]
        found += sorted(shown, key=lambda one: not one.of_another)[:1]
    return found


def is_much(words: Sequence[Word]) -> bool:
    return len(words) >= FOREIGN_WORDS or sum(len(word.text) for word in words) >= FOREIGN_CHARACTERS


def _foreign(page: int, block: Block, words: Sequence[Word], blocks: Sequence[Block]) -> Foreign:
    others = [other for other in blocks if other is not block]
    elsewhere = sum(len(word.text) for word in words if any(other.says(word) for other in others))
    return Foreign(
        page=page,
        block=block.number,
        text=block.text[:SHOWN],
        words=" ".join(word.text for word in words)[:SHOWN],
        of_another=2 * elsewhere > sum(len(word.text) for word in words),
        trainable=block.trainable,
    )


def is_blank(image: Image.Image) -> bool:
    """Whether an image shows no ink; white rows and columns at its right and bottom are its padding."""
    grey = np.asarray(image.convert("L"))
    rows, columns = ((grey < 255).any(axis=axis).nonzero()[0] for axis in (1, 0))
    if not len(rows):
        return True
    shown = grey[: rows[-1] + 1, : columns[-1] + 1]
    return int(shown.max()) - int(shown.min()) < BLANK_RANGE


def _compare(judged: Judged, ours: str, theirs: str) -> None:
    their_words = Counter(words_of(theirs))
    our_words = Counter(words_of(rejoined(ours, their_words)))
    only_ours, only_theirs = our_words - their_words, their_words - our_words
    counts = (our_words & their_words).total(), only_ours.total(), only_theirs.total()
    if any(counts):
        judged.f1.append(_f1(*counts))
    judged.common += counts[0]
    judged.only_ours += counts[1]
    judged.only_theirs += counts[2]
    judged.ours_examples += list(only_ours)[: 12 - len(judged.ours_examples)]
    judged.theirs_examples += list(only_theirs)[: 12 - len(judged.theirs_examples)]


def _f1(common: int, only_ours: int, only_theirs: int) -> float:
    return 2 * common / max(2 * common + only_ours + only_theirs, 1)


def _count(counts: dict[str, int], kind: str, number: int = 1) -> None:
    counts[kind] = counts.get(kind, 0) + number


def _kind(reason: str) -> str:
    """Return a reason without what differs between files: its numbers and quoted names."""
    return re.sub(r"'[^']*'", "'...'", re.sub(r"\d[\d,.]*", "N", reason))[:100]


def summary(documents: Sequence[Judged]) -> dict:
    """Return the numbers of the whole corpus."""
    read = [document for document in documents if document.refused is None]
    f1 = [value for document in read for value in document.f1]
    foreign = [one for document in read for one in document.foreign]
    blocks, trainable = (sum(getattr(d, name) for d in read) for name in ("blocks", "trainable"))
    counted = {
        name: dict(sum((Counter(getattr(document, name)) for document in read), Counter()).most_common())
        for name in ("pages_refused", "reasons", "left_out")
    }
    refused = Counter(_kind(document.refused) for document in documents if document.refused is not None)
    words = [sum(getattr(d, name) for d in read) for name in ("common", "only_ours", "only_theirs")]
    another = sum(one.of_another for one in foreign)
    return {
        "files": len(documents),
        "files_refused": dict(refused.most_common()),
        "pages": sum(document.pages for document in read),
        "pages_missing": sum(document.pages_missing for document in read),
        "pages_without_text": sum(document.pages_without_text for document in read),
        "blocks": blocks,
        "trainable": trainable,
        **counted,
        "blank_trainable": sum(len(document.blank) for document in read),
        "show_another_blocks_line": another,
        "show_another_blocks_line_share": another / max(blocks, 1),
        "show_another_blocks_line_trainable": sum(one.of_another and one.trainable for one in foreign),
        "show_unread_line": len(foreign) - another,
        "show_unread_line_trainable": sum(not one.of_another and one.trainable for one in foreign),
        "pages_with_words": len(f1),
        "page_f1_median": statistics.median(f1) if f1 else None,
        "pages_at_least": _shares(f1),
        "documents_at_least": _shares([document.document_f1 for document in read if document.f1]),
        "words_common": words[0],
        "words_only_ours": words[1],
        "words_only_theirs": words[2],
        "words_f1": _f1(*words),
    }  # fmt: skip


def _shares(f1: Sequence[float]) -> dict[str, float]:
    """Return the share of values that reach each limit."""
    return {str(least): sum(value >= least for value in f1) / max(len(f1), 1) for least in LIMITS}


def show(totals: dict, documents: Sequence[Judged], worst: int) -> None:
    console = Console(width=150)
    _show_counts(console, totals)
    _show_agreement(console, totals)
    _show_worst(console, documents, worst)
    _show_foreign(console, documents)
    blank = [f"{document.file}, {one}" for document in documents for one in document.blank]
    if blank:
        console.print(
            "Blank crops that are trained on, the first:", *blank[:EXAMPLES], sep="\n", markup=False
        )


def _show_counts(console: Console, totals: dict) -> None:
    table = Table("", "number", "share", title="What was read")
    rows = (
        ("files", "files", None),
        ("pages", "pages", None),
        ("pages without a sample", "pages_missing", "pages"),
        ("pages without text", "pages_without_text", "pages"),
        ("blocks", "blocks", None),
        ("samples that are trained on", "trainable", None),
        ("trained on and blank", "blank_trainable", "trainable"),
        ("blocks that show another block's line", "show_another_blocks_line", "blocks"),
        ("  of them trained on", "show_another_blocks_line_trainable", "trainable"),
        ("blocks that show an unread line", "show_unread_line", "blocks"),
        ("  of them trained on", "show_unread_line_trainable", "trainable"),
    )
    for name, key, whole in rows:
        share = f"{totals[key] / max(totals[whole], 1):.3%}" if whole else ""
        table.add_row(name, f"{totals[key]:,}", share)
    for key, name in COUNTED.items():
        for reason, count in totals[key].items():
            table.add_row(f"{name}: {reason}", f"{count:,}", "")
    console.print(table)


def _show_agreement(console: Console, totals: dict) -> None:
    limits = [f"F1 >= {least}" for least in LIMITS]
    table = Table("", *limits, title="Agreement of words with pdftotext")
    for name, key in (("share of pages", "pages_at_least"), ("share of documents", "documents_at_least")):
        table.add_row(name, *(f"{share:.1%}" for share in totals[key].values()))
    console.print(table)
    console.print(
        f"All words: F1 {totals['words_f1']:.4f}; {totals['words_common']:,} of both, "
        f"{totals['words_only_ours']:,} only ours, {totals['words_only_theirs']:,} only theirs. "
        f"{totals['pages_with_words']:,} pages have words."
    )


def _show_worst(console: Console, documents: Sequence[Judged], worst: int) -> None:
    table = Table(
        "document", "F1", "only ours", "only theirs", "examples", title="The worst documents, one a folder"
    )
    folders: set[str] = set()
    for document in sorted(
        (d for d in documents if d.document_f1 < 1), key=lambda d: (d.document_f1, d.file)
    ):
        folder = document.file.split("/")[0]
        if folder in folders or len(folders) == worst:
            continue
        folders.add(folder)
        ours, theirs = (" ".join(some)[:SHOWN] for some in (document.ours_examples, document.theirs_examples))
        counts = (f"{document.document_f1:.3f}", f"{document.only_ours:,}", f"{document.only_theirs:,}")
        table.add_row(document.file, *counts, f"ours: {ours}\ntheirs: {theirs}")
    console.print(table)


def _show_foreign(console: Console, documents: Sequence[Judged]) -> None:
    table = Table(
        "document",
        "page",
        "block",
        "its text",
        "it shows",
        title="Blocks that show another line, the first three a document",
    )
    lines = [
        (
            document.file,
            f"{one.page}",
            f"{one.block}",
            one.text,
            f"{one.words}{'' if one.of_another else ' (unread)'}",
        )
        for document in documents
        for one in document.foreign[:3]
    ]
    for line in lines[:EXAMPLES]:
        table.add_row(*line)
    if lines:
        console.print(table)


if __name__ == "__main__":
    main()
