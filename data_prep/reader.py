"""What a reader process writes about one document, and how that is taken in.

The reader may have been taken over by what it read: its answer is text and image bytes only, each checked,
and counts for nothing but the document that it names by digest. The first line is a `_Header`; of a document
that could be read its samples follow, each a `_Record` on a line and then so many bytes of PNG.
"""

import hashlib
import os
import struct
import warnings
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO

from annotated_types import Ge, Le, MaxLen, MinLen
from PIL import Image
from pydantic import AfterValidator, BaseModel, NonNegativeInt, PositiveInt, ValidationError

from data_prep.config import ReadingConfig
from data_prep.documents import read_document
from data_prep.errors import ReaderFailure, UnreadableDocument
from data_prep.plain_text import clean_text
from data_prep.samples import Sample, sample_key
from data_prep.source_files import joint_digest

_REASON_CHARACTERS = 1_000
HEADER_BYTES = 16_384
_RECORD_BYTES = 1_024  # without the text
_CHARACTER_BYTES = 12  # composing a character may make three of it


_Reason = Annotated[str, AfterValidator(clean_text), MinLen(1), MaxLen(_REASON_CHARACTERS)]
_Grey = Annotated[int, Ge(0), Le(255)]


class _Header(BaseModel, strict=True, extra="forbid"):
    digest: str  # of what was read
    refused: _Reason | None = None  # what is wrong with the document
    failed: _Reason | None = None  # what went wrong while it was read


class _Record(BaseModel, strict=True, extra="forbid"):
    """A sample without what the document's name decides."""

    page: PositiveInt
    block: NonNegativeInt | None
    text: Annotated[str, AfterValidator(clean_text)]
    is_heading: bool
    box: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt, NonNegativeInt]
    ink: tuple[_Grey, _Grey]
    reason: _Reason | None
    width: PositiveInt
    height: PositiveInt
    png_bytes: PositiveInt


def main(arguments: dict[str, Any], inputs: list[int], output: int) -> None:
    """Read the document whose parts are `inputs` (see infra.sandbox)."""
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    config = ReadingConfig(**arguments["config"])
    digest = ""
    try:
        content, *beside = [_content(descriptor) for descriptor in inputs]
        digest = joint_digest(hashlib.sha256(part).digest() for part in (content, *beside))
        with open(output, "wb", closefd=False) as answer:
            answer.write(_Header(digest=digest).model_dump_json().encode() + b"\n")
            samples = read_document(arguments["name"], content, beside[0] if beside else None, config)
            _write(answer, samples, config)
        return
    except ReaderFailure as error:
        problem = {"failed": str(error)}
    except UnreadableDocument as error:
        problem = {"refused": str(error)}
    except MemoryError:
        problem = {"failed": "needs more memory than one document may use"}
    except OSError as error:
        problem = {"failed": f"cannot be read: {error.strerror or error}"}
    except Exception as error:  # noqa: BLE001 - whatever a hostile file makes a decoder raise
        problem = {"refused": f"the reader failed on it: {type(error).__name__}: {error}"}
    reason = {kind: text[:_REASON_CHARACTERS] for kind, text in problem.items()}
    os.ftruncate(output, 0)
    os.pwrite(output, _Header(digest=digest, **reason).model_dump_json().encode() + b"\n", 0)


def _content(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    with open(descriptor, "rb") as file:
        content = file.read(size + 1)
    if len(content) != size:
        raise ReaderFailure("it changed while it was read")
    return content


def _write(answer: BinaryIO, samples: Iterator[Sample], config: ReadingConfig) -> None:
    written = 0
    for number, sample in enumerate(samples, start=1):
        fields = {name: getattr(sample, name) for name in _Record.model_fields if name != "png_bytes"}
        record = _Record(**fields, png_bytes=len(sample.png)).model_dump_json().encode() + b"\n"
        written += len(record) + len(sample.png)
        if number > config.max_samples_per_document:
            raise UnreadableDocument(f"more than {config.max_samples_per_document:,} samples, the limit")
        if written > config.max_sample_bytes_per_document:
            raise UnreadableDocument(
                f"its samples take more than {config.max_sample_bytes_per_document:,} bytes, the limit"
            )
        answer.write(record + sample.png)


def read_answer(answer: BinaryIO, name: str, digest: str, config: ReadingConfig) -> Iterator[Sample]:
    """Return the samples of the document of this name and digest, each checked when it is asked for.

    Raises:
        UnreadableDocument: the reader refused it.
        ReaderFailure: the reader failed, read something else or wrote something else; also later, from the
            iterator.
    """
    header = _checked(_Header, answer.readline(HEADER_BYTES))
    if header.failed is not None:
        raise ReaderFailure(header.failed)
    if header.digest != digest:
        raise ReaderFailure("it changed while it was read")
    if header.refused is not None:
        raise UnreadableDocument(header.refused)
    return _samples(answer, name, config)


def _samples(answer: BinaryIO, document: str, config: ReadingConfig) -> Iterator[Sample]:
    most_bytes = _RECORD_BYTES + _CHARACTER_BYTES * config.max_page_characters
    page, block = 0, None
    for _ in range(config.max_samples_per_document):
        line = answer.readline(most_bytes)
        if not line:
            break
        record = _checked(_Record, line)
        png = answer.read(min(record.png_bytes, config.max_sample_bytes_per_document))
        if not (_follows(record, page, block) and _fits(png, record, config)):
            raise _malformed()
        page, block = record.page, record.block
        fields = {name: value for name, value in record if name != "png_bytes"}
        yield Sample(key=sample_key(document, page, block), document=document, png=png, **fields)
    if not page or answer.read(1):
        raise _malformed()


def _follows(record: _Record, page: int, block: int | None) -> bool:
    """Whether it is the next block of the page, or the first of the next page."""
    if record.page == page:
        return block is not None and record.block == block + 1
    return record.page == page + 1 and not record.block


def _fits(png: bytes, record: _Record, config: ReadingConfig) -> bool:
    """Whether all is there and begins as a grey PNG of 8 bits and of the size that is said, within limits."""
    if record.page > config.max_pages_per_document or record.width * record.height > config.max_pixels:
        return False
    header = struct.pack(">I4sIIBBBBB", 13, b"IHDR", record.width, record.height, 8, 0, 0, 0, 0)
    return len(png) == record.png_bytes and png.startswith(b"\x89PNG\r\n\x1a\n" + header)


def _checked(kind: type, line: bytes) -> Any:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise _malformed() from error


def _malformed() -> ReaderFailure:
    return ReaderFailure("its reader gave a malformed answer, which was thrown away")
