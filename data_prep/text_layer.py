"""Read a PDF page's text layer as lines with their boxes, and lines as paragraphs.

pdfium gives characters in reading order; a line ends where pdfium inserts a line break or where the
baseline jumps. A line's box is its baseline plus fixed typographic proportions of the type size and not
the ink: crops of equal lines are then equally high and their type sits at the same height.
"""

import ctypes
import math
import statistics
import unicodedata
from dataclasses import dataclass

import pypdfium2
import pypdfium2.raw as pdfium

ASCENT, DESCENT = 1.0, 0.25  # of the type size; their sum is about the usual line pitch
BOLD_WEIGHT = 600
HYPHENS_AT_LINE_END = "\u00ad\ufffe"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One printed line. Lengths in points, origin at the page's lower left."""

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
        return self.baseline - DESCENT * self.size


@dataclass(frozen=True, kw_only=True)
class _Character:
    text: str
    left: float
    right: float
    baseline: float
    size: float
    weight: int


def read_lines(page: pypdfium2.PdfPage) -> list[Line]:
    """Return the page's horizontal lines in reading order. Rotated text is left out."""
    textpage = page.get_textpage()
    try:
        lines: list[Line] = []
        run: list[_Character] = []
        for index in range(textpage.count_chars()):
            code = pdfium.FPDFText_GetUnicode(textpage, index)
            character = chr(code) if code else ""
            if character in "\r\n":
                run = _close_line(run, lines)
                continue
            if abs(pdfium.FPDFText_GetCharAngle(textpage, index)) > 0.05:
                continue
            measured = _measure(textpage, index, character)
            if run and abs(measured.baseline - run[-1].baseline) > 0.5 * max(run[-1].size, 1.0):
                run = _close_line(run, lines)
            run.append(measured)
        _close_line(run, lines)
        return lines
    finally:
        textpage.close()


def _measure(textpage: pypdfium2.PdfTextPage, index: int, character: str) -> _Character:
    x, y = ctypes.c_double(), ctypes.c_double()
    pdfium.FPDFText_GetCharOrigin(textpage, index, x, y)
    left, _, right, _ = textpage.get_charbox(index, loose=True)
    matrix = pdfium.FS_MATRIX()
    pdfium.FPDFText_GetMatrix(textpage, index, matrix)
    scale = math.hypot(matrix.c, matrix.d) or 1.0
    return _Character(
        text=character,
        left=left,
        right=right,
        baseline=y.value,
        size=pdfium.FPDFText_GetFontSize(textpage, index) * scale,
        weight=pdfium.FPDFText_GetFontWeight(textpage, index),
    )


def _close_line(run: list[_Character], lines: list[Line]) -> list[_Character]:
    """Append the line that `run` makes, unless it is blank, and return a new empty run."""
    printed = [character for character in run if character.text.strip()]
    if printed:
        text = "".join(character.text for character in run).rstrip(HYPHENS_AT_LINE_END)
        lines.append(
            Line(
                text=" ".join(unicodedata.normalize("NFC", text).split()),
                left=min(character.left for character in printed),
                right=max(character.right for character in printed),
                baseline=statistics.median(character.baseline for character in printed),
                size=statistics.median(character.size for character in printed),
                is_bold=sum(character.weight >= BOLD_WEIGHT for character in printed) * 2 > len(printed),
            )
        )
    return []


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
    length = 0
    for line in paragraph:
        if cut[-1] and length + 1 + len(line.text) > max_characters:
            cut.append([])
            length = 0
        cut[-1].append(line)
        length += 1 + len(line.text)
    return cut
