"""What depends on the script that text is written in: spaces, direction, and whether it is text at all."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby

from data_prep.plain_text import UNKNOWN

# Scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Chinese and Japanese with their
# signs.
_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u109f\u1780-\u17ff\u2e80-\u312f\u31a0-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff01-\uffef"
)
_UNSPACED_ENDS = re.compile(f"[{_UNSPACED}\U00020000-\U0003ffff]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_BRACKETS = {"(": ")", "[": "]", "{": "}", "«": "»", "‹": "›", "<": ">"}
_MIRRORED = str.maketrans(_BRACKETS | {closed: opened for opened, closed in _BRACKETS.items()})
# How the names of their letters begin.
_SCRIPTS = {
    "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC", "SYRIAC", "THAANA", "DEVANAGARI",
    "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA",
    "THAI", "LAO", "TIBETAN", "MYANMAR", "GEORGIAN", "ETHIOPIC", "CHEROKEE", "CANADIAN", "OGHAM",
    "RUNIC", "KHMER", "MONGOLIAN", "CJK", "YI", "GLAGOLITIC", "COPTIC", "BALINESE", "JAVANESE",
}  # fmt: skip
_EAST_ASIAN = ("HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "HALFWIDTH", "IDEOGRAPHIC")
_MOST_SCRIPTS_OF_A_WORD = 2  # a unit such as kΩ or a name with a foreign ending has two


def needs_space(before: str, after: str, gap: float) -> bool:
    """Whether there is a space between two words on a line. `gap`: what parts them, of the type size."""
    if before[-1] < "\u0e00" or after[0] < "\u0e00":  # the first of the unspaced scripts
        return gap > 0.1
    is_unspaced = _UNSPACED_ENDS.match(before[-1]) and _UNSPACED_ENDS.match(after[0])
    return gap > (0.5 if is_unspaced and not _is_thai_like(after[0]) else 0.1)


def _is_thai_like(character: str) -> bool:
    """Of a script that has no spaces between words, but some between phrases, as narrow as any."""
    return "\u0e00" <= character <= "\u17ff"


def is_east_asian(character: str) -> bool:
    """Of a script that is also written in columns."""
    return bool(_UNSPACED_ENDS.match(character)) and not _is_thai_like(character)


def joined_lines(texts: Sequence[str]) -> str:
    """Return the text of lines below each other: no space where a line ends inside a word of an unspaced
    script."""
    text = ""
    for line in texts:
        inside = text and line and _UNSPACED_ENDS.match(text[-1]) and _UNSPACED_ENDS.match(line[0])
        text += line if inside or not text or not line else f" {line}"
    return text


def is_right_to_left(text: str) -> bool:
    """Whether it has a letter of a script that is read from the right."""
    return not text.isascii() and bool(_RIGHT_TO_LEFT.search(text))


def goes_right_to_left(texts: Iterable[str]) -> bool:
    """Whether most letters are read from the right."""
    letters = "".join(texts)
    if not is_right_to_left(letters):
        return False
    found = len(_RIGHT_TO_LEFT.findall(letters))
    return 2 * found > sum(map(str.isalpha, letters))


def in_reading_order(texts: Sequence[str], from_the_right: bool) -> list[int]:
    """Return places of words that stand from left to right, as their line is read.

    Neighbours that go the other way (numbers and names in a line read from the right) keep their own order.
    """

    def goes_along(place: int) -> bool:
        if from_the_right and not any(map(str.isalnum, texts[place])):
            return True
        return is_right_to_left(texts[place]) == from_the_right

    along = range(len(texts))[:: -1 if from_the_right else 1]
    runs = [(is_along, list(run)) for is_along, run in groupby(along, key=goes_along)]
    return [place for is_along, run in runs for place in (run if is_along else run[::-1])]


def turn_brackets(text: str) -> str:
    return text.translate(_MIRRORED)


def brackets_are_turned(lines: Iterable[str]) -> bool:
    """Whether the brackets of a page's right-to-left lines make more pairs when they are turned.

    Some files name the bracket that is printed, others the one that is meant, and pdfium turns both.
    """
    texts = [line for line in lines if is_right_to_left(line)]
    return sum(map(_pairs, texts)) < sum(_pairs(turn_brackets(text)) for text in texts)


def _pairs(text: str) -> int:
    """How many brackets are closed behind where they are opened."""
    opened: list[str] = []
    pairs = 0
    for character in text:
        if character in _BRACKETS:
            opened.append(_BRACKETS[character])
        elif opened and character == opened[-1]:
            opened.pop()
            pairs += 1
    return pairs


# Whether it is text


def unknown_characters(text: str) -> int:
    """How many of its characters nobody knows: without one, private, for control, in no script."""
    if text.isascii() and text.isprintable():
        return 0
    return sum(map(_is_unknown, text))


@cache
def _is_unknown(character: str) -> bool:
    return character in (UNKNOWN, "\ufffd") or unicodedata.category(character) in ("Cc", "Co", "Cn")


def mixes_scripts(word: str) -> bool:
    """Whether a word has letters of more scripts than any word of a language."""
    if word.isascii():
        return False
    return len({_script(character) for character in word} - {None}) > _MOST_SCRIPTS_OF_A_WORD


@cache
def _script(character: str) -> str | None:
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "").split(" ")[0]
    if name in _EAST_ASIAN:
        return "CJK"
    return name if name in _SCRIPTS else None
