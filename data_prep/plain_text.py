"""Text that may be shown: no character in it is obeyed instead of printed."""

import re
import unicodedata

UNKNOWN = "\ufffe"
"""Stands for a letter that is printed and of which nobody knows what it is."""
# Control characters, halves of a character, separators of lines and paragraphs, and what turns the direction
# of the text after it.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_HYPHENS = str.maketrans(dict.fromkeys("\x02\u00ad", "-"))  # those that are only seen at a line's end
# SARA AM and its Lao sister, which fonts draw as two glyphs around a tone mark.
_SPLIT_VOWEL = re.compile("([\u0e4d\u0ecd])([\u0e48-\u0e4b\u0ec8-\u0ecb]?)([\u0e32\u0eb2])")
_WHOLE_VOWEL = {"\u0e4d": "\u0e33", "\u0ecd": "\u0eb3"}
# Letters joined by the typesetter, and forms that Arabic letters take within a word: printed, never written.
_FORMS = re.compile("[\ufb00-\ufb06\ufb50-\ufdff\ufe70-\ufefc]+")


def clean_text(text: str) -> str:
    """Return `text` as NFC, one space between words, without characters that are obeyed.

    pdfium gives a character above U+FFFF as its two UTF-16 halves; a hostile font map may give one half.
    """
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    known = text.translate(_HYPHENS).replace(UNKNOWN, "")
    whole = known.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    printed = _OBEYED.sub("", " ".join(whole.split()))
    return " ".join(_written(printed).split())


def _written(text: str) -> str:
    """Return NFC of what was written, where fonts split a letter or join some."""
    if text.isascii():
        return text
    text = _FORMS.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    text = _SPLIT_VOWEL.sub(lambda found: found[2] + _WHOLE_VOWEL[found[1]], text)
    return unicodedata.normalize("NFC", text)


def escaped(text: str) -> str:
    r"""Return `text` with what Python writes for a character that is obeyed: `\n`, `\x1b`, `\u202e`."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)
