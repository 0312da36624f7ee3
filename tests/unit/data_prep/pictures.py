"""Make page images by hand, of kinds that Pillow reads and does not write."""

import struct
import zlib
from typing import NamedTuple

import numpy as np

BAR = (slice(10, 20), slice(10, 60))  # rows and columns of the dark bar


def bar(dark: float = 0, paper: float = 255, kind: str = "u1", *, bands: int = 1) -> np.ndarray:
    """A page of 200 x 120 pixels whose upper left has a dark bar."""
    values = np.full((120, 200), paper, dtype=kind)
    values[BAR] = dark
    return values if bands == 1 else np.repeat(values[:, :, None], bands, axis=2)


def ink_as_alpha(bands: int, kind: str = "u1") -> np.ndarray:
    """The page in black that is transparent but for the bar."""
    white = np.iinfo(kind).max
    return np.dstack([np.zeros((120, 200, bands), kind), bar(white, 0, kind)])


class Frame(NamedTuple):
    tags: dict[int, int | tuple[int, ...]]
    pixels: bytes


def frame(
    values: np.ndarray,
    meaning: int = 1,
    *,
    order: str = "<",
    deflated: bool = False,
    **tags: int | tuple[int, ...],
) -> Frame:
    """One picture of a TIFF. `meaning`: its PhotometricInterpretation. `tags`: more, or others: `t254=1`."""
    height, width, *bands = values.shape
    samples = bands[0] if bands else 1
    own = {256: width, 257: height, 258: (8 * values.dtype.itemsize,) * samples, 259: 8 if deflated else 1}
    own |= {262: meaning, 277: samples, 278: height, 339: ("uif".index(values.dtype.kind) + 1,) * samples}
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    more = {int(name[1:]): value for name, value in tags.items()}
    return Frame(own | more, zlib.compress(pixels) if deflated else pixels)


def tiff(*frames: Frame, order: str = "<", big: bool = False) -> bytes:
    word, count = ("Q", "Q") if big else ("I", "H")
    size = struct.calcsize(f"={word}")
    content = struct.pack(f"{order}2sH", b"II" if order == "<" else b"MM", 43 if big else 42)
    content += struct.pack(f"{order}HH", 8, 0) if big else b""
    pointer = len(content)
    content += bytes(size)
    for tags, pixels in frames:
        place, content = len(content), content + pixels
        entries = b""
        for tag, value in sorted(({273: place, 279: len(pixels)} | tags).items()):
            values = value if isinstance(value, tuple) else (value,)
            code, kind = ("H", 3) if tag in (254, 255, 258, 262, 339) else ("I", 4)
            field = struct.pack(f"{order}{len(values)}{code}", *values)
            if len(field) > size:
                place, content = len(content), content + field
                field = struct.pack(order + word, place)
            entries += struct.pack(f"{order}HH{word}{size}s", tag, kind, len(values), field)
        here = struct.pack(order + word, len(content))
        content = content[:pointer] + here + content[pointer + size :]
        content += struct.pack(order + count, len(entries) // (4 + 2 * size)) + entries
        pointer = len(content)
        content += bytes(size)
    return content


def png(values: np.ndarray, colour: int, *before: tuple[bytes, bytes], bits: int = 0) -> bytes:
    """A PNG of this colour type; `before`: chunks (kind, body) ahead of its pixels. `bits`: fewer than 8."""
    height, width = values.shape[:2]
    rows = values.astype(values.dtype.newbyteorder(">")).reshape(height, -1)
    if bits:
        grouped = rows.reshape(height, -1, 8 // bits) << np.arange(8 - bits, -1, -bits, dtype=np.uint8)
        rows = grouped.sum(axis=2, dtype=np.uint8)
    header = struct.pack(">IIBBBBB", width, height, bits or 8 * values.dtype.itemsize, colour, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = ((b"IHDR", header), *before, (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
