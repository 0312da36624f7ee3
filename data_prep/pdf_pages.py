"""Read a PDF: its pages as pictures, with the text that stands on them cut into blocks.

PDFium is native code and draws what the file says; its text layer says what the file claims to show. What of
it no ink stands for is left out and counted, and so is a page that cannot be read; neither costs the other
pages.
"""

import ctypes
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium

from data_prep.config import ReadingConfig
from data_prep.errors import UnreadableDocument
from data_prep.limits import check_pages, check_pixels, pages_of
from data_prep.page_text import UNSEEN, cut_blocks, read_page_text
from data_prep.parts import Part, fitting_size
from data_prep.samples import Box, PageNote
from data_prep.text_layer import read_words

_FINENESS = 1.5  # with which a page is drawn that is cut into blocks: rows are drawn wider than they are
_HEAD_BYTES = 1024
_OBJECT = re.compile(rb"\d\s+\d+\s+obj\b|endobj")
_WITHOUT_TEXT = (pdfium.FPDF_ANNOT_LINK, pdfium.FPDF_ANNOT_POPUP)


class _NoFonts(pypdfium2.PdfSysfontBase):
    """Fonts that a file names and does not hold are pdfium's own ones: the same picture on every machine."""

    def EnumFonts(self, *_: object) -> None:
        pass

    def MapFont(self, *_: object) -> None:
        return None

    def GetFont(self, *_: object) -> None:
        return None


_NoFonts().setup()


def count_pdf_pages(content: bytes, config: ReadingConfig) -> int:
    """Return how many pages a PDF has. Raises as `read_pdf_pages`."""
    with _opened(content, config) as document:
        return len(document)


def read_pdf_pages(content: bytes, config: ReadingConfig, pages: range) -> Iterator[Part | PageNote]:
    """Yield what those of `pages` give that the file has.

    Raises UnreadableDocument: the file is no whole PDF, encrypted, or has more pages than `config` allows.
    """
    with _opened(content, config) as document:
        document.init_forms()  # then pdfium draws what was filled in
        for number in pages_of(len(document), pages):
            yield from _read_page(document, number, config)


@contextmanager
def _opened(content: bytes, config: ReadingConfig) -> Iterator[pypdfium2.PdfDocument]:
    _check_envelope(content)
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        encrypted = "password" in str(error).lower()
        reason = "encrypted: needs a password" if encrypted else f"broken PDF: {error}"
        raise UnreadableDocument(reason) from error
    with closing(document):
        if len(document) == 0:
            raise UnreadableDocument("PDF without pages")
        check_pages(len(document), config)
        yield document


def _check_envelope(content: bytes) -> None:
    """PDFium repairs a truncated file and then misses pages without a word; so look at its two ends first."""
    if b"%PDF-" not in content[:_HEAD_BYTES]:
        raise UnreadableDocument("not a PDF: the file does not begin with %PDF-")
    end = max(content.rfind(b"%%EOF"), content.rfind(b"startxref"))
    # A file that was cut may still hold the end marker of its first part; objects follow that one.
    if end < 0 or _OBJECT.search(content, end):
        raise UnreadableDocument("truncated PDF: the end-of-file marker is missing")


def _read_page(
    document: pypdfium2.PdfDocument, number: int, config: ReadingConfig
) -> Iterator[Part | PageNote]:
    try:
        with closing(document[number - 1]) as page:
            check_pixels(*_pixels(page, config.dots_per_inch), config, where=f"page {number}")
            if not _draw_notes(page):
                yield from _page_parts(page, number, config)
                return
        with closing(document[number - 1]) as page:
            yield from _page_parts(page, number, config)
    except pypdfium2.PdfiumError as error:
        yield PageNote(page=number, refused=f"page {number} is broken: {error}")
    except UnreadableDocument as error:
        yield PageNote(page=number, refused=str(error))
    except (ArithmeticError, LookupError, ValueError) as error:  # what the numbers of a hostile page lead to
        reason = f"{type(error).__name__}: {error}"[:500]
        yield PageNote(page=number, refused=f"the reader failed on page {number}: {reason}")


def _fineness(page: pypdfium2.PdfPage, config: ReadingConfig) -> float:
    """Return how many times finer than `dots_per_inch` a page is drawn."""
    pixels = math.prod(_pixels(page, _FINENESS * config.dots_per_inch))
    return _FINENESS if config.unit == "block" and pixels <= config.max_source_pixels else 1


def _pixels(page: pypdfium2.PdfPage, dots_per_inch: float) -> tuple[int, int]:
    width, height = (round(points * dots_per_inch / 72) for points in page.get_size())
    return width, height


def _draw_notes(page: pypdfium2.PdfPage) -> bool:
    """Draw filled-in fields and notes into the page's content, where the text layer has them too.

    Returns whether there were any; the page must then be loaded anew.
    """
    kinds = set()
    for number in reversed(range(pdfium.FPDFPage_GetAnnotCount(page))):
        if note := pdfium.FPDFPage_GetAnnot(page, number):
            is_shown = not pdfium.FPDFAnnot_GetFlags(note) & pdfium.FPDF_ANNOT_FLAG_NOVIEW
            kinds.add(pdfium.FPDFAnnot_GetSubtype(note))
            pdfium.FPDFPage_CloseAnnot(note)
            if not is_shown:
                pdfium.FPDFPage_RemoveAnnot(page, number)
    if not kinds.difference(_WITHOUT_TEXT):
        return False
    page.render(scale=1 / max(page.get_size()))  # pdfium makes the looks of those that have none
    return pdfium.FPDFPage_Flatten(page, pdfium.FLAT_NORMALDISPLAY) == pdfium.FLATTEN_SUCCESS


def _page_parts(page: pypdfium2.PdfPage, number: int, config: ReadingConfig) -> Iterator[Part | PageNote]:
    words = read_words(page, config)
    whole = _pixels(page, config.dots_per_inch)
    fineness = _fineness(page, config)
    scale = config.dots_per_inch / 72 * fineness
    picture = _drawn(page, scale)

    def draw_without(objects: np.ndarray) -> np.ndarray:
        return _drawn(page, scale, without=objects)

    read = read_page_text(words, picture, draw_without, page.get_size(), scale, config)
    cut = cut_blocks(read, config) if config.unit == "block" else []
    shown = [block for block in cut if block.has_ink]
    left_out = Counter(read.left_out)
    left_out[UNSEEN] += sum(len(block.text) for block in cut) - sum(len(block.text) for block in shown)
    if +left_out:
        yield PageNote(page=number, left_out=dict(+left_out))
    if not shown:
        # Drawn as small as it is stored, which takes half the time of shrinking it.
        width, _ = fitting_size(*whole, multiple=config.pixel_multiple, max_pixels=config.max_pixels)
        stored = (
            picture
            if width == picture.shape[1]
            else _drawn(page, config.dots_per_inch / 72 * width / whole[0])
        )
        yield Part(
            pixels=stored,
            ink=(int(stored.min()), int(stored.max())),
            text="" if cut else read.text,
            page=number,
            box=(0, 0, *whole),
            doubt=read.doubt,
        )
    for index, block in enumerate(shown):
        yield Part(
            pixels=block.pixels,
            ink=block.ink,
            text=block.text,
            page=number,
            box=_coarser(block.box, fineness, whole),
            block=index,
            is_heading=block.is_heading,
            doubt=block.doubt,
        )


def _coarser(box: Box, fineness: float, whole: tuple[int, int]) -> Box:
    """Return a box of a picture in the pixels of `dots_per_inch`, of which the page has `whole`."""
    left, top, right, bottom = box
    right, bottom = min(math.ceil(right / fineness), whole[0]), min(math.ceil(bottom / fineness), whole[1])
    return min(int(left / fineness), right - 1), min(int(top / fineness), bottom - 1), right, bottom


def _drawn(page: pypdfium2.PdfPage, scale: float, without: Sequence[int] = ()) -> np.ndarray:
    """(height, width) grey, without those objects of the page (handles)."""
    objects = [ctypes.cast(int(one), pdfium.FPDF_PAGEOBJECT) for one in without if one]
    try:
        for one in objects:
            pdfium.FPDFPageObj_SetIsActive(one, False)
        return page.render(scale=scale, grayscale=True).to_numpy()
    finally:
        for one in objects:
            pdfium.FPDFPageObj_SetIsActive(one, True)
