"""The help of LibreOffice, as Debian packages it: topics in many languages, parallel by file and paragraph.

What `benchmarks.sample_documents` and `benchmarks.seahelp` share: reading the topics, choosing
paragraphs and grouping topics into documents.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

HELP_FOLDER = Path("usr/share/libreoffice/help")
FONT_FOLDER = Path("usr/share/fonts/truetype/noto")
LONGEST_PARAGRAPH = 400  # characters; longer ones are enumerations without sentence structure
FEWEST_PARAGRAPHS = 3  # of a topic


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    identity: str  # the help system's paragraph id, equal in all languages
    is_title: bool
    text: str


@dataclass
class _Switch:
    """Wordings of one place for several platforms or applications, of which the browser shows one."""

    depth: int
    """Open spans around it."""
    wordings: list[tuple[bool, list[str]]] = field(default_factory=list)
    """(whether it is the default, its text)."""

    def text(self) -> str:
        """Return the default wording, else the first."""
        chosen = max(self.wordings, key=lambda wording: wording[0], default=(False, []))
        return "".join(chosen[1])


class _ParagraphParser(HTMLParser):
    """Collects the paragraphs of one help topic that carry a translation id."""

    def __init__(self, *, one_wording: bool) -> None:
        super().__init__()
        self.paragraphs: list[Paragraph] = []
        self._one_wording = one_wording
        self._open: tuple[str, str] | None = None
        self._text: list[str] = []
        self._spans = 0
        self._switch: _Switch | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        identity = attributes.get("id") or ""
        if re.fullmatch(r"p|h[1-6]", tag) and identity.startswith(("par_id", "hd_id")):
            self._open, self._text, self._spans, self._switch = (tag, identity), [], 0, None
        elif tag == "span" and self._one_wording:
            if self._switch is None and "switchinline" in (attributes.get("class") or ""):
                self._switch = _Switch(depth=self._spans)
            elif self._switch and self._spans == self._switch.depth + 1:
                self._switch.wordings.append((identity.startswith("default"), []))
            self._spans += 1

    def handle_endtag(self, tag: str) -> None:
        if self._open and tag == self._open[0]:
            text = unicodedata.normalize("NFC", "".join(self._text))
            text = " ".join(re.sub(r"\\[nt]", " ", text).split())
            if text:
                self.paragraphs.append(Paragraph(identity=self._open[1], is_title=tag == "h1", text=text))
            self._open = None
        elif tag == "span" and self._one_wording:
            self._spans -= 1
            if self._switch and self._spans == self._switch.depth:
                self._text.append(self._switch.text())
                self._switch = None

    def handle_data(self, data: str) -> None:
        if self._open and self._switch:
            if self._switch.wordings:
                self._switch.wordings[-1][1].append(data)
        elif self._open:
            self._text.append(data)


def read_topics(packages: Path, language: str, *, one_wording: bool = False) -> dict[str, list[Paragraph]]:
    """Return {topic path: paragraphs} of one language's help, in sorted order.

    `packages`: where the Debian packages are unpacked. `one_wording`: where the text differs by platform or
    application ("Command" or "Ctrl"), keep the default; otherwise all of them follow each other.

    Raises:
        FileNotFoundError: the language's package is not there.
    """
    text_root = packages / HELP_FOLDER / language / "text"
    if not text_root.is_dir():
        raise FileNotFoundError(f"{text_root} not found: unpack the Debian package of {language!r} first")
    topics = {}
    for path in sorted(text_root.rglob("*.html")):
        parser = _ParagraphParser(one_wording=one_wording)
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
        if len(distinct) >= FEWEST_PARAGRAPHS:
            kept[topic] = distinct
    return kept


def chapters(topics: Iterable[str], topics_per_document: int) -> Iterator[tuple[str, list[str]]]:
    """Group neighbouring topics of one help folder into documents."""
    folders: dict[str, list[str]] = {}
    for topic in topics:
        folders.setdefault(topic.split("/")[0], []).append(topic)
    for folder, members in folders.items():
        for number, start in enumerate(range(0, len(members), topics_per_document), start=1):
            yield f"{folder}-{number:03d}", members[start : start + topics_per_document]
