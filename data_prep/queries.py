"""Search queries for samples: how they are kept, and what a word of their text is."""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_COMMITTED = "queries.jsonl"
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
        return json.dumps(vars(self), ensure_ascii=False, sort_keys=True)


def write_queries(folder: Path, queries: Sequence[Query]) -> None:
    """Write the queries of a split; the same ones give the same bytes."""
    lines = [query.to_json() + "\n" for query in queries]
    (folder / _COMMITTED).write_text("".join(lines), encoding="utf-8")


def read_queries(folder: Path) -> list[Query]:
    """Return the queries of a split, in the order in which they were written."""
    lines = (folder / _COMMITTED).read_text(encoding="utf-8").split("\n")[:-1]
    return [Query(**{**record, "relevant": tuple(record["relevant"])}) for record in map(json.loads, lines)]


def words_of(text: str) -> list[str]:
    """Return the words of a text in its script; those of Khmer are told apart by U+200B and spaces only."""
    return _WORD.findall(text)
