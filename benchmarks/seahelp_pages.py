"""Typesetting of SeaHelp: paragraphs on A6 pages with exact text layer, and the pages as images.

The sample documents (sample_documents.py) have the same pages and the same Latin typeface.
"""

import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pypdfium2
from fontTools import subset
from fontTools.ttLib import TTFont
from fpdf import FPDF

from benchmarks.libreoffice_help import Paragraph
from benchmarks.syllable_font import ZERO_WIDTH_SPACE, syllables, write_syllable_font
from data_prep.plain_text import clean_text

_PDFIUM_HYPHEN = "\ufffe"  # its code for one at a line's end
PAGE_POINTS = (298.5, 420.0)  # A6
MARGIN_POINTS = 27.0
PARAGRAPH_GAP_POINTS = 7.5
CREATION_DATE = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
IMAGE_DOTS_PER_INCH = 150
WEIGHTS = {"": "Regular", "B": "Bold"}
KHMER_SIGNS = "។៕៖ៗ៘"  # full stops, colon, repetition, et cetera: written after a space


@dataclass(frozen=True, kw_only=True)
class Typeface:
    """Noto font files (without weight) and the size they are set in, in points."""

    latin: str = "NotoSansMono"
    khmer: str | None = None
    """Typeface of Khmer, set syllable by syllable; what it lacks comes from the Latin one."""
    size: float
    leading: float


# At 96 dpi a line is 16 px high and two characters are 16 px wide: one visual token of the tiny model.
LATIN = Typeface(size=10.0, leading=12.0)
# Subscripts need half an em below the line; 18 points are 24 px at 96 dpi.
KHMER = Typeface(khmer="NotoSansKhmer", size=12.0, leading=18.0)


def printable_characters(typeface: Typeface, fonts: Path) -> set[str]:
    """Characters that the typeface can draw."""
    names = [name for name in (typeface.latin, typeface.khmer) if name]
    return {chr(code) for name in names for code in TTFont(fonts / f"{name}-Regular.ttf").getBestCmap()}


def make_fonts(typeface: Typeface, source: Path, target: Path, texts: Iterable[str]) -> None:
    """Write to `target` the fonts that `texts` are set in, small ones; `PageSetter` reads them there."""
    target.mkdir(parents=True, exist_ok=True)
    texts = list(texts)
    for weight in WEIGHTS.values():
        latin = source / f"{typeface.latin}-{weight}.ttf"
        made = target / f"{weight}.ttf"
        if typeface.khmer:
            write_syllable_font(source / f"{typeface.khmer}-{weight}.ttf", latin, made, texts)
        else:
            _reduce_font(latin, made, texts)


def _reduce_font(source: Path, target: Path, texts: Iterable[str]) -> None:
    font = TTFont(source, recalcTimestamp=False)
    reduced = subset.Subsetter(subset.Options(layout_features=[], hinting=False))
    reduced.populate(text="".join(sorted({character for text in texts for character in text} | {" "})))
    reduced.subset(font)
    font.save(target)


class PageSetter:
    """Sets one document; `add` returns the page, from 1, on which the whole paragraph stands."""

    def __init__(self, title: str, typeface: Typeface, fonts: Path) -> None:
        self._typeface = typeface
        self._pdf = FPDF(unit="pt", format=PAGE_POINTS)
        self._pdf.set_creation_date(CREATION_DATE)
        self._pdf.set_title(title)
        self._pdf.set_margin(MARGIN_POINTS)
        self._pdf.set_auto_page_break(False)
        self._pdf.c_margin = 0
        for style, weight in WEIGHTS.items():
            self._pdf.add_font("text", style, fonts / f"{weight}.ttf")
        if typeface.khmer:
            # Not as Khmer: the syllables are ligatures of this font, in the order of the characters.
            self._pdf.set_text_shaping(True, script="Latn")
        self._pdf.add_page()
        self._widths: dict[tuple[str, str], float] = {}

    def add(self, paragraph: Paragraph) -> int:
        """Set a paragraph, a title in bold, on a new page where it does not fit whole below the others."""
        pdf, leading = self._pdf, self._typeface.leading
        style = "B" if paragraph.is_title else ""
        pdf.set_font("text", style, self._typeface.size)
        lines = break_lines(paragraph.text, pdf.epw, lambda text: self._width(style, text))
        if pdf.y > MARGIN_POINTS and pdf.y + leading * len(lines) > PAGE_POINTS[1] - MARGIN_POINTS:
            pdf.add_page()
        for line in lines:
            pdf.cell(None, leading, line, new_x="LMARGIN", new_y="NEXT")
        pdf.ln(PARAGRAPH_GAP_POINTS)
        return pdf.page_no()

    def _width(self, style: str, text: str) -> float:
        if (style, text) not in self._widths:
            self._widths[style, text] = self._pdf.get_string_width(text)
        return self._widths[style, text]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._pdf.output(str(path))


def break_lines(text: str, width: float, measure: Callable[[str], float]) -> list[str]:
    """Break a text into lines no wider than `width`: after spaces and U+200B, else between syllables."""
    lines, line, used = [], "", 0.0
    for word in _words(text):
        for part in [word] if measure(word.rstrip()) <= width else syllables(word):
            if line and used + measure(part.rstrip()) > width:
                lines.append(line)
                line, used = "", 0.0
            line += part
            used += measure(part)
    return [kept for line in [*lines, line] if (kept := line.strip(f" {ZERO_WIDTH_SPACE}"))]


def _words(text: str) -> Iterator[str]:
    """Cut after every space and U+200B, but not before a sign that no line begins with."""
    start = 0
    for position in range(1, len(text)):
        if text[position - 1] in (" ", ZERO_WIDTH_SPACE) and text[position] not in KHMER_SIGNS:
            yield text[start:position]
            start = position
    yield text[start:]


def check_text_layer(path: Path, texts: Sequence[str]) -> None:
    """Raise ValueError unless pdfium finds in a PDF exactly these texts, but for white space and U+200B."""
    document = pypdfium2.PdfDocument(path)
    try:
        pages = [page.get_textpage().get_text_bounded() for page in document]
        found = _without_space("".join(pages).replace(_PDFIUM_HYPHEN, "-"))
    finally:
        document.close()
    expected = _without_space("".join(texts))
    if found != expected:
        place = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), -20)
        raise ValueError(
            f"{path}: the text layer is not the text that was set: {found[place : place + 20]!r} where "
            f"{expected[place : place + 20]!r} should be; a library that writes or reads PDFs has changed"
        )


def _without_space(text: str) -> str:
    return "".join(clean_text(text).split()).replace(ZERO_WIDTH_SPACE, "")


def write_page_images(path: Path, folder: Path) -> None:
    """Render the pages of `name.pdf` as 8-bit grey `name-<page>.png` below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    document = pypdfium2.PdfDocument(path)
    try:
        for number, page in enumerate(document, start=1):
            image = page.render(scale=IMAGE_DOTS_PER_INCH / 72, grayscale=True).to_pil().convert("L")
            image.save(folder / image_name(path.name, number))
    finally:
        document.close()


def image_name(document: str, page: int) -> str:
    """Return the file name of one page's image."""
    return f"{Path(document).stem}-{page:03d}.png"
