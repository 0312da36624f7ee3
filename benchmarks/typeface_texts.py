"""The texts of benchmarks.typeface_documents: paragraphs and lines of code of English documentation.

All from Debian packages, each under its package's licence: LibreOffice help MPL-2.0; policy, git, aptitude
and other texts of Debian GPL; Python PSF; PostgreSQL, Vim and zsh their own; Perl Artistic or GPL; httpd
Apache-2.0; SQLite, the jargon file and the Devil's Dictionary public domain; Django BSD; the anarchist FAQ,
FOLDOC and Gnumeric GFDL; GNOME help CC-BY-SA; Rust MIT or Apache-2.0.
"""

import gzip
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from benchmarks.libreoffice_help import keep_distinct, read_topics
from benchmarks.sample_documents import SAMPLE_TOPICS, sample_topics
from benchmarks.seahelp_pages import LATIN, printable_characters
from benchmarks.typeface_fonts import LETTERS

SOURCES = {
    "debian-policy": "usr/share/doc/debian-policy/policy.html/*.html",
    "doc-debian": "usr/share/doc/debian/*.txt.gz",
    "debian-faq": "usr/share/doc/debian/FAQ/*.en.html",
    "aptitude-doc-en": "usr/share/doc/aptitude/html/en/*.html",
    "git-doc": "usr/share/doc/git-doc/**/*.html",
    "python3.11-doc": "usr/share/doc/python3.11/html/*/*.html",
    "postgresql-doc-15": "usr/share/doc/postgresql-doc-15/html/*.html",
    "perl-doc": "usr/share/perl/*/pod/*.pod",
    "developers-reference": "usr/share/developers-reference/*.html",
    "maint-guide": "usr/share/doc/maint-guide/html/*.en.html",
    "apache2-doc": "usr/share/doc/apache2-doc/manual/en/**/*.html",
    "sqlite3-doc": "usr/share/doc/sqlite3/*.html",
    "vim-doc": "usr/share/doc/vim/html/usr_*.html",
    "python-django-doc": "usr/share/doc/python-django-doc/html/[rth]*/**/*.html",
    "jargon-text": "usr/share/doc/jargon-text/*.txt.gz",
    "dict-devil": "usr/share/dictd/devil.dict.dz",
    "dict-foldoc": "usr/share/dictd/foldoc.dict.dz",
    "anarchism": "usr/share/doc/anarchism/html/*.html",
    "gnome-user-docs": "usr/share/help/C/gnome-help/*.page",
    "rust-doc": "usr/share/doc/rust-doc/html/[bren]*/**/*.html",
    "zsh-doc": "usr/share/doc/zsh-common/html/*.html",
    "installation-guide-amd64": "usr/share/doc/installation-guide-amd64/en/*.html",
    "gnumeric-doc": "usr/share/help/C/gnumeric/*.xml",
}
HELD_OUT_SOURCES = ("developers-reference",)
"""Only in the test folders, whole; of every other source one file in twenty, by its digest."""
_HELD_OUT_SHARE = 0.05
_MOST_CHARACTERS = 2_500_000  # of one source: none of them outweighs the others
_BLOCKS = ("p", "li", "dt", "dd", "td", "th", "h1", "h2", "h3", "h4", "title", "para", "entry", "caption")
_SKIPPED = ("script", "style", "nav", "head", "info", "form")
_REPLACED = {
    "\xa0": " ",
    "\u2010": "-",
    "\u2011": "-",
    "\u2212": "-",
    "\u2192": "->",
    "\u200b": "",
    "\xad": "",
}


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What documents are set from."""

    paragraphs: list[str]
    code: list[str]
    """Lines, with the white space inside them."""


def read_texts(packages: Path) -> tuple[Texts, Texts]:
    """Return the texts to train on and those that are only ever tested, without a paragraph in common.

    Raises:
        FileNotFoundError: a package of SOURCES is not unpacked below `packages`.
    """
    sampled, help_texts = _help_texts(packages)
    files = [(f"libreoffice-help/{name}", found) for name, found in help_texts.items()]
    for package, pattern in SOURCES.items():
        files.extend(_files_of(packages, package, pattern))
    paragraphs: dict[bool, dict[str, None]] = {False: {}, True: {}}
    code: dict[bool, dict[str, None]] = {False: {}, True: {}}
    for name, (prose, lines) in files:
        tested = is_held_out(name)
        paragraphs[tested].update(dict.fromkeys(text for text in prose if text not in sampled))
        code[tested].update(dict.fromkeys(lines))
    train, test = (
        Texts(
            paragraphs=[text for text in paragraphs[tested] if tested or text not in paragraphs[True]],
            code=[line for line in code[tested] if tested or line not in code[True]],
        )
        for tested in (False, True)
    )
    return train, test


def is_held_out(name: str) -> bool:
    """Whether a file, named `source/path`, is kept for the test folders."""
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32
    return name.split("/")[0] in HELD_OUT_SOURCES or share < _HELD_OUT_SHARE


def _help_texts(packages: Path) -> tuple[set[str], dict[str, tuple[list[str], list[str]]]]:
    """Return every text of the sample documents' topics, and those of the other topics by topic."""
    topics = read_topics(packages, "en-US")
    printable = printable_characters(LATIN, packages / "usr/share/fonts/truetype/noto")
    kept = keep_distinct(topics, printable=printable)
    sample = set(sample_topics(kept, SAMPLE_TOPICS["en"]))
    sampled = {clean(p.text) for name in sample for p in topics[name]}
    others = {name: [p.text for p in texts] for name, texts in kept.items() if name not in sample}
    return sampled, {name: ([*_cleaned(texts)], []) for name, texts in others.items()}


def _files_of(
    packages: Path, package: str, pattern: str
) -> Iterator[tuple[str, tuple[list[str], list[str]]]]:
    paths = sorted(packages.glob(pattern), key=lambda path: hashlib.sha256(path.name.encode()).digest())
    if not paths:
        raise FileNotFoundError(f"{packages / pattern} not found: unpack {package} there first")
    characters = 0
    for path in paths:
        if characters > _MOST_CHARACTERS:
            break
        raw = gzip.decompress(path.read_bytes()) if path.suffix in (".gz", ".dz") else path.read_bytes()
        reader = _READERS.get(path.suffix, _read_plain)
        prose, code = reader(raw.decode("utf-8", errors="replace"))
        found = ([*_cleaned(prose)], [line for line in map(_clean_code, code) if line])
        characters += sum(map(len, found[0]))
        yield f"{package}/{path.relative_to(packages).as_posix()}", found


def clean(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    for one, other in _REPLACED.items():
        text = text.replace(one, other)
    return " ".join(text.split())


def _cleaned(texts: Iterable[str]) -> Iterator[str]:
    for text in map(clean, texts):
        text = text.removesuffix("¶").rstrip()
        letters = sum(character.isalpha() for character in text)
        if 4 <= len(text) <= 4000 and letters > 0.5 * len(text) and set(text) <= set(LETTERS):
            yield text


def _clean_code(line: str) -> str:
    line = line.expandtabs(4).replace("\xa0", " ").rstrip()
    return line if 4 <= len(line.strip()) <= 110 and set(line) <= set(LETTERS) else ""


class _Blocks(HTMLParser):
    """Collects the text of each block that has no other inside, and the lines of `pre`."""

    def __init__(self) -> None:
        super().__init__()
        self.prose: list[str] = []
        self.code: list[str] = []
        self._text: list[str] = []
        self._skipped = self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SKIPPED:
            self._skipped += 1
        elif tag in _BLOCKS or tag in ("pre", "div", "ul", "table"):
            self._end_block()
            self._pre += tag == "pre"
        elif tag == "br":
            self._text.append("\n" if self._pre else " ")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SKIPPED:
            self._skipped = max(0, self._skipped - 1)
        elif tag in _BLOCKS or tag in ("pre", "div", "ul", "table"):
            self._end_block()
            self._pre = max(0, self._pre - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._text.append(data)

    def _end_block(self) -> None:
        text, self._text = "".join(self._text), []
        if self._pre:
            self.code.extend(text.split("\n"))
        elif text.strip():
            self.prose.append(text)


def _read_html(text: str) -> tuple[list[str], list[str]]:
    parser = _Blocks()
    parser.feed(text)
    parser.close()
    return parser.prose, parser.code


def _read_pod(text: str) -> tuple[list[str], list[str]]:
    for _ in range(2):  # one inside another
        text = re.sub(r"[BCFILSX]<(?:<+ )?([^<>]*?)(?: >+)?>", lambda found: found[1].split("|")[0], text)
    blocks = [block for block in re.split(r"\n\s*\n", text) if not block.startswith(("=", "#"))]
    return [b for b in blocks if b[:1] != " "], [
        line for b in blocks if b[:1] == " " for line in b.split("\n")
    ]


def _read_plain(text: str) -> tuple[list[str], list[str]]:
    """Read a plain text, or a list of sayings with a percent sign between them."""
    blocks = re.split(r"\n\s*\n|\n%\n", text.replace("{", "").replace("}", ""))
    return [block for block in blocks if not re.search(r"\S {3,}\S|[_=*-]{4}", block)], []


_READERS: dict[str, Callable[[str], tuple[list[str], list[str]]]] = {
    ".html": _read_html,
    ".page": _read_html,
    ".xml": _read_html,
    ".pod": _read_pod,
}
