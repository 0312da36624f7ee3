"""What depends on the script that text is written in: spaces, direction, and whether it is text at all."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate, groupby

from data_prep.plain_text import UNKNOWN

# Scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Chinese and Japanese with their
# signs.
_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u109f\u1780-\u17ff\u2e80-\u312f\u31a0-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff01-\uffef"
)
_UNSPACED_ENDS = re.compile(f"[{_UNSPACED}\U00020000-\U0003ffff]")
# Digits are read from the left there too.
_RIGHT_TO_LEFT = re.compile("[\u0590-\u065f\u066d-\u06ef\u06fa-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_BRACKETS = {"(": ")", "[": "]", "{": "}", "«": "»", "‹": "›", "<": ">"}
_MIRRORED = str.maketrans(_BRACKETS | {closed: opened for opened, closed in _BRACKETS.items()})
_ACCENTS = {
    "\u00a8": "\u0308", "\u00b4": "\u0301", "\u02c6": "\u0302", "\u02dc": "\u0303", "\u02c7": "\u030c",
    "\u02d9": "\u0307", "\u02da": "\u030a", "\u02d8": "\u0306", "\u02dd": "\u030b", "\u00af": "\u0304",
    "\u00b8": "\u0327", "\u02db": "\u0328",
}  # fmt: skip
_DOTLESS = {"ı": "i", "ȷ": "j"}
_APART = re.compile(
    r"([\u00a8\u00af\u00b4\u02c6\u02c7\u02d8\u02d9\u02da\u02dc\u02dd])(\w)|(\w)([\u00b8\u02db])"
)
# How the names of their letters begin.
_SCRIPTS = {
    "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC", "SYRIAC", "THAANA", "DEVANAGARI",
    "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA",
    "THAI", "LAO", "TIBETAN", "MYANMAR", "GEORGIAN", "ETHIOPIC", "CHEROKEE", "CANADIAN", "OGHAM",
    "RUNIC", "KHMER", "MONGOLIAN", "CJK", "YI", "GLAGOLITIC", "COPTIC", "BALINESE", "JAVANESE",
}  # fmt: skip
_EAST_ASIAN = ("HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "HALFWIDTH", "IDEOGRAPHIC")
_MOST_SCRIPTS_OF_A_WORD = 2  # a unit such as kΩ or a name with a foreign ending has two


def space_within_unspaced(before: str, after: str) -> float | None:
    """Return the gap, of the type size, beyond which there is a space between two words of a line, whether or
    not the file has one there; None where that counts.
    """
    if before[-1] < "\u0e00" or after[0] < "\u0e00":  # the first of the unspaced scripts
        return None
    is_unspaced = _UNSPACED_ENDS.match(before[-1]) and _UNSPACED_ENDS.match(after[0])
    return 0.5 if is_unspaced and not _is_thai_like(after[0]) else 0.1


def _is_thai_like(character: str) -> bool:
    """Of a script that has no spaces between words, but some between phrases, as narrow as any."""
    return "\u0e00" <= character <= "\u17ff"


def is_accent(text: str) -> bool:
    """Whether it is an accent that is printed apart, over a letter."""
    return text in _ACCENTS and text not in "\u00b8\u02db"


def with_joined_accents(text: str) -> str:
    """Return `text` with accents that are printed apart, before or below their letters, as part of them."""
    return text if text.isascii() else _APART.sub(_joined_accent, text)


def _joined_accent(found: re.Match) -> str:
    accent, letter = (found[1], found[2]) if found[1] else (found[4], found[3])
    whole = unicodedata.normalize("NFC", _DOTLESS.get(letter, letter) + _ACCENTS[accent])
    return whole if len(whole) == 1 else found[0]


def is_east_asian(character: str) -> bool:
    """Of a script that is also written in columns."""
    return bool(_UNSPACED_ENDS.match(character)) and not _is_thai_like(character)


def joined_lines(texts: Sequence[str]) -> str:
    """Return the text of lines below each other: no space where a line ends inside a word of an unspaced
    script.
    """
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


def in_reading_order(texts: Sequence[str], is_spaced: Sequence[bool], from_the_right: bool) -> str:
    """Return the text of words that stand from left to right, as their line is read.

    Neighbours that go the other way (numbers and names in a line read from the right) keep their own order.

    Args:
        is_spaced: whether there is a space between each word and the next one.
    """
    spaces = [" " if space else "" for space in is_spaced]
    goes_along = _go_along(texts, is_spaced, from_the_right)
    text = ""
    # Of numbers side by side each is a run of its own.
    are_numbers = [not any(map(str.isalpha, text)) for text in texts]
    parted = [a and b and space for a, b, space in zip(are_numbers, are_numbers[1:], is_spaced, strict=False)]
    number_of_run = list(accumulate([0, *(from_the_right and one for one in parted)]))
    keys = list(zip(goes_along, number_of_run, strict=True))
    runs = [list(run) for _, run in groupby(range(len(texts)), key=keys.__getitem__)]
    for run in reversed(runs) if from_the_right else runs:
        if text:  # what parts a run from the one that was read before it
            text += spaces[run[-1] if from_the_right else run[0] - 1]
        step = -1 if goes_along[run[0]] == from_the_right else 1
        text += texts[run[::step][0]]
        for place in run[::step][1:]:
            text += spaces[place if step < 0 else place - 1] + texts[place]
    return text


def _go_along(texts: Sequence[str], is_spaced: Sequence[bool], from_the_right: bool) -> list[bool]:
    """Return whether each word goes the way of its line; a sign within a foreign word goes with it."""
    signs = [from_the_right and not any(map(str.isalnum, text)) for text in texts]
    along = [is_right_to_left(text) == from_the_right for text in texts]
    for place in range(len(texts)):
        if signs[place]:
            is_within = 0 < place < len(texts) - 1 and not (is_spaced[place - 1] or is_spaced[place])
            is_foreign = is_within and not (along[place - 1] or along[place + 1] or signs[place + 1])
            along[place] = not is_foreign
    return along


def turn_brackets(text: str) -> str:
    return text.translate(_MIRRORED)


def brackets_are_turned(lines: Iterable[str]) -> bool:
    """Whether the brackets of a page's right-to-left lines make more pairs when they are turned.

    Some files name the bracket that is printed, others the one that is meant, and pdfium turns both.
    """
    text = " ".join(line for line in lines if is_right_to_left(line))
    return _pairs(text) < _pairs(turn_brackets(text))


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
    return sum(text.count(character) for character in set(text) if _is_unknown(character))


def without_unknown(text: str) -> str:
    """Return `text` without the characters that nobody knows."""
    return "".join(character for character in text if not _is_unknown(character))


@cache
def _is_unknown(character: str) -> bool:
    return character in (UNKNOWN, "\ufffd") or unicodedata.category(character) in ("Cc", "Co", "Cn")


def is_no_word(word: str) -> bool:
    """Whether a word has letters of more scripts than any word of a language, or pictures for letters."""
    if word.isascii():
        return False
    if len({_script(character) for character in word} - {None}) > _MOST_SCRIPTS_OF_A_WORD:
        return True
    pictures = [character for character in word if unicodedata.category(character) == "So"]
    return len(set(pictures)) > 2 and 2 * len(pictures) > len(word)


@cache
def _script(character: str) -> str | None:
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "").split(" ")[0]
    if name in _EAST_ASIAN:
        return "CJK"
    return name if name in _SCRIPTS else None
