"""Read one document (PDF or page image) into samples, in a process of its own (data_prep.reader).

Documents are hostile input: PDFium is native code, a page's size sets the bitmap's size, an image's
header promises pixels that the file need not hold. Everything that is wrong with a document becomes an
`UnreadableDocument` whose message stands in the inventory.
"""

import bisect
import io
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import PurePosixPath
from typing import NamedTuple

import pypdfium2
from PIL import Image

from data_prep import text_layer
from data_prep.config import ReadingConfig
from data_prep.errors import UnreadableDocument
from data_prep.image_pages import BadPage, read_image_pages
from data_prep.limits import check_pages, check_pixels
from data_prep.samples import Box, Sample, sample_key
from data_prep.source_files import PDF_SUFFIXES

PDF_HEAD_BYTES = 1024
PDF_TAIL_BYTES = 4096  # a whole PDF names its end within these last bytes
MAX_ASPECT_RATIO = 190  # the backbone's image processor refuses 200
Image.preinit()  # encoders are loaded once, before readers are forked


class _Part(NamedTuple):
    """A page or block as the document shows it."""

    image: Image.Image
    text: str
    page: int  # from 1
    box: Box
    block: int | None = None
    is_heading: bool = False


def read_document(name: str, content: bytes, beside: bytes | None, config: ReadingConfig) -> Iterator[Sample]:
    """Read one file; every page gives at least one sample.

    Args:
        name: what the samples call the document; its ending says what it is.
        beside: of an image, the content of the text beside it.

    Raises:
        UnreadableDocument: the file is truncated, encrypted, not what its name says, or has more or larger
            pages than `config` allows.
        MemoryError, OSError: the process was refused something by the machine.
    """
    if PurePosixPath(name).suffix.lower() in PDF_SUFFIXES:
        parts = _pdf_parts(content, config)
    else:
        parts = _image_parts(PurePosixPath(name), content, beside, config)
    return (_sample(name, part, config) for part in parts)


def _sample(document: str, part: _Part, config: ReadingConfig) -> Sample:
    ink = part.image.getextrema()
    fitted = fit_to_grid(part.image, multiple=config.pixel_multiple, max_pixels=config.max_pixels)
    fitted.save(buffer := io.BytesIO(), format="PNG")
    return Sample(
        key=sample_key(document, part.page, part.block),
        document=document,
        page=part.page,
        block=part.block,
        text=part.text,
        is_heading=part.is_heading,
        box=part.box,
        ink=ink,
        reason=_why_not_trained_on(part, config),
        width=fitted.width,
        height=fitted.height,
        png=buffer.getvalue(),
    )


def _why_not_trained_on(part: _Part, config: ReadingConfig) -> str | None:
    if len(part.text) < config.min_characters:
        return f"less than {config.min_characters} characters" if part.text else "no text"
    # It comes with an image whose text could not be cut (no boxes).
    if config.unit == "block" and len(part.text) > 2 * config.max_block_characters:
        return "more text than one block may have"
    return None


def _pdf_parts(content: bytes, config: ReadingConfig) -> Iterator[_Part]:
    _check_pdf_envelope(content)
    try:
        with closing(pypdfium2.PdfDocument(content)) as document:
            if len(document) == 0:
                raise UnreadableDocument("PDF without pages")
            check_pages(len(document), config)
            for number in range(len(document)):
                with closing(document[number]) as page:
                    yield from _page_parts(page, number + 1, config)
    except pypdfium2.PdfiumError as error:
        encrypted = "password" in str(error).lower()
        reason = "encrypted: needs a password" if encrypted else f"broken PDF: {error}"
        raise UnreadableDocument(reason) from error


def _check_pdf_envelope(content: bytes) -> None:
    """PDFium repairs a truncated file and then misses pages without a word; so look at its two ends first."""
    if b"%PDF-" not in content[:PDF_HEAD_BYTES]:
        raise UnreadableDocument("not a PDF: the file does not begin with %PDF-")
    if b"%%EOF" not in content[-PDF_TAIL_BYTES:]:
        raise UnreadableDocument("truncated PDF: the end-of-file marker is missing")


def _page_parts(page: pypdfium2.PdfPage, number: int, config: ReadingConfig) -> Iterator[_Part]:
    scale = config.dots_per_inch / 72
    width, height = (round(points * scale) for points in page.get_size())
    check_pixels(width, height, config, where=f"page {number}")
    lines = text_layer.read_lines(page, config.max_page_characters)
    image = page.render(scale=scale, grayscale=True).to_pil().convert("L")
    if config.unit == "page" or not lines:
        yield _Part(image, " ".join(line.text for line in lines), number, (0, 0, *image.size))
        return
    blocks = [
        (block, paragraph[0].is_bold and len(paragraph) <= 2)
        for paragraph in text_layer.paragraphs(lines)
        for block in text_layer.blocks(paragraph, config.max_block_characters)
    ]
    for index, (block, is_heading) in enumerate(blocks):
        box = _pixel_box(block, image.size, page.get_height(), scale)
        yield _Part(image.crop(box), " ".join(line.text for line in block), number, box, index, is_heading)


def _pixel_box(
    lines: list[text_layer.Line], image_size: tuple[int, int], page_height: float, scale: float
) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) in pixels; equal blocks get equal heights wherever they stand."""
    top = round((page_height - lines[0].top) * scale)
    height = round((lines[0].top - lines[-1].bottom) * scale)
    left = round(min(line.left for line in lines) * scale) - 1
    right = round(max(line.right for line in lines) * scale) + 1
    # Type of no size at the page's edge still gets one pixel: an image without area cannot be stored.
    right, bottom = min(max(right, left + 2, 1), image_size[0]), min(max(top + height, 1), image_size[1])
    return min(max(left, 0), right - 1), min(max(top, 0), bottom - 1), right, bottom


def _image_parts(
    name: PurePosixPath, content: bytes, beside: bytes | None, config: ReadingConfig
) -> Iterator[_Part]:
    for page in read_image_pages(name, content, beside, config):
        if isinstance(page, BadPage):
            raise UnreadableDocument(page.reason)
        yield _Part(page.image, page.text, page.number, (0, 0, *page.image.size))


def fit_to_grid(image: Image.Image, *, multiple: int, max_pixels: int) -> Image.Image:
    """Shrink a grey image, then pad it with white to multiples of `multiple`, at most `max_pixels` in all.

    The image processor of the backbone then has nothing to resize: training, evaluation and serving see
    the same pixels. `max_pixels` must hold one square of `multiple`.
    """
    whole = max(image.size)

    def shrunk(longest: int) -> tuple[int, int]:
        width, height = (max(1, side * longest // whole) for side in image.size)
        return width, height

    def padded_pixels(longest: int) -> int:
        return math.prod(_padded_size(shrunk(longest), multiple))

    # The longest side, up to its own length, with which the padded image still fits.
    longest = bisect.bisect_right(range(1, whole + 1), max_pixels, key=padded_pixels)
    if longest < whole:
        image = image.resize(shrunk(longest), Image.Resampling.LANCZOS)
    padded = Image.new("L", _padded_size(image.size, multiple), 255)
    padded.paste(image, (0, 0))
    return padded


def _padded_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return the next (width, height) in whole multiples whose aspect ratio is allowed."""
    shortest = math.ceil(max(size) / multiple) / MAX_ASPECT_RATIO * multiple
    width, height = (math.ceil(max(side, shortest) / multiple) * multiple for side in size)
    return width, height
