"""Find the pages of a TIFF: a chain of directories, each of one picture.

Some of the pictures are copies of a page: a thumbnail, a smaller one to look at from afar, a mask. Pillow
counts them as pages, and gives none of a file's pages where the first one is bad.
"""

import io
import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

from data_prep.errors import UnreadableDocument

_SUBFILE, _OLD_SUBFILE, _MEANING = 254, 255, 262  # tags
_SMALLER, _MASK = 1, 4  # bits of NewSubfileType
_OLD_SMALLER = 2  # SubfileType
_TRANSPARENCY_MASK = 4  # PhotometricInterpretation
_SHORT = 3  # a kind of number that fills two bytes of its field; the others that are asked for fill four


def tiff_pages(content: bytes) -> list[int]:
    """Return where the directory of every page of a TIFF stands."""
    copies = {place: _is_copy(tags) for place, tags in _directories(content)}
    # Where every picture says that it is a copy, the file holds nothing better.
    return [place for place, is_copy in copies.items() if not is_copy] or list(copies)


def _is_copy(tags: dict[int, int]) -> bool:
    return bool(
        tags.get(_SUBFILE, 0) & (_SMALLER | _MASK)
        or tags.get(_OLD_SUBFILE) == _OLD_SMALLER
        or tags.get(_MEANING) == _TRANSPARENCY_MASK
    )


def _directories(content: bytes) -> Iterator[tuple[int, dict[int, int]]]:
    """Follow the chain, which may end in a circle: (where a directory stands, its tags of one small number).

    The last one may be cut off or stand beyond the end of the file; it then has no tags.
    """
    layout, passed = _layout_of(content), set()
    place = layout.word_at(content, layout.first)
    while place and place not in passed:
        passed.add(place)
        end = layout.end_of(content, place)
        table = content[place + layout.count.size : end] if end <= len(content) else b""
        entries = layout.entry.iter_unpack(table)
        yield place, {tag: _number(kind, field, layout.order) for tag, kind, _, field in entries}
        place = layout.word_at(content, end)


def _number(kind: int, field: bytes, order: Literal["little", "big"]) -> int:
    return int.from_bytes(field[: 2 if kind == _SHORT else 4], order)


class _Layout(NamedTuple):
    order: Literal["little", "big"]
    first: int  # where the header says the place of the first directory
    count: struct.Struct
    entry: struct.Struct
    word: struct.Struct

    def word_at(self, content: bytes, place: int) -> int:
        """0 beyond the end of the file."""
        return self.word.unpack_from(content, place)[0] if place + self.word.size <= len(content) else 0

    def end_of(self, content: bytes, place: int) -> int:
        """Return where the entries of this directory end, or should."""
        start = place + self.count.size
        entries = self.count.unpack_from(content, place)[0] if start <= len(content) else 0
        return start + entries * self.entry.size


def _layout_of(content: bytes) -> _Layout:
    order, code = ("little", "<") if content.startswith(b"II") else ("big", ">")
    is_big = 43 in content[2:4]
    first, codes = (8, ("Q", "HHQ8s", "Q")) if is_big else (4, ("H", "HHI4s", "I"))
    return _Layout(order, first, *(struct.Struct(code + one) for one in codes))


def make_first(file: io.BytesIO, content: bytes, place: int) -> None:
    """Let the header of a TIFF name this directory: it is decoded alone, whatever is wrong with others."""
    layout = _layout_of(content)
    if layout.end_of(content, place) > len(content):
        raise UnreadableDocument("truncated image: the file ends before it")
    file.seek(layout.first)
    file.write(layout.word.pack(place))
