"""Take in what a reader process (data_prep.reader) says about some pages of one document.

The reader may have been taken over by what it read: its answer is text and image bytes only, each checked,
and counts for nothing but the document that it names by digest.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)

from data_prep.config import ReadingConfig
from data_prep.errors import ReaderFailure, UnreadableDocument
from data_prep.plain_text import clean_text
from data_prep.reader import HEADER_BYTES, REASON_CHARACTERS, SAMPLE_FIELDS, check_limits
from data_prep.samples import PageNote, Sample, sample_key

_KIND_CHARACTERS = 100
_KINDS = 20
_LINE_BYTES = 65_536  # without a sample's text
_CHARACTER_BYTES = 12  # composing a character may make three of it

_Text = Annotated[str, AfterValidator(clean_text)]
_Reason = Annotated[_Text, MinLen(1), MaxLen(REASON_CHARACTERS)]
_Kind = Annotated[_Text, MinLen(1), MaxLen(_KIND_CHARACTERS)]
_Grey = Annotated[int, Ge(0), Le(255)]
_Pixel = Annotated[int, Ge(0), Le(2**31)]


class _Checked(BaseModel, strict=True, extra="forbid"):
    pass


class _Header(_Checked):
    digest: str  # of what was read
    pages: PositiveInt | None = None  # that the document has, where some could be read
    refused: _Reason | None = None  # what is wrong with the document
    failed: _Reason | None = None  # what went wrong while it was read


class _NoteLine(_Checked):
    """A PageNote."""

    kind: Literal["note"] = "note"
    page: PositiveInt
    refused: _Reason | None
    left_out: Annotated[dict[_Kind, PositiveInt], MaxLen(_KINDS)]


class _SampleLine(_Checked):
    """A Sample without what the document's name decides."""

    kind: Literal["sample"] = "sample"
    page: PositiveInt
    block: NonNegativeInt | None
    text: _Text
    is_heading: bool
    box: tuple[_Pixel, _Pixel, _Pixel, _Pixel]
    ink: tuple[_Grey, _Grey]
    reason: _Reason | None
    width: PositiveInt
    height: PositiveInt
    png_bytes: PositiveInt


_HEADER = TypeAdapter(_Header)
_LINE = TypeAdapter(Annotated[_NoteLine | _SampleLine, Field(discriminator="kind")])


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a reader said of some pages of a document."""

    document_pages: int
    bytes: int  # of what follows
    content: Iterator[Sample | PageNote]
    """Each checked when it is asked for, which raises ReaderFailure."""


def read_answer(answer: BinaryIO, name: str, digest: str, config: ReadingConfig, pages: range) -> Answer:
    """Return what is said of the pages, from 1, of the document of this name and digest.

    Raises:
        UnreadableDocument: the reader refused it.
        ReaderFailure: the reader failed, read something else or wrote something else.
    """
    header = _checked(_HEADER, answer.readline(HEADER_BYTES))
    if header.failed is not None:
        raise ReaderFailure(header.failed)
    if header.digest != digest:
        raise ReaderFailure("it changed while it was read")
    if header.refused is not None:
        raise UnreadableDocument(header.refused)
    if header.pages is None or header.pages > config.max_pages_per_document:
        raise _malformed()
    start = answer.tell()
    size = answer.seek(0, os.SEEK_END) - start
    answer.seek(start)
    last = min(pages.stop - 1, header.pages)
    content = _content_of(answer, name, config, range(pages.start, last + 1))
    return Answer(document_pages=header.pages, bytes=size, content=content)


def joined(
    answers: Iterable[Answer | UnreadableDocument], config: ReadingConfig
) -> Iterator[Sample | PageNote]:
    """Yield what the answers, in order of their pages, say of one document; one that is no answer is raised.

    Raises:
        UnreadableDocument: together they have more than one document may have.
        ReaderFailure: one of them is malformed.
    """
    samples = written = pages = 0
    kinds: set[str] = set()
    for answer in answers:
        if isinstance(answer, UnreadableDocument):
            raise answer
        pages = pages or answer.document_pages
        if answer.document_pages != pages:
            raise _malformed()
        written += answer.bytes
        check_limits(samples, written, config)
        for one in answer.content:
            if isinstance(one, Sample):
                samples += 1
                check_limits(samples, written, config)
            elif len(kinds := kinds | one.left_out.keys()) > _KINDS:
                raise _malformed()
            yield one


def _content_of(
    answer: BinaryIO, document: str, config: ReadingConfig, pages: range
) -> Iterator[Sample | PageNote]:
    most_bytes = _LINE_BYTES + _CHARACTER_BYTES * config.max_page_characters
    before: Sample | PageNote = PageNote(page=pages.start - 1, refused="not asked for")
    while line := answer.readline(most_bytes):
        read = _checked(_LINE, line)
        if isinstance(read, _SampleLine):
            one = _sample(read, answer, document, config)
        else:
            one = _note(read, config)
        if not _follows(one, before):
            raise _malformed()
        yield one
        before = one
    if before.page != pages.stop - 1 or not _may_end(before):
        raise _malformed()


def _follows(one: Sample | PageNote, before: Sample | PageNote) -> bool:
    """Whether it is the next block of the page, or begins the page's samples or the next page."""
    first = isinstance(one, PageNote) or not one.block
    if one.page == before.page + 1:
        return first and _may_end(before)
    if one.page != before.page or isinstance(one, PageNote):
        return False
    if isinstance(before, PageNote):
        return first and before.refused is None
    return before.block is not None and one.block == before.block + 1


def _may_end(before: Sample | PageNote) -> bool:
    """Whether its page may end with it."""
    return isinstance(before, Sample) or before.refused is not None


def _note(line: _NoteLine, config: ReadingConfig) -> PageNote:
    if not (line.refused or line.left_out) or sum(line.left_out.values()) > config.max_page_characters:
        raise _malformed()
    return PageNote(page=line.page, refused=line.refused, left_out=line.left_out)


def _sample(line: _SampleLine, answer: BinaryIO, document: str, config: ReadingConfig) -> Sample:
    png = answer.read(min(line.png_bytes, config.max_sample_bytes_per_document))
    if not _fits(png, line, config):
        raise _malformed()
    read = vars(line)
    fields = {name: read[name] for name in SAMPLE_FIELDS}
    return Sample(key=sample_key(document, line.page, line.block), document=document, png=png, **fields)


def _fits(png: bytes, line: _SampleLine, config: ReadingConfig) -> bool:
    """Whether all is there, has area, and begins as a grey PNG of 8 bits and of its size, within limits."""
    left, top, right, bottom = line.box
    has_area = left < right and top < bottom
    if line.width * line.height > config.max_pixels or not has_area or line.ink[0] > line.ink[1]:
        return False
    header = struct.pack(">I4sIIBBBBB", 13, b"IHDR", line.width, line.height, 8, 0, 0, 0, 0)
    return len(png) == line.png_bytes and png.startswith(b"\x89PNG\r\n\x1a\n" + header)


def _checked(kind: TypeAdapter, line: bytes) -> Any:
    try:
        return kind.validate_json(line)
    except ValidationError as error:
        raise _malformed() from error


def _malformed() -> ReaderFailure:
    return ReaderFailure("its reader gave a malformed answer, which was thrown away")
