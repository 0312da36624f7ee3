"""Text that may be shown: no character in it is obeyed instead of printed."""

import re
import unicodedata

# Control characters, halves of a character, separators of lines and paragraphs, and what turns the direction
# of the text after it.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_HYPHENS = str.maketrans(dict.fromkeys("\x02\u00ad\ufffe", "-"))  # pdfium's codes for one at a line's end


def clean_text(text: str) -> str:
    """Return `text` as NFC, one space between words, without characters that are obeyed.

    pdfium gives a character above U+FFFF as its two UTF-16 halves; a hostile font map may give one half.
    """
    whole = text.translate(_HYPHENS).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    printed = _OBEYED.sub("", " ".join(whole.split()))
    return " ".join(unicodedata.normalize("NFC", printed).split())


def escaped(text: str) -> str:
    r"""Return `text` with what Python writes for a character that is obeyed: `\n`, `\x1b`, `\u202e`."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)
