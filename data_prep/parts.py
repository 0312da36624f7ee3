"""A part of a document, a page or a block, as it is shown; and the sample that it makes."""

import bisect
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from data_prep.config import ReadingConfig
from data_prep.samples import Box, Sample, sample_key

MAX_ASPECT_RATIO = 190  # the backbone's image processor refuses 200


@dataclass(frozen=True, kw_only=True)
class Part:
    """A page or block as the document shows it."""

    pixels: np.ndarray  # (height, width) uint8, grey, upright
    ink: tuple[int, int]
    """Darkest and lightest grey that its box shows."""
    text: str
    page: int  # from 1
    box: Box
    block: int | None = None
    is_heading: bool = False
    doubt: str | None = None
    """Why its text may not be what its image shows."""


def sample_of_part(document: str, part: Part, config: ReadingConfig) -> Sample:
    fitted = fit_to_grid(part.pixels, multiple=config.pixel_multiple, max_pixels=config.max_pixels)
    return Sample(
        key=sample_key(document, part.page, part.block),
        document=document,
        page=part.page,
        block=part.block,
        text=part.text,
        is_heading=part.is_heading,
        box=part.box,
        ink=part.ink,
        reason=_why_not_trained_on(part, config),
        width=fitted.shape[1],
        height=fitted.shape[0],
        png=png_of(fitted),
    )


def _why_not_trained_on(part: Part, config: ReadingConfig) -> str | None:
    if part.doubt:
        return part.doubt
    if len(part.text) < config.min_characters:
        return f"less than {config.min_characters} characters" if part.text else "no text"
    # It comes with an image whose text could not be cut (no boxes).
    if config.unit == "block" and len(part.text) > 2 * config.max_block_characters:
        return "more text than one block may have"
    return None


def fit_to_grid(pixels: np.ndarray, *, multiple: int, max_pixels: int) -> np.ndarray:
    """Shrink a grey image, then pad it with white to multiples of `multiple`, at most `max_pixels` in all.

    The image processor of the backbone then has nothing to resize: training, evaluation and serving see
    the same pixels. `max_pixels` must hold one square of `multiple`.

    Args:
        pixels: (height, width) uint8.
    """
    width, height = fitting_size(*pixels.shape[::-1], multiple=multiple, max_pixels=max_pixels)
    if (height, width) != pixels.shape:
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
    padded = np.full(_padded_size((width, height), multiple)[::-1], 255, np.uint8)
    padded[:height, :width] = pixels
    return padded


def fitting_size(width: int, height: int, *, multiple: int, max_pixels: int) -> tuple[int, int]:
    """Return the largest size, up to the given one, that padded has at most `max_pixels`."""
    whole = max(width, height)

    def shrunk(longest: int) -> tuple[int, int]:
        return max(1, width * longest // whole), max(1, height * longest // whole)

    def padded_pixels(longest: int) -> int:
        return math.prod(_padded_size(shrunk(longest), multiple))

    if padded_pixels(whole) <= max_pixels:
        return width, height
    return shrunk(bisect.bisect_right(range(1, whole), max_pixels, key=padded_pixels))


def png_of(pixels: np.ndarray) -> bytes:
    """Return a (height, width) uint8 image as a PNG of grey whose rows are not filtered.

    Pillow's own writer tries five filters on each row, which makes print no smaller. This takes 0.43 of its
    time for blocks and 0.3 for pages, with 1.01 and 1.1 of the bytes (its level 1: 0.7 and 0.6, with 1.07 and
    1.18).
    """
    height, width = pixels.shape
    numbers = Image.frombuffer(
        "P", (width, height), pixels, "raw", "P", 0, 1
    )  # of which Pillow filters no rows
    packed = numbers.tobytes("zip", "P", False, 2, -1, b"")  # not Python's zlib: each machine has its own
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(header) + _chunk(b"IDAT" + packed) + _NO_MORE_CHUNKS


def _chunk(content: bytes) -> bytes:
    """Return a part of a PNG file. `content`: its kind, four letters, and what it holds."""
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


_NO_MORE_CHUNKS = _chunk(b"IEND")


def _padded_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return the next (width, height) in whole multiples whose aspect ratio is allowed."""
    shortest = math.ceil(max(size) / multiple) / MAX_ASPECT_RATIO * multiple
    width, height = (math.ceil(max(side, shortest) / multiple) * multiple for side in size)
    return width, height
