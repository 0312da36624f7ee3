"""Read a PDF page's text layer as lines with their boxes, and lines as paragraphs.

pdfium gives characters in reading order, in the page's own coordinates; here they are placed as the page is
displayed (its crop box and rotation applied). A line ends where pdfium inserts a line break or where the
baseline jumps. A line's box is its baseline plus fixed typographic proportions of the type size and not
the ink: crops of equal lines are then equally high and their type sits at the same height.
"""

import ctypes
import math
import re
import statistics
from contextlib import closing
from dataclasses import dataclass, replace

import pypdfium2
import pypdfium2.raw as pdfium

from data_prep.limits import check_characters
from data_prep.plain_text import clean_text

ASCENT, DESCENT = 0.95, 0.25  # of the type size; their sum is about the usual line pitch
SUBSCRIPT_DESCENT = 0.57  # of scripts that set whole letters below the line
_SUBSCRIPT_SCRIPTS = re.compile("[\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff]")  # Tibetan, Burmese, Khmer
BOLD_WEIGHT = 600
_HORIZONTAL = math.cos(0.05)  # radians
_FONT_NAME_BYTES = 128


@dataclass(frozen=True, kw_only=True)
class Line:
    """One printed line, or one character of it. Points, from the lower left of the page as displayed."""

    text: str
    left: float
    right: float
    baseline: float
    size: float
    is_bold: bool

    @property
    def top(self) -> float:
        return self.baseline + ASCENT * self.size

    @property
    def bottom(self) -> float:
        descent = SUBSCRIPT_DESCENT if _SUBSCRIPT_SCRIPTS.search(self.text) else DESCENT
        return self.baseline - descent * self.size


@dataclass(frozen=True, kw_only=True)
class _View:
    """How a page is displayed: its visible box in its own coordinates, and the clockwise turn in degrees."""

    left: float
    bottom: float
    right: float
    top: float
    turn: int

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the page in displayed coordinates."""
        return {
            0: (x - self.left, y - self.bottom),
            90: (y - self.bottom, self.right - x),
            180: (self.right - x, self.top - y),
            270: (self.top - y, x - self.left),
        }[self.turn]

    def shows(self, x: float, y: float) -> bool:
        return self.left <= x <= self.right and self.bottom <= y <= self.top


def read_lines(page: pypdfium2.PdfPage, max_characters: int) -> list[Line]:
    """Return the page's visible lines, horizontal as displayed, in reading order; others are left out.

    Raises UnreadableDocument when the page has more characters, seen or not.
    """
    left, bottom, right, top = page.get_bbox()
    view = _View(left=left, bottom=bottom, right=right, top=top, turn=page.get_rotation())
    lines: list[list[Line]] = [[]]
    with closing(page.get_textpage()) as textpage:
        characters = textpage.count_chars()
        check_characters(characters, max_characters)
        for index in range(characters):
            code = pdfium.FPDFText_GetUnicode(textpage, index)
            character = chr(code) if code else ""
            if character in "\r\n":  # or "": a glyph without a known character is in no line
                lines.append([])
            elif character.isspace():  # pdfium's own spaces have no place
                lines[-1] += [replace(one, text=" ") for one in lines[-1][-1:]]
            elif measured := _measure(textpage, index, character, view):
                previous = lines[-1][-1] if lines[-1] else measured
                if abs(measured.baseline - previous.baseline) > 0.5 * max(previous.size, 1.0):
                    lines.append([])
                lines[-1].append(measured)
    return [_joined(line) for line in lines if any(one.text.strip() for one in line)]


def _measure(textpage: pypdfium2.PdfTextPage, index: int, character: str, view: _View) -> Line | None:
    """Return the character as displayed, or None where it is not horizontal or outside the visible box."""
    angle = pdfium.FPDFText_GetCharAngle(textpage, index) + math.radians(view.turn)
    x, y = ctypes.c_double(), ctypes.c_double()
    pdfium.FPDFText_GetCharOrigin(textpage, index, x, y)
    if math.cos(angle) < _HORIZONTAL or not view.shows(x.value, y.value):
        return None
    left, bottom, right, top = textpage.get_charbox(index, loose=True)
    sides = view.place(left, bottom)[0], view.place(right, top)[0]
    matrix = pdfium.FS_MATRIX()
    pdfium.FPDFText_GetMatrix(textpage, index, matrix)
    scale = math.hypot(matrix.c, matrix.d) or 1.0
    return Line(
        text=character,
        left=min(sides),
        right=max(sides),
        baseline=view.place(x.value, y.value)[1],
        size=pdfium.FPDFText_GetFontSize(textpage, index) * scale,
        is_bold=_is_bold(textpage, index),
    )


def _is_bold(textpage: pypdfium2.PdfTextPage, index: int) -> bool:
    weight = pdfium.FPDFText_GetFontWeight(textpage, index)
    if weight != 0:
        return weight >= BOLD_WEIGHT
    # A font that is not embedded has no weight, but a name such as Helvetica-Bold.
    name = ctypes.create_string_buffer(_FONT_NAME_BYTES)
    pdfium.FPDFText_GetFontInfo(textpage, index, name, _FONT_NAME_BYTES, ctypes.c_int())
    return b"bold" in name.value.lower()


def _joined(characters: list[Line]) -> Line:
    """Return the line that they make."""
    printed = [character for character in characters if character.text.strip()]
    return Line(
        text=clean_text("".join(character.text for character in characters)),
        left=min(character.left for character in printed),
        right=max(character.right for character in printed),
        baseline=statistics.median(character.baseline for character in printed),
        size=statistics.median(character.size for character in printed),
        is_bold=sum(character.is_bold for character in printed) * 2 > len(printed),
    )


def paragraphs(lines: list[Line]) -> list[list[Line]]:
    """Group lines into paragraphs.

    A new paragraph starts at a jump back up the page (a new column), at a wider gap than one line pitch,
    at a change of type size or weight, or where the lines do not share a column.
    """
    groups: list[list[Line]] = []
    for line in lines:
        if groups and _continues(groups[-1], line):
            groups[-1].append(line)
        else:
            groups.append([line])
    return groups


def _continues(group: list[Line], line: Line) -> bool:
    previous = group[-1]
    pitch = previous.baseline - line.baseline
    usual = group[0].baseline - group[1].baseline if len(group) > 1 else 1.45 * previous.size
    return (
        0.5 * previous.size < pitch <= 1.12 * usual
        and abs(line.size - previous.size) < 0.1 * previous.size
        and line.is_bold == previous.is_bold
        and line.left < previous.right
        and previous.left < line.right
    )


def blocks(paragraph: list[Line], max_characters: int) -> list[list[Line]]:
    """Cut a paragraph between its lines so that each block's text has at most `max_characters`.

    A single line longer than the limit stays whole: a cut inside it would have no exact box.
    """
    cut: list[list[Line]] = [[]]
    for line in paragraph:
        length = sum(1 + len(earlier.text) for earlier in cut[-1])
        if length and length + 1 + len(line.text) > max_characters:
            cut.append([])
        cut[-1].append(line)
    return cut
