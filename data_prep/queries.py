"""Search queries for samples, and what a word of their text is."""

import json
import re
import unicodedata
from dataclasses import asdict, dataclass

USER_QUERIES = "queries.jsonl"  # in a folder of documents
# Vowel signs and other marks belong to their word (Devanagari, Khmer, ...), as do joiners; \w has neither.
_MARKS = "".join(chr(code) for code in range(0x20000) if unicodedata.category(chr(code)).startswith("M"))
_WORD = re.compile(rf"\w[\w{_MARKS}\u200c\u200d]*")


@dataclass(frozen=True, kw_only=True)
class Query:
    """One query and the keys of the samples that answer it."""

    identity: str
    text: str
    relevant: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)


def words_of(text: str) -> list[str]:
    """Return the words of a text in its script; those of Khmer are told apart by U+200B and spaces only."""
    return _WORD.findall(text)
