"""Build the sample documents: LibreOffice help topics as ordinary multi-page PDFs with a text layer.

The text comes from two Debian packages (MPL-2.0) and the typeface, Noto Sans Mono, from a third (OFL);
only paragraphs that are really translated are kept:

    apt-get download libreoffice-help-en-us libreoffice-help-vi fonts-noto-mono
    for package in *.deb; do dpkg-deb -x "$package" unpacked; done
    python -m data_prep.sample_documents.build --packages unpacked --output data_prep/sample_documents

writes `vi/` (the target language) and `en/` (the base language: replay and the measure of forgetting).
`--base-corpus DIR` writes instead every English topic that is *not* in the sample: the pages that
`lco bootstrap` trains the base on, so that nothing it is later tested on has been seen.
"""

import argparse
import datetime
import hashlib
import re
import shutil
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from fontTools.ttLib import TTFont
from fpdf import FPDF

# At 96 dpi a line is 16 px high and two characters are 16 px wide: one visual token of the tiny model.
FONT_POINTS = 10.0
LEADING_POINTS = 12.0
PARAGRAPH_GAP_POINTS = 7.5
MARGIN_POINTS = 27.0
PAGE_POINTS = (298.5, 420.0)  # A6
SAMPLE_TOPICS = {"vi": 420, "en": 200}
TOPICS_PER_SAMPLE_DOCUMENT = 6
TOPICS_PER_BASE_DOCUMENT = 16
LONGEST_PARAGRAPH = 400  # characters; longer ones are enumerations without sentence structure
CREATION_DATE = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    identity: str  # the help system's paragraph id, equal in all languages
    is_title: bool
    text: str


class _ParagraphParser(HTMLParser):
    """Collects the paragraphs of one help topic that carry a translation id."""

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: list[Paragraph] = []
        self._open: tuple[str, str] | None = None
        self._text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        identity = dict(attrs).get("id") or ""
        if re.fullmatch(r"p|h[1-6]", tag) and identity.startswith(("par_id", "hd_id")):
            self._open, self._text = (tag, identity), []

    def handle_endtag(self, tag: str) -> None:
        if self._open and tag == self._open[0]:
            text = unicodedata.normalize("NFC", "".join(self._text))
            text = " ".join(re.sub(r"\\[nt]", " ", text).split())
            if text:
                self.paragraphs.append(Paragraph(identity=self._open[1], is_title=tag == "h1", text=text))
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open:
            self._text.append(data)


def read_topics(help_root: Path, language: str) -> dict[str, list[Paragraph]]:
    """Return {topic path: paragraphs} of one language's help, in sorted order."""
    text_root = help_root / language / "text"
    if not text_root.is_dir():
        raise FileNotFoundError(f"{text_root} not found: unpack the Debian package of {language!r} first")
    topics = {}
    for path in sorted(text_root.rglob("*.html")):
        parser = _ParagraphParser()
        parser.feed(path.read_text(encoding="utf-8"))
        topics[path.relative_to(text_root).as_posix()] = parser.paragraphs
    return topics


def keep_distinct(
    topics: dict[str, list[Paragraph]], *, printable: set[str], drop: frozenset[str] = frozenset()
) -> dict[str, list[Paragraph]]:
    """Keep each text once in the whole corpus, and topics that still have three paragraphs or more."""
    seen = set(drop)
    kept = {}
    for topic, paragraphs in topics.items():
        distinct = []
        for paragraph in paragraphs:
            text = paragraph.text
            if text in seen or not 4 <= len(text) <= LONGEST_PARAGRAPH or not set(text) <= printable:
                continue
            seen.add(text)
            distinct.append(paragraph)
        if len(distinct) >= 3:
            kept[topic] = distinct
    return kept


def sample_topics(topics: dict[str, list[Paragraph]], count: int) -> list[str]:
    """Return `count` topics, chosen by the digest of their path: the same in every run and language."""
    by_digest = sorted(topics, key=lambda topic: hashlib.sha256(topic.encode()).hexdigest())
    return sorted(by_digest[:count])


def chapters(topics: list[str], topics_per_document: int) -> Iterator[tuple[str, list[str]]]:
    """Group neighbouring topics of one help folder into documents."""
    folders: dict[str, list[str]] = {}
    for topic in topics:
        folders.setdefault(topic.split("/")[0], []).append(topic)
    for folder, members in folders.items():
        for number, start in enumerate(range(0, len(members), topics_per_document), start=1):
            yield f"{folder}-{number:03d}", members[start : start + topics_per_document]


def write_pdf(path: Path, title: str, topics: list[list[Paragraph]], fonts: Path) -> int:
    """Set one document; a topic's title is bold. Returns the number of pages."""
    pdf = FPDF(unit="pt", format=PAGE_POINTS)
    pdf.set_creation_date(CREATION_DATE)
    pdf.set_title(title)
    pdf.add_font("mono", "", fonts / "NotoSansMono-Regular.ttf")
    pdf.add_font("mono", "B", fonts / "NotoSansMono-Bold.ttf")
    pdf.set_margin(MARGIN_POINTS)
    pdf.set_auto_page_break(True, margin=MARGIN_POINTS)
    pdf.c_margin = 0
    pdf.add_page()
    for paragraphs in topics:
        for paragraph in paragraphs:
            pdf.set_font("mono", "B" if paragraph.is_title else "", FONT_POINTS)
            pdf.multi_cell(0, LEADING_POINTS, paragraph.text, align="L", new_x="LMARGIN", new_y="NEXT")
            pdf.ln(PARAGRAPH_GAP_POINTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    pdf.output(str(path))
    return pdf.pages_count


def printable_characters(fonts: Path) -> set[str]:
    """Characters that the sample's typeface can draw."""
    return {chr(code) for code in TTFont(fonts / "NotoSansMono-Regular.ttf").getBestCmap()}


def write_corpus(
    folder: Path, topics: dict[str, list[Paragraph]], names: list[str], topics_per_document: int, fonts: Path
) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    pages = documents = 0
    for title, members in chapters(names, topics_per_document):
        pages += write_pdf(folder / f"{title}.pdf", title, [topics[name] for name in members], fonts)
        documents += 1
    size = sum(path.stat().st_size for path in folder.glob("*.pdf"))
    print(f"{folder}: {documents} documents, {pages} pages, {size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, required=True, help="where the Debian packages are unpacked")
    parser.add_argument("--output", type=Path, help="folder that receives en/ and vi/")
    parser.add_argument("--base-corpus", type=Path, help="folder that receives the base's English pages")
    arguments = parser.parse_args()

    help_root = arguments.packages / "usr/share/libreoffice/help"
    fonts = arguments.packages / "usr/share/fonts/truetype/noto"
    printable = printable_characters(fonts)
    english_topics = read_topics(help_root, "en-US")
    english = keep_distinct(english_topics, printable=printable)
    english_sample = sample_topics(english, SAMPLE_TOPICS["en"])
    if arguments.base_corpus:
        sampled = set(english_sample)
        rest = [topic for topic in english if topic not in sampled]
        write_corpus(arguments.base_corpus, english, rest, TOPICS_PER_BASE_DOCUMENT, fonts)
    if arguments.output:
        untranslated = frozenset(p.text for paragraphs in english_topics.values() for p in paragraphs)
        topics = read_topics(help_root, "vi")
        vietnamese = keep_distinct(topics, printable=printable, drop=untranslated)
        vietnamese_sample = sample_topics(vietnamese, SAMPLE_TOPICS["vi"])
        per_document = TOPICS_PER_SAMPLE_DOCUMENT
        write_corpus(arguments.output / "en", english, english_sample, per_document, fonts)
        write_corpus(arguments.output / "vi", vietnamese, vietnamese_sample, per_document, fonts)


if __name__ == "__main__":
    main()
