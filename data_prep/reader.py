"""Read pages of one document, in a sandbox, and write what is on them.

The first line of the answer is a header; where the pages could be read, each follows: a note where it has
one, then its samples, each a line and then so many bytes of PNG. `data_prep.reader_answers` takes it in; what
only it needs is not imported here, where each start counts.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, BinaryIO

from PIL import Image

from data_prep.config import ReadingConfig
from data_prep.documents import count_pages, read_document
from data_prep.errors import ReaderFailure, UnreadableDocument
from data_prep.plain_text import clean_text
from data_prep.samples import PageNote, Sample
from data_prep.source_files import joint_digest

REASON_CHARACTERS = 1_000
HEADER_BYTES = 16_384
SAMPLE_FIELDS = [one.name for one in fields(Sample) if one.name not in ("key", "document", "png")]
"""What is said of a sample: all but its bytes, and what the document's name decides."""


def main(arguments: dict[str, Any], inputs: list[int], output: int) -> None:
    """Read pages of the document whose parts are `inputs` (see infra.sandbox)."""
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    config = ReadingConfig(**arguments["config"])
    digest = ""
    try:
        content, *beside = [_content(descriptor) for descriptor in inputs]
        digest = joint_digest(hashlib.sha256(part).digest() for part in (content, *beside))
        with open(output, "wb", closefd=False) as answer:
            name, pages = arguments["name"], range(*arguments["pages"])
            answer.write(_line({"digest": digest, "pages": count_pages(name, content, config)}))
            _write(answer, read_document(name, content, beside[0] if beside else None, config, pages), config)
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
    reason = {kind: clean_text(text)[:REASON_CHARACTERS] for kind, text in problem.items()}
    os.ftruncate(output, 0)
    os.pwrite(output, _line({"digest": digest} | reason), 0)


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _content(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    with open(descriptor, "rb") as file:
        content = file.read(size + 1)
    if len(content) != size:
        raise ReaderFailure("it changed while it was read")
    return content


def _write(answer: BinaryIO, content: Iterator[Sample | PageNote], config: ReadingConfig) -> None:
    samples = written = 0
    for one in content:
        if isinstance(one, Sample):
            said = {name: getattr(one, name) for name in SAMPLE_FIELDS}
            whole = _line(said | {"kind": "sample", "png_bytes": len(one.png)}) + one.png
            samples += 1
        else:
            whole = _line(vars(one) | {"kind": "note"})
        written += len(whole)
        check_limits(samples, written, config)
        answer.write(whole)


def check_limits(samples: int, written: int, config: ReadingConfig) -> None:
    """Raise UnreadableDocument where there are more samples, or bytes of them and of notes, than allowed."""
    if samples > config.max_samples_per_document:
        raise UnreadableDocument(f"more than {config.max_samples_per_document:,} samples, the limit")
    if written > config.max_sample_bytes_per_document:
        raise UnreadableDocument(
            f"its samples take more than {config.max_sample_bytes_per_document:,} bytes, the limit"
        )
