"""What the reader makes of documents, with nothing kept: the samples that a run would take, as they come."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from data_prep.config import ReadingConfig
from data_prep.errors import NoUsableDocuments, UnreadableDocument
from data_prep.reading import read_each
from data_prep.samples import PageNote, Sample
from data_prep.source_files import (
    IMAGE_SUFFIXES,
    SourceFile,
    Unsupported,
    find_documents,
    shown_name,
    texts_beside,
    why_no_document,
)

Told = Callable[[float, str], None]
"""Hears how many files are read, with the shares of those underway, and what is done now."""
_TRANSCRIBED_AT_ONCE = 512  # samples, whose images are kept until then
_PICTURE_PIXELS = 2**20  # a page of 8.5 x 11 inches at 96 dots an inch has 860 thousand


def _tell_nobody(done: float, label: str) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a model wrote for a sample's image."""

    text: str
    wanted: str
    """Of the sample's text what the model may write at most."""
    edits: int
    """From the one to the other, in characters."""


Transcribe = Callable[[Sequence[Sample]], Sequence[Written]]


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What the reader made of one file."""

    name: str
    parts: Sequence[Sample | PageNote] = ()
    """In reading order, the samples without their images."""
    reason: str | None = None
    """Why the file is refused."""
    written: Mapping[str, Written] = field(default_factory=dict)
    """By key, where a model was asked."""

    @property
    def samples(self) -> list[Sample]:
        return [one for one in self.parts if isinstance(one, Sample)]

    @property
    def notes(self) -> list[PageNote]:
        return [one for one in self.parts if isinstance(one, PageNote)]

    def outcome(self) -> "Outcome":
        return Outcome(name=self.name, summary=None if self.reason else self.summary(), reason=self.reason)

    def summary(self) -> "Summary":
        samples, notes = self.samples, self.notes
        compared = [one for one in self.written.values() if one.wanted]
        return Summary(
            pages=max((one.page for one in self.parts), default=0),
            blocks=len(samples),
            trainable=sum(one.trainable for one in samples),
            not_trained_on=Counter(one.reason for one in samples if one.reason),
            left_out=sum((Counter(one.left_out) for one in notes), Counter()),
            refused_pages=Counter(one.refused for one in notes if one.refused),
            compared=sum(len(one.wanted) for one in compared),
            wrong=sum(one.edits for one in compared),
        )


@dataclass(kw_only=True)
class Summary:
    """What came of a document, or of several."""

    pages: int = 0
    blocks: int = 0
    trainable: int = 0
    not_trained_on: Counter[str] = field(default_factory=Counter)  # blocks, by reason
    left_out: Counter[str] = field(default_factory=Counter)  # characters, by reason
    refused_pages: Counter[str] = field(default_factory=Counter)  # by reason
    compared: int = 0  # characters that a model was to write
    wrong: int = 0  # edits of what it wrote

    @property
    def wrong_share(self) -> float | None:
        """Of the characters that a model was to write; None where there were none."""
        return self.wrong / self.compared if self.compared else None

    def __add__(self, other: "Summary") -> "Summary":
        return Summary(**{name: value + getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is kept of a file when the next one is looked at."""

    name: str
    summary: Summary | None
    reason: str | None
    """Why it is refused; it has no summary then."""


def given_documents(paths: Sequence[Path]) -> tuple[list[SourceFile], list[Unsupported]]:
    """Return the documents that are named or lie below folders that are named, and what is none.

    Each is called as it was named, and comes once; an image takes the text beside it. What is not there is
    among the documents: reading it says so.
    """
    documents: dict[str, SourceFile] = {}
    unsupported: dict[str, Unsupported] = {}
    for path in paths:
        try:
            found, not_used = _below(path) if os.path.isdir(path) else _named(path)
        except NoUsableDocuments as error:
            reason = str(error).removeprefix(f"{path}: ")
            found, not_used = [], [Unsupported(name=shown_name(path), reason=reason)]
        documents |= {one.name: one for one in found}
        unsupported |= {one.name: one for one in not_used}
    read = {shown_name(one.beside) for one in documents.values() if one.beside}
    return list(documents.values()), [one for name, one in unsupported.items() if name not in read]


def _below(folder: Path) -> tuple[list[SourceFile], list[Unsupported]]:
    found, unsupported = find_documents(folder)
    prefix = "" if folder == Path() else f"{shown_name(folder)}/".replace("//", "/")
    return (
        [replace(one, name=shown_name(one.path)) for one in found],
        [replace(one, name=prefix + one.name) for one in unsupported],
    )


def _named(path: Path) -> tuple[list[SourceFile], list[Unsupported]]:
    name, text = shown_name(path), None
    if path.suffix.lower() in IMAGE_SUFFIXES:
        try:
            beside = [one for one in path.parent.iterdir() if one.stem == path.stem]
        except OSError:  # reading it says what is wrong
            beside = []
        text = texts_beside(beside).get(path.with_suffix(""))
    if reason := why_no_document(path, None):
        return [], [Unsupported(name=name, reason=reason)]
    return [SourceFile(name=name, path=path, beside=text)], []


def inspect_documents(
    files: Sequence[SourceFile],
    config: ReadingConfig,
    told: Told = _tell_nobody,
    *,
    workers: int,
    transcribe: Transcribe | None = None,
) -> Iterator[Inspected]:
    """Read the files as a run does; yield each, in their order, when all of it has been read."""
    for file, content in read_each(files, config, told, workers=workers):
        parts: list[Sample | PageNote] = []
        written: dict[str, Written] = {}
        try:
            while some := list(islice(content, _TRANSCRIBED_AT_ONCE)):
                samples = [one for one in some if isinstance(one, Sample)]
                if transcribe:
                    written |= zip((one.key for one in samples), transcribe(samples), strict=True)
                parts += [replace(one, png=b"") if isinstance(one, Sample) else one for one in some]
        except UnreadableDocument as error:
            yield Inspected(name=file.name, reason=str(error))
            continue
        whole = Inspected(name=file.name, parts=parts, written=written)
        yield whole if whole.samples else replace(whole, reason=whole.notes[0].refused)


def page_pictures(
    files: Sequence[SourceFile], config: ReadingConfig, told: Told = _tell_nobody, *, workers: int
) -> Iterator[Iterator[Sample]]:
    """Yield the pages of each file as they are displayed, whole, in their order.

    A picture is a sample of the page: its box is the page in the pixels that boxes are given in, its image
    may be smaller. They end where the file can be read no further.
    """
    whole = replace(config, unit="page", pixel_multiple=1, max_pixels=_PICTURE_PIXELS)
    for _, content in read_each(files, whole, told, workers=workers):
        yield _pictures(content)


def _pictures(content: Iterator[Sample | PageNote]) -> Iterator[Sample]:
    with contextlib.suppress(UnreadableDocument):  # inspect_documents says it
        yield from (one for one in content if isinstance(one, Sample))
