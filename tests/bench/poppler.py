"""What poppler's `pdftotext` reads in a PDF, and one form of words in which two readers are compared."""

import re
import subprocess
import unicodedata
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import unescape
from pathlib import Path

SECONDS = 600  # for one document
SEEN_SHARE = 0.8
_WORD = re.compile(r'<word xMin="(\S+)" yMin="(\S+)" xMax="(\S+)" yMax="(\S+)">(.*?)</word>', re.DOTALL)
_PLACES = re.compile(rf"<(page|line)[^>]*>|{_WORD.pattern}", re.DOTALL)
_WITHOUT_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_DIVIDED = re.compile(r"(\w+)[-\u00ad\u2010] (\w+)")
_WORDS = re.compile(rf"[{_WITHOUT_SPACES}]|[^{_WITHOUT_SPACES}\s]+")


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word as poppler places it, in points from the upper left of the page as displayed."""

    text: str  # its letters and digits
    left: float
    top: float
    right: float
    bottom: float

    @cached_property
    def is_right_to_left(self) -> bool:
        return any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in self.text)

    def is_within(self, box: Sequence[float]) -> bool:
        """Whether a crop of this box (left, top, right, bottom) shows it."""
        left, top, right, bottom = box
        seen = min(right, self.right) - max(left, self.left)
        quarter = (self.bottom - self.top) / 4
        return (
            seen >= SEEN_SHARE * (self.right - self.left)
            and top <= self.top + quarter
            and bottom >= self.bottom - quarter
        )


def bare(text: str) -> str:
    """Return the letters and digits of a text in one form, without marks: some fonts print them apart."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    kinds = zip(folded, map(unicodedata.category, folded), strict=True)
    return "".join(one for one, kind in kinds if kind[0] in "LN" and kind != "Lm")


def words_of(text: str) -> Iterator[str]:
    """Yield the words of a text in their one form."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    split = "".join(
        one if (kind := unicodedata.category(one))[0] in "LMN" else "" if kind == "Cf" else " "
        for one in folded
    )
    yield from _WORDS.findall(split)


def rejoined(text: str, words: Container[str]) -> str:
    """Return the text with a word that a line's end divides in one, where that is among `words`."""

    def one(found: re.Match[str]) -> str:
        whole = found[1] + found[2]
        return whole if "".join(words_of(whole)) in words else found[0]

    return _DIVIDED.sub(one, text)


def poppler_texts(path: Path) -> list[str]:
    """Return the text of every page."""
    return _pdftotext(path).split("\f")[:-1]


def poppler_lines(path: Path) -> list[list[list[Word]]]:
    """Return the lines of every page, as words; a word without letters and digits is left out."""
    pages: list[list[list[Word]]] = []
    for found in _PLACES.finditer(_pdftotext(path, "-bbox-layout")):
        if found[1] == "page":
            pages.append([])
        elif found[1] == "line":
            pages[-1].append([])
        elif text := bare(unescape(found[6])):
            left, top, right, bottom = (float(found[number]) for number in (2, 3, 4, 5))
            pages[-1][-1].append(Word(text=text, left=left, top=top, right=right, bottom=bottom))
    return pages


def _pdftotext(path: Path, *options: str) -> str:
    command = ["pdftotext", "-q", "-cropbox", "-enc", "UTF-8", *options, str(path), "-"]
    done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
    return done.stdout.decode(errors="replace")
