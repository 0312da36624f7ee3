"""Read one document (PDF or page image) into samples, in a process of its own (data_prep.reader).

Documents are hostile input: PDFium is native code, a page's size sets the bitmap's size, an image's
header promises pixels that the file need not hold. Everything that is wrong with a document becomes an
`UnreadableDocument` whose message stands in the inventory.
"""

import io
from collections.abc import Iterator
from pathlib import PurePosixPath

from PIL import Image, ImageOps, ImageSequence, TiffImagePlugin, UnidentifiedImageError  # noqa: F401

from data_prep.config import ReadingConfig
from data_prep.errors import UnreadableDocument
from data_prep.limits import check_characters, check_pages, check_pixels
from data_prep.parts import Part, sample_of_part
from data_prep.pdf_pages import read_pdf
from data_prep.plain_text import clean_text
from data_prep.samples import PageNote, Sample
from data_prep.source_files import PDF_SUFFIXES

IMAGE_FORMATS = ("PNG", "JPEG", "TIFF")  # whatever the name says, no other decoder is let at a file
Image.preinit()  # decoders are loaded once, before readers are forked


def read_document(
    name: str, content: bytes, beside: bytes | None, config: ReadingConfig
) -> Iterator[Sample | PageNote]:
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
        parts = read_pdf(content, config)
    else:
        parts = _image_parts(PurePosixPath(name), content, beside, config)
    return (sample_of_part(name, part, config) if isinstance(part, Part) else part for part in parts)


def _image_parts(
    name: PurePosixPath, content: bytes, beside: bytes | None, config: ReadingConfig
) -> Iterator[Part]:
    text = _text_beside(beside, config)
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as source:
            check_pixels(*source.size, config, where="image")
            frames = getattr(source, "n_frames", 1)
            check_pages(frames, config)
            for number, frame in enumerate(ImageSequence.Iterator(source), start=1):
                check_pixels(*frame.size, config, where=f"page {number}")
                # A text file beside a many-page TIFF cannot say which page its words are on.
                image = _grey(ImageOps.exif_transpose(frame))
                shown = text if frames == 1 else ""
                yield Part(image=image, text=shown, page=number, box=(0, 0, *image.size))
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
    check_characters(len(text), config)
    return text
