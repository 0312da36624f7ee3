"""Queries that are made from headings and sentences.

A made query keeps a random share of one sentence's words in shuffled order, so that it is never a verbatim
copy of the page; the same sample always gets the same queries.
"""

import hashlib
import random
import re

from data_prep.queries import Query, words_of
from data_prep.samples import lot_of

MINIMUM_QUERY_WORDS = 2
_SENTENCE_END = re.compile(r"(?<=[.!?。។၊။])\s+")


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
