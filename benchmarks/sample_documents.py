"""Build the sample documents: LibreOffice help topics as ordinary multi-page PDFs with a text layer.

The text comes from two Debian packages (MPL-2.0) and the typeface, Noto Sans Mono, from a third (OFL);
only paragraphs that are really translated are kept:

    apt-get download libreoffice-help-en-us libreoffice-help-vi fonts-noto-mono
    for package in *.deb; do dpkg-deb -x "$package" unpacked; done
    python -m benchmarks.sample_documents --packages unpacked --output data_prep/sample_documents

writes `vi/` (the target language) and `en/` (the base language: replay and the measure of forgetting).
Folders that exist are never overwritten: remove them first.
"""

import argparse
import hashlib
from pathlib import Path

from fpdf import FPDF

from benchmarks.libreoffice_help import FONT_FOLDER, Paragraph, chapters, keep_distinct, read_topics
from benchmarks.seahelp_pages import (
    CREATION_DATE,
    LATIN,
    MARGIN_POINTS,
    PAGE_POINTS,
    PARAGRAPH_GAP_POINTS,
    printable_characters,
)

SAMPLE_TOPICS = {"vi": 420, "en": 200}
TOPICS_PER_DOCUMENT = 6


def sample_topics(topics: dict[str, list[Paragraph]], count: int) -> list[str]:
    """Return `count` topics, chosen by the digest of their path: the same in every run and language."""
    by_digest = sorted(topics, key=lambda topic: hashlib.sha256(topic.encode()).hexdigest())
    return sorted(by_digest[:count])


def write_pdf(path: Path, title: str, topics: list[list[Paragraph]], fonts: Path) -> int:
    """Set one document; a topic's title is bold. Returns the number of pages."""
    pdf = FPDF(unit="pt", format=PAGE_POINTS)
    pdf.set_creation_date(CREATION_DATE)
    pdf.set_title(title)
    pdf.add_font("mono", "", fonts / f"{LATIN.latin}-Regular.ttf")
    pdf.add_font("mono", "B", fonts / f"{LATIN.latin}-Bold.ttf")
    pdf.set_margin(MARGIN_POINTS)
    pdf.set_auto_page_break(True, margin=MARGIN_POINTS)
    pdf.c_margin = 0
    pdf.add_page()
    for paragraphs in topics:
        for paragraph in paragraphs:
            pdf.set_font("mono", "B" if paragraph.is_title else "", LATIN.size)
            pdf.multi_cell(0, LATIN.leading, paragraph.text, align="L", new_x="LMARGIN", new_y="NEXT")
            pdf.ln(PARAGRAPH_GAP_POINTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    pdf.output(str(path))
    return pdf.pages_count


def write_corpus(folder: Path, topics: dict[str, list[Paragraph]], names: list[str], fonts: Path) -> None:
    """Write one PDF for each chapter of `names`. Raises FileExistsError."""
    if folder.exists():
        raise FileExistsError(f"{folder} exists: remove it first")
    pages = documents = 0
    for title, members in chapters(names, TOPICS_PER_DOCUMENT):
        pages += write_pdf(folder / f"{title}.pdf", title, [topics[name] for name in members], fonts)
        documents += 1
    size = sum(path.stat().st_size for path in folder.glob("*.pdf"))
    print(f"{folder}: {documents} documents, {pages} pages, {size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, required=True, help="where the Debian packages are unpacked")
    parser.add_argument("--output", type=Path, required=True, help="folder that receives en/ and vi/")
    arguments = parser.parse_args()

    fonts = arguments.packages / FONT_FOLDER
    printable = printable_characters(LATIN, fonts)
    english_topics = read_topics(arguments.packages, "en-US")
    english = keep_distinct(english_topics, printable=printable)
    untranslated = frozenset(p.text for paragraphs in english_topics.values() for p in paragraphs)
    topics = read_topics(arguments.packages, "vi")
    vietnamese = keep_distinct(topics, printable=printable, drop=untranslated)
    english_sample = sample_topics(english, SAMPLE_TOPICS["en"])
    vietnamese_sample = sample_topics(vietnamese, SAMPLE_TOPICS["vi"])
    write_corpus(arguments.output / "en", english, english_sample, fonts)
    write_corpus(arguments.output / "vi", vietnamese, vietnamese_sample, fonts)


if __name__ == "__main__":
    main()
