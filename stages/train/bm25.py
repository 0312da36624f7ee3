"""BM25 over words, or over pieces of them: what a search of texts finds without any model.

Robertson and Zaragoza (2009), "The Probabilistic Relevance Framework: BM25 and Beyond"; Lucene's variant.
"""

import unicodedata
from collections.abc import Callable, Sequence

import bm25s
import numpy as np

from data_prep.queries import words_of

TRIGRAM = 3


def words(text: str) -> list[str]:
    """Lower-cased words."""
    # NFC first: in decomposed Vietnamese the tone marks are not \w and would cut every word apart.
    return words_of(unicodedata.normalize("NFC", text).lower())


def trigrams(text: str) -> list[str]:
    """Every three characters of each lower-cased word with a space before and after it.

    A word with one wrong character still shares most of them with the right one.
    """
    padded = (f" {word} " for word in words(text))
    return [word[start : start + TRIGRAM] for word in padded for start in range(len(word) - TRIGRAM + 1)]


class Bm25:
    """BM25 over the terms of a corpus."""

    def __init__(self, texts: Sequence[str], terms: Callable[[str], list[str]] = words) -> None:
        corpus = [terms(text) for text in texts]
        self._terms = terms
        self._size = len(corpus)
        self._index = bm25s.BM25() if any(corpus) else None
        if self._index:
            self._index.index(corpus, show_progress=False)

    @property
    def bytes_a_text(self) -> float:
        """Of the index in memory, without its terms."""
        parts = self._index.scores if self._index else {}
        return sum(part.nbytes for part in parts.values() if isinstance(part, np.ndarray)) / self._size

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """Return float32 [queries, corpus].

        Texts without any term (a page without a text layer, a query of punctuation) score zero.
        """
        scores = np.zeros((len(queries), self._size), dtype=np.float32)
        for row, text in enumerate(queries):
            known = self._index.get_tokens_ids(self._terms(text)) if self._index else []
            if known:
                scores[row] = self._index.get_scores_from_ids(known)
        return scores
