"""Search queries for samples: the user's own, or made from headings and sentences.

A made query keeps a random share of one sentence's words in shuffled order, so that it is never a verbatim
copy of the page; the same sample always gets the same queries.
"""

import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.errors import UnreadableDocument

MINIMUM_QUERY_WORDS = 2
_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?。។၊။])\s+")


@dataclass(frozen=True, kw_only=True)
class Query:
    """One query and the keys of the samples that answer it."""

    identity: str
    text: str
    relevant: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class UserQuery:
    text: str
    document: str  # path relative to the documents folder
    page: int  # 1-based


def make_queries(key: str, text: str, *, count: int, word_share: float, seed: int) -> list[Query]:
    """Return up to `count` distinct queries for one sample; none where the text has too few words."""
    generator = random.Random(int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8]))
    sentences = [words for part in _SENTENCE_END.split(text) if len(words := _WORD.findall(part)) >= 2]
    made: dict[str, Query] = {}
    for number in range(count if sentences else 0):
        words = generator.choice(sentences)
        kept = max(MINIMUM_QUERY_WORDS, round(word_share * len(words)))
        query = " ".join(generator.sample(words, min(kept, len(words))))
        if query.casefold() not in (text.casefold(), *(made_text.casefold() for made_text in made)):
            made[query] = Query(identity=f"{key}-q{number}", text=query, relevant=(key,))
    return list(made.values())


def read_user_queries(path: Path) -> list[UserQuery]:
    """Read `queries.jsonl`: one object a line with `query`, `document` and `page` (from 1).

    Raises:
        UnreadableDocument: a line is no such object; the message names the line.
    """
    queries = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            queries.append(
                UserQuery(
                    text=str(record["query"]), document=str(record["document"]), page=int(record["page"])
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UnreadableDocument(
                f'line {number} is not {{"query": ..., "document": ..., "page": ...}}: {error!r}'
            ) from error
    return queries


def match_user_queries(
    user_queries: Sequence[UserQuery], keys_by_page: dict[tuple[str, int], list[str]]
) -> tuple[list[Query], int]:
    """Attach each query to the samples of its page; returns them and how many named an unknown page."""
    matched = []
    for number, query in enumerate(user_queries):
        if keys := keys_by_page.get((query.document, query.page)):
            matched.append(Query(identity=f"user-{number:06d}", text=query.text, relevant=tuple(keys)))
    return matched, len(user_queries) - len(matched)
