"""Read the pages of an image file: what a viewer shows of it, in grey on white, the right way up.

A page is a picture of its own. What a file holds of the same picture besides (a phone's second JPEG, the
frames of an animated PNG, a TIFF's thumbnails, smaller copies and masks) is none.
"""

import io
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from data_prep.config import ReadingConfig
from data_prep.errors import UnreadableDocument
from data_prep.limits import check_characters, check_pages, check_pixels, pages_of
from data_prep.parts import Part
from data_prep.plain_text import clean_text
from data_prep.printed_lines import drawn_in_rows
from data_prep.samples import PageNote
from data_prep.tiff_pages import make_first, tiff_pages

_Decoder = Callable[[io.BytesIO], ImageFile.ImageFile]
# Decoders by how a file begins; no other is let at one. The JPEG one never looks for a second picture.
_DECODERS: dict[bytes, _Decoder] = {
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
} | dict.fromkeys(TiffImagePlugin.PREFIXES, TiffImagePlugin.TiffImageFile)
TiffImagePlugin.READ_LIBTIFF = True  # Pillow's own reader of bare strips knows no subsampled YCbCr
_LIBTIFF_BROKEN = "decoder error -2"
_NO_MEMORY = ("out of memory", "decoder error -9")

_BITS, _MEANING, _KIND = 258, 262, 339  # tags of a TIFF
_WHITE_IS_ZERO = 0  # its PhotometricInterpretation
_SIGNED = 2  # its SampleFormat

# What makes a level of grey that is transparent in a PNG one of 8 bits, as its pixels become.
_TRANSPARENT = {
    "L;2": lambda level: level * 85,
    "L;4": lambda level: level * 17,
    "RGB;16B": lambda levels: tuple(level >> 8 for level in levels),
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def count_image_pages(content: bytes, config: ReadingConfig) -> int:
    """Return how many pages a PNG, JPEG or TIFF has.

    Raises UnreadableDocument: it is none of them, or has more than `config` allows.
    """
    return len(_opened(content, config)[1])


def read_image_pages(
    content: bytes, beside: bytes | None, config: ReadingConfig, pages: range
) -> Iterator[Part | PageNote]:
    """Yield what those of `pages` give that a PNG, JPEG or TIFF has.

    Args:
        beside: the content of the text beside the file; it is given to the page of a file of one page only.

    Raises:
        UnreadableDocument: as `count_image_pages`, or the text beside it cannot be read.
        MemoryError, OSError: the process was refused something by the machine.
    """
    text = _text_beside(beside, config)
    decoder, places = _opened(content, config)
    file = io.BytesIO(content)
    for number in pages_of(len(places), pages):
        try:
            if places[number - 1] is not None:
                make_first(file, content, places[number - 1])
            image = _picture(decoder, file, config, where=f"page {number}")
        except UnreadableDocument as error:
            yield PageNote(page=number, refused=str(error))
        else:
            own = text if len(places) == 1 else ""
            yield Part(
                pixels=_shown(image, config),
                ink=image.getextrema(),
                text=own,
                page=number,
                box=(0, 0, *image.size),
            )


def _shown(image: Image.Image, config: ReadingConfig) -> np.ndarray:
    """Return a page as it is shown: a picture of a passage in rows, any other one whole."""
    picture = np.asarray(image)
    rows = drawn_in_rows(picture, config) if config.unit == "block" else None
    return picture if rows is None else rows


def _opened(content: bytes, config: ReadingConfig) -> tuple[_Decoder, list[int | None]]:
    """Return the decoder of an image file, and where in a TIFF its pages stand."""
    decoder = next((decoder for start, decoder in _DECODERS.items() if content.startswith(start)), None)
    if decoder is None:
        raise UnreadableDocument("broken image: it begins as no PNG, JPEG or TIFF")
    places = tiff_pages(content) if decoder is TiffImagePlugin.TiffImageFile else [None]
    if not places:
        raise UnreadableDocument("broken image: a TIFF without pages")
    check_pages(len(places), config)
    return decoder, places


def _text_beside(content: bytes | None, config: ReadingConfig) -> str:
    try:
        text = clean_text((content or b"").decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UnreadableDocument("the text beside it is not UTF-8: save it as UTF-8") from error
    check_characters(len(text), config)
    return text


def _picture(decoder: _Decoder, file: io.BytesIO, config: ReadingConfig, *, where: str) -> Image.Image:
    """Decode one picture; whatever a decoder says or raises of it becomes an UnreadableDocument."""
    file.seek(0)
    try:
        with decoder(file) as source:
            check_pixels(*source.size, config, where=where)
            grey = _grey(source)
            turn = _turn(source)
            return grey if turn is None else grey.transpose(turn)
    except (UnreadableDocument, MemoryError):
        raise
    except OSError as error:
        if error.errno is not None or any(one in str(error) for one in _NO_MEMORY):  # the machine's fault
            raise
        what = "its data are cut short or broken" if str(error) == _LIBTIFF_BROKEN else error
        raise UnreadableDocument(f"broken image: {what}") from error
    except Exception as error:
        raise UnreadableDocument(f"broken image: {error or type(error).__name__}") from error


def _turn(source: ImageFile.ImageFile) -> Image.Transpose | None:
    """Return how a loaded picture is turned upright; Pillow has done it to a TIFF, which says nothing now."""
    try:
        return _TURNS.get(source.getexif().get(ExifTags.Base.Orientation))
    except (SyntaxError, ValueError, struct.error):  # no EXIF at all, under its name: shown as it lies
        return None


def _grey(source: ImageFile.ImageFile) -> Image.Image:
    """Return 8-bit grey on white. Pillow alone cuts off above 255 and makes transparent paper black."""
    raw_mode = source.tile[0].args if source.tile else None
    tags = getattr(source, "tag_v2", {})
    source.load()
    if source.mode == "LAB":
        return source.getchannel("L")
    if source.mode in ("I", "F") or source.mode.startswith("I;16") or tags.get(_KIND) == (_SIGNED,):
        return _grey_of_numbers(source, tags)
    if source.mode == "CMYK" and source.format == "JPEG" and "adobe" not in source.info:
        # Pillow takes every one for Adobe's, which are negatives.
        return ImageChops.invert(source).convert("L")
    if not source.has_transparency_data:
        return source.convert("L")
    if raw_mode in _TRANSPARENT:
        source.info["transparency"] = _TRANSPARENT[raw_mode](source.info["transparency"])
    paper = Image.new("RGBA", source.size, "white")
    in_colour = source.convert("LA") if source.mode == "La" else source
    return Image.alpha_composite(paper, in_colour.convert("RGBA")).convert("L")


def _grey_of_numbers(source: ImageFile.ImageFile, tags: Mapping[int, Any]) -> Image.Image:
    """Return the grey of a picture whose numbers are no bytes; `tags`: those of a TIFF."""
    bits, kind = tags.get(_BITS, (16,))[0], tags.get(_KIND, (1,))[0]
    number = np.dtype(f"{'uif'[kind - 1]}{(bits + 7) // 8}")
    values = np.asarray(source).astype(number, copy=False)
    if source.mode in ("I", "F") and tags.prefix == b"MM":
        values = values.byteswap()  # libtiff turns the bytes, and Pillow does it again
    black, white = (0, 2**bits - 1) if number == np.uint16 else _range(values)
    if black == white:
        return Image.new("L", source.size, "white")
    ends = (255, 0) if tags.get(_MEANING) == _WHITE_IS_ZERO else (0, 255)
    parts = np.array_split(values, 1 + source.height // 64)  # numpy takes 32 bytes a pixel meanwhile
    scaled = (np.interp(part, (black, white), ends).round() for part in parts)
    grey = np.vstack([np.nan_to_num(part, nan=255).astype(np.uint8) for part in scaled])
    if "transparency" in source.info:
        grey[values == source.info["transparency"]] = 255
    return Image.fromarray(grey)


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return what is black and white among numbers of which nothing says so; equal: there is no picture."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0, 0
    low, high = float(finite.min()), float(finite.max())
    usual = [white for white in (1, 255) if low >= 0 and high <= white]
    return (0, usual[0]) if usual else (low, high)
