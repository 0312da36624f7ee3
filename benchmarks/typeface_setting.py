"""Typesetting of benchmarks.typeface_documents: lines at exact places, with tracking, kerning and gaps."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from fpdf import FPDF

CREATION_DATE = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
_TINT_PADDING = 0.35  # em around shaded lines
_LIGATURES = {"ffi": "\ufb03", "ffl": "\ufb04", "ff": "\ufb00", "fi": "\ufb01", "fl": "\ufb02"}


@dataclass(frozen=True, kw_only=True)
class Style:
    """How lines are set. Lengths in points."""

    face: str
    """Its name in the document."""
    size: float
    leading: float
    tracking: float = 0.0
    """Added behind each character."""
    word_space: float = 1.0
    """Width of a space relative to the face's."""
    ink: int = 0
    """Grey, of 255."""
    is_justified: bool = False
    is_kerned: bool = False
    has_ligatures: bool = False
    """Of f with f, i and l, where the face has them; the text layer has their own characters."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The places of a page's columns, in points."""

    lefts: tuple[float, ...]
    width: float
    top: float
    bottom: float


@dataclass
class Setter:
    """Sets one document; `columns` of a page are filled from left to right."""

    page_points: tuple[float, float]
    title: str
    _pdf: FPDF = field(init=False)
    _widths: dict[str, dict[str, float]] = field(init=False, default_factory=dict)
    _kerns: dict[str, dict[str, float]] = field(init=False, default_factory=dict)
    _columns: Columns = field(init=False)
    _column: int = field(init=False, default=0)
    y: float = field(init=False, default=0.0)
    """Baseline of the next line would stand one leading below, from the top."""

    def __post_init__(self) -> None:
        self._pdf = FPDF(unit="pt", format=self.page_points)
        self._pdf.set_creation_date(CREATION_DATE)
        self._pdf.set_title(self.title)
        self._pdf.set_auto_page_break(False)

    @property
    def pages(self) -> int:
        return self._pdf.pages_count

    @property
    def width(self) -> float:
        """Of the columns."""
        return self._columns.width

    def add_face(self, name: str, path: Path, kerns: dict[str, float]) -> None:
        """Make a font file known; `kerns`: between two characters, in em."""
        self._pdf.add_font(name, "", path)
        font = self._pdf.fonts[name]
        per_em = font.ttfont["head"].unitsPerEm
        metrics = font.ttfont["hmtx"].metrics
        cmap, outlines = font.ttfont.getBestCmap(), font.ttfont["glyf"]
        drawn = {glyph for glyph in cmap.values() if outlines[glyph].numberOfContours}
        self._widths[name] = {
            chr(code): metrics[glyph][0] / per_em
            for code, glyph in cmap.items()
            if glyph in drawn or code == 0x20
        }
        self._kerns[name] = kerns

    def can_print(self, face: str, text: str) -> bool:
        return self._widths[face].keys() >= set(text)

    def text_width(self, style: Style, text: str) -> float:
        if style.has_ligatures:
            text = self._joined(style.face, text)
        widths = self._widths[style.face]
        width = sum(map(widths.__getitem__, text)) + text.count(" ") * widths[" "] * (style.word_space - 1)
        if style.is_kerned:
            kerns = self._kerns[style.face]
            width += sum(kerns.get(first + second, 0.0) for first, second in pairwise(text))
        return style.size * width + style.tracking * len(text)

    def _joined(self, face: str, text: str) -> str:
        for letters, ligature in _LIGATURES.items():
            if letters in text and ligature in self._widths[face]:
                text = text.replace(letters, ligature)
        return text

    def start_page(self, columns: Columns) -> None:
        self._columns, self._column, self.y = columns, 0, columns.top
        self._pdf.add_page()

    def make_room(self, height: float) -> None:
        """Go on in the next column or on a page of the same columns where `height` does not fit."""
        if self.y + height <= self._columns.bottom:
            return
        if self._column + 1 < len(self._columns.lefts):
            self._column, self.y = self._column + 1, self._columns.top
        else:
            self.start_page(self._columns)

    @property
    def is_page_full(self) -> bool:
        """Whether nothing more fits on the page."""
        last = self._column + 1 == len(self._columns.lefts)
        return last and self.y > self._columns.bottom - 30

    def put_line(self, style: Style, text: str, *, indent: float = 0.0, width: float = 0.0) -> None:
        """Set a line below the last one; to `width` where it is given."""
        self.make_room(style.leading)
        self.y += style.leading
        self.put_words(style, text, self._columns.lefts[self._column] + indent, width=width)

    def put_words(self, style: Style, text: str, left: float, *, width: float = 0.0) -> float:
        """Set words on the last line; return where they end. Each keeps the space behind it in the text."""
        self._pdf.set_font(style.face, "", style.size)
        self._pdf.set_char_spacing(style.tracking)
        self._pdf.set_text_color(style.ink)
        words = text.split(" ")
        space = self._widths[style.face][" "] * style.size * style.word_space + style.tracking
        if width and len(words) > 1:
            space += (width - self.text_width(style, text)) / (len(words) - 1)
        elif style.word_space == 1:
            return self._put(style, text, left)
        for word in words[:-1]:
            if word:
                left = self._put(style, word, left, space=" ")
            left += space
        return self._put(style, words[-1], left)

    def _put(self, style: Style, text: str, left: float, *, space: str = "") -> float:
        """Set a text in pieces between which there is kerning; return where it ends, before `space`."""
        if style.has_ligatures:
            text = self._joined(style.face, text)
        widths, kerns = self._widths[style.face], self._kerns[style.face] if style.is_kerned else {}
        piece, start = "", left
        for number, character in enumerate(text):
            piece += character
            left += widths[character] * style.size + style.tracking
            kern = kerns.get(text[number : number + 2], 0.0)
            if kern:
                self._pdf.text(start, self.y, piece)
                left += kern * style.size
                piece, start = "", left
        self._pdf.text(start, self.y, piece + space)
        return left

    def put_pieces(self, style: Style, pieces: Sequence[tuple[float, str]], *, indent: float = 0.0) -> None:
        """Set pieces of one line, each with the gap before it."""
        self.make_room(style.leading)
        self.y += style.leading
        left = self._columns.lefts[self._column] + indent
        for gap, text in pieces:
            left = self.put_words(style, text, left + gap)

    def put_cells(self, style: Style, cells: Sequence[tuple[float, str]]) -> None:
        """Set cells at their distances from the column's left."""
        self.make_room(style.leading)
        self.y += style.leading
        for offset, text in cells:
            self.put_words(style, text, self._columns.lefts[self._column] + offset)

    def put_mark(self, style: Style, text: str, left: float) -> None:
        """Set a raised note mark."""
        self.y -= 0.35 * style.size
        self.put_words(replace(style, size=0.62 * style.size, tracking=0.0), text, left)
        self.y += 0.35 * style.size

    def put_tint(self, style: Style, lines: int, grey: int) -> None:
        """Shade the place of the next lines, which have room."""
        padding = _TINT_PADDING * style.size
        self.make_room(lines * style.leading + padding)
        self._pdf.set_fill_color(grey)
        left, top = self._columns.lefts[self._column] - padding, self.y + 0.15 * style.leading
        self._pdf.rect(
            left, top, self._columns.width + 2 * padding, lines * style.leading + padding, style="F"
        )

    def put_rule(self, width: float, thickness: float = 0.4) -> None:
        self._pdf.set_fill_color(60)
        self._pdf.rect(self._columns.lefts[self._column], self.y, width, thickness, style="F")

    def skip(self, height: float) -> None:
        self.y += height

    def last_left(self) -> float:
        return self._columns.lefts[self._column]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._pdf.output(str(path))

    def break_lines(self, style: Style, text: str, width: float, *, hyphenates: bool = False) -> list[str]:
        """Break a text into lines no wider than `width`; a longer word stands alone and is cut.

        `hyphenates`: words may be parted at a line's end.
        """
        space = self.text_width(style, " ")
        lines, line, used = [], "", 0.0
        for word in text.split(" "):
            length = self.text_width(style, word)
            while length > width and len(word) > 1:
                if line:
                    lines.append(line)
                    line, used = "", 0.0
                kept = max(1, int(len(word) * width / length * 0.9))
                lines.append(word[:kept])
                word = word[kept:]
                length = self.text_width(style, word)
            if line and used + space + length > width:
                head = self._head(style, word, width - used - space) if hyphenates else ""
                lines.append(f"{line} {head}-" if head else line)
                line = word[len(head) :]
                used = self.text_width(style, line)
            else:
                line, used = (f"{line} {word}", used + space + length) if line else (word, length)
        return [*lines, line] if line else lines

    def _head(self, style: Style, word: str, room: float) -> str:
        """Return what of a word stands before the hyphen in so much room; nothing where it is too little.

        Three letters or more are on both sides.
        """
        heads = (word[:end] for end in range(len(word) - 3, 2, -1)) if word.isalpha() else ()
        return next((head for head in heads if self.text_width(style, f"{head}-") <= room), "")
