"""Read one document (PDF or page image) into samples, in a process of its own (data_prep.reader).

Documents are hostile input: PDFium is native code, a page's size sets the bitmap's size, an image's
header promises pixels that the file need not hold. Everything that is wrong with a document becomes an
`UnreadableDocument` whose message stands in the inventory, and what is wrong with a page a `PageNote`.
"""

import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy.ma  # noqa: F401 - numpy imports it late, for a median: here once and not in each reader
from PIL import Image

from data_prep.config import ReadingConfig
from data_prep.image_pages import count_image_pages, read_image_pages
from data_prep.parts import Part, sample_of_part
from data_prep.pdf_pages import count_pdf_pages, read_pdf_pages
from data_prep.samples import PageNote, Sample
from data_prep.source_files import PDF_SUFFIXES

ALL_PAGES = range(1, sys.maxsize)
Image.preinit()  # encoders are loaded once, before readers are forked


def count_pages(name: str, content: bytes, config: ReadingConfig) -> int:
    """Return how many pages a file has. Raises as `read_document`."""
    return count_pdf_pages(content, config) if _is_pdf(name) else count_image_pages(content, config)


def read_document(
    name: str, content: bytes, beside: bytes | None, config: ReadingConfig, pages: range = ALL_PAGES
) -> Iterator[Sample | PageNote]:
    """Read one file, page by page: a note, where one is needed, then the page's samples.

    A page has at least one sample, or its note says why it is refused.

    Args:
        name: what the samples call the document; its ending says what it is.
        beside: of an image, the content of the text beside it.
        pages: numbers of the pages to read, from 1; those behind the last page are left out.

    Raises:
        UnreadableDocument: the file is truncated, encrypted, not what its name says, or has more pages than
            `config` allows.
        MemoryError, OSError: the process was refused something by the machine.
    """
    if _is_pdf(name):
        parts = read_pdf_pages(content, config, pages)
    else:
        parts = read_image_pages(content, beside, config, pages)
    return (sample_of_part(name, part, config) if isinstance(part, Part) else part for part in parts)


def _is_pdf(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PDF_SUFFIXES
