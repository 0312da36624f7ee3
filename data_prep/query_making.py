"""The queries of a folder: the user's own, or made from headings and sentences.

A made query keeps a random share of one sentence's words in shuffled order, so that it is never a verbatim
copy of the page; the same sample always gets the same queries.
"""

import codecs
import hashlib
import random
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen
from pydantic import AfterValidator, BaseModel, PositiveInt, ValidationError

from data_prep.errors import NoUsableDocuments
from data_prep.queries import Query, words_of
from data_prep.samples import lot_of
from data_prep.source_files import open_file

MINIMUM_QUERY_WORDS = 2
USER_QUERIES_BYTES = 64 * 2**20
_SENTENCE_END = re.compile(r"(?<=[.!?。។၊။])\s+")


class UserQuery(BaseModel, frozen=True, strict=True):
    """One line of `queries.jsonl`; other fields are passed over."""

    query: Annotated[str, AfterValidator(lambda text: " ".join(_composed(text).split())), MinLen(1)]
    document: str  # path relative to the documents folder
    page: PositiveInt


def make_queries(key: str, text: str, *, count: int, word_share: float, seed: int) -> list[Query]:
    """Return up to `count` distinct queries for one sample; none where the text has too few words."""
    generator = random.Random(int.from_bytes(hashlib.sha256(f"{seed}:{lot_of(key)}".encode()).digest()[:8]))
    sentences = [words for part in _SENTENCE_END.split(text) if len(words := words_of(part)) >= 2]
    made: dict[str, Query] = {}
    for number in range(count if sentences else 0):
        words = generator.choice(sentences)
        kept = max(MINIMUM_QUERY_WORDS, round(word_share * len(words)))
        chosen = generator.sample(words, min(kept, len(words)))
        if chosen == words:
            chosen.reverse()  # a sentence of two words came out as it stands
        query = " ".join(chosen)
        if chosen != words and query.casefold() not in (made_text.casefold() for made_text in made):
            made[query] = Query(identity=f"{key}-q{number}", text=query, relevant=(key,))
    return list(made.values())


def read_user_queries(path: Path) -> list[UserQuery]:
    """Read `queries.jsonl`: one object a line with `query`, `document` and `page` (from 1).

    Raises:
        NoUsableDocuments: it cannot be read, or a line is no such object; the message names file and line.
    """
    queries = []
    # Bytes, cut at line feeds only: JSON text may hold other line separators (U+2028).
    for number, line in enumerate(_content(path).removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            queries.append(UserQuery.model_validate_json(line))
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = "".join(f"{name}: " for name in wrong["loc"])
            expected = '{"query": ..., "document": ..., "page": ...}'
            raise NoUsableDocuments(
                f"{path}: line {number} is not {expected}: {where}{wrong['msg']}"
            ) from error
    return queries


def _content(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            content = file.read(USER_QUERIES_BYTES + 1)
    except OSError as error:
        raise NoUsableDocuments(f"{path}: cannot be read: {error.strerror}; correct or remove it") from error
    if len(content) > USER_QUERIES_BYTES:
        raise NoUsableDocuments(f"{path}: too large, the limit is {USER_QUERIES_BYTES:,} bytes; shorten it")
    return content


def match_user_queries(
    user_queries: Sequence[UserQuery], keys_by_page: dict[tuple[str, int], list[str]]
) -> tuple[list[Query], int]:
    """Attach each query to the samples of its page; returns them and how many named another page."""
    matched = []
    # One file name has several Unicode forms: file systems and editors differ in which they write.
    by_page = {(_composed(name), page): keys for (name, page), keys in keys_by_page.items()}
    for number, query in enumerate(user_queries):
        if keys := by_page.get((_composed(query.document).removeprefix("./"), query.page)):
            matched.append(Query(identity=f"user-{number:06d}", text=query.query, relevant=tuple(keys)))
    return matched, len(user_queries) - len(matched)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
