"""Read one document (PDF or page image) into samples, in a process of its own (data_prep.reader).

Documents are hostile input: PDFium is native code, a page's size sets the bitmap's size, an image's
header promises pixels that the file need not hold. Everything that is wrong with a document becomes an
`UnreadableDocument` whose message stands in the inventory.
"""

import bisect
import io
import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import PurePosixPath
from typing import NamedTuple

import pypdfium2
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError  # noqa: F401

from data_prep import text_layer
from data_prep.config import ReadingConfig
from data_prep.errors import UnreadableDocument
from data_prep.plain_text import clean_text
from data_prep.samples import Box, PageNote, Sample, sample_key
from data_prep.source_files import PDF_SUFFIXES

IMAGE_FORMATS = ("PNG", "JPEG", "TIFF")  # whatever the name says, no other decoder is let at a file
PDF_HEAD_BYTES = 1024
PDF_TAIL_BYTES = 4096  # a whole PDF names its end within these last bytes
MAX_ASPECT_RATIO = 190  # the backbone's image processor refuses 200
Image.preinit()  # decoders are loaded once, before readers are forked


class _Part(NamedTuple):
    """A page or block as the document shows it."""

    image: Image.Image
    text: str
    page: int  # from 1
    box: Box
    block: int | None = None
    is_heading: bool = False


def count_pages(name: str, content: bytes, config: ReadingConfig) -> int:
    """Return how many pages a file has. Raises as `read_document`."""
    if PurePosixPath(name).suffix.lower() in PDF_SUFFIXES:
        with _opened_pdf(content, config) as document:
            return len(document)
    with _opened_image(PurePosixPath(name), content, config) as source:
        return _frames(source)


def read_document(
    name: str, content: bytes, beside: bytes | None, config: ReadingConfig, pages: range | None = None
) -> Iterator[Sample | PageNote]:
    """Read one file, page by page: a note, where one is needed, then the page's samples.

    A page has at least one sample, or its note says why it is refused.

    Args:
        name: what the samples call the document; its ending says what it is.
        beside: of an image, the content of the text beside it.
        pages: numbers of the pages to read, from 1; those behind the last page are left out. All by default.

    Raises:
        UnreadableDocument: the file is truncated, encrypted, not what its name says, or has more or larger
            pages than `config` allows.
        MemoryError, OSError: the process was refused something by the machine.
    """
    if PurePosixPath(name).suffix.lower() in PDF_SUFFIXES:
        parts = _pdf_parts(content, config, pages)
    else:
        parts = _image_parts(PurePosixPath(name), content, beside, config, pages)
    return (part if isinstance(part, PageNote) else _sample(name, part, config) for part in parts)


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


def _pdf_parts(content: bytes, config: ReadingConfig, pages: range | None) -> Iterator[_Part | PageNote]:
    with _opened_pdf(content, config) as document:
        for number in _numbers(len(document), pages):
            with closing(document[number - 1]) as page:
                yield from _page_parts(page, number, config)


@contextmanager
def _opened_pdf(content: bytes, config: ReadingConfig) -> Iterator[pypdfium2.PdfDocument]:
    _check_pdf_envelope(content)
    try:
        with closing(pypdfium2.PdfDocument(content)) as document:
            if len(document) == 0:
                raise UnreadableDocument("PDF without pages")
            _check_pages(len(document), config)
            yield document
    except pypdfium2.PdfiumError as error:
        encrypted = "password" in str(error).lower()
        reason = "encrypted: needs a password" if encrypted else f"broken PDF: {error}"
        raise UnreadableDocument(reason) from error


def _numbers(count: int, pages: range | None) -> range:
    """Return those of `pages` that a document of `count` pages has."""
    return range(1, count + 1) if pages is None else range(pages.start, min(pages.stop, count + 1))


def _check_pdf_envelope(content: bytes) -> None:
    """PDFium repairs a truncated file and then misses pages without a word; so look at its two ends first."""
    if b"%PDF-" not in content[:PDF_HEAD_BYTES]:
        raise UnreadableDocument("not a PDF: the file does not begin with %PDF-")
    if b"%%EOF" not in content[-PDF_TAIL_BYTES:]:
        raise UnreadableDocument("truncated PDF: the end-of-file marker is missing")


def _page_parts(page: pypdfium2.PdfPage, number: int, config: ReadingConfig) -> Iterator[_Part]:
    scale = config.dots_per_inch / 72
    width, height = (round(points * scale) for points in page.get_size())
    _check_pixels(width, height, config, where=f"page {number}")
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
    name: PurePosixPath, content: bytes, beside: bytes | None, config: ReadingConfig, pages: range | None
) -> Iterator[_Part | PageNote]:
    text = _text_beside(beside, config)
    with _opened_image(name, content, config) as source:
        frames = _frames(source)
        for number in _numbers(frames, pages):
            source.seek(number - 1)
            _check_pixels(*source.size, config, where=f"page {number}")
            # A text file beside a many-page TIFF cannot say which page its words are on.
            image = _grey(ImageOps.exif_transpose(source))
            yield _Part(image, text if frames == 1 else "", number, (0, 0, *image.size))


def _frames(source: Image.Image) -> int:
    return getattr(source, "n_frames", 1)


@contextmanager
def _opened_image(name: PurePosixPath, content: bytes, config: ReadingConfig) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as source:
            _check_pixels(*source.size, config, where="image")
            _check_pages(_frames(source), config)
            yield source
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableDocument(f"oversized image: {error}") from error
    except UnidentifiedImageError as error:
        raise UnreadableDocument(f"broken image: cannot identify image file '{name.name}'") from error
    except OSError as error:
        if error.errno is not None or "out of memory" in str(error):  # the machine's fault, not the file's
            raise
        raise UnreadableDocument(f"broken image: {error}") from error
    except (SyntaxError, ValueError) as error:
        raise UnreadableDocument(f"broken image: {error}") from error


def _grey(image: Image.Image) -> Image.Image:
    """Return 8-bit grey on white. Pillow alone would make 16-bit scans white and transparent paper black."""
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 257) + 0).convert("L")
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("L")
    return image.convert("L")


def _text_beside(content: bytes | None, config: ReadingConfig) -> str:
    try:
        text = clean_text((content or b"").decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UnreadableDocument("the text beside it is not UTF-8: save it as UTF-8") from error
    text_layer.check_characters(len(text), config.max_page_characters)
    return text


def _check_pages(pages: int, config: ReadingConfig) -> None:
    if pages > config.max_pages_per_document:
        raise UnreadableDocument(f"{pages:,} pages, the limit is {config.max_pages_per_document:,}")


def _check_pixels(width: int, height: int, config: ReadingConfig, *, where: str) -> None:
    if width < 1 or height < 1:
        raise UnreadableDocument(f"{where} has no area")
    if width * height > config.max_source_pixels:
        raise UnreadableDocument(
            f"oversized: {where} has {width:,} x {height:,} pixels, the limit is {config.max_source_pixels:,}"
        )


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
