"""What may be shown holds no character that is obeyed, and words are words."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.plain_text import clean_text, escaped

OBEYED = st.sampled_from("\x00\x1b\x85\u00ad\u2028\u202e\u2066\ud83d\ude00e\u0301")
ANY = st.lists(st.one_of(st.characters(), OBEYED)).map(
    "".join
)  # as an alphabet of text they would weigh nothing
TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def is_obeyed(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(character) in TURNS


@given(ANY)
def test_clean_text_is_printed_normal_and_single_spaced(text):
    cleaned = clean_text(text)
    assert not any(map(is_obeyed, cleaned))
    assert (
        cleaned == unicodedata.normalize("NFC", cleaned) == " ".join(cleaned.split()) == clean_text(cleaned)
    )


@given(ANY)
def test_an_escaped_text_is_one_line_and_loses_nothing_else(text):
    shown = escaped(text)
    assert not any(map(is_obeyed, shown)) and len(shown.splitlines()) <= 1
    assert shown.encode().decode() == shown
    if not any(map(is_obeyed, text)):
        assert shown == text


@pytest.mark.parametrize(
    ("text", "cleaned", "shown"),
    [
        ("red \x1b[31mtext\x1b[0m", "red [31mtext[0m", r"red \x1b[31mtext\x1b[0m"),
        ("next\x85line", "next line", r"next\x85line"),
        ("abc\u202efdp.exe\u202c", "abcfdp.exe", r"abc\u202efdp.exe\u202c"),
        ("a \x01 b", "a b", r"a \x01 b"),
        ("e\x01\u0301", "é", "e\\x01\u0301"),
        ("\ud835\udd38 b\ud835 \x01c e\u0301\u00a0\n", "\U0001d538 b c é", None),
        ("می‌خواهم ខ្មែរ\u200bភាសា", "می‌خواهم ខ្មែរ\u200bភាសា", "می‌خواهم ខ្មែរ\u200bភាសា"),  # of the script
    ],
)  # fmt: skip
def test_by_hand(text, cleaned, shown):
    assert clean_text(text) == cleaned
    assert shown in (None, escaped(text))
