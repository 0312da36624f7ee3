"""BM25 over words: what a search without any model finds."""

import unicodedata
from collections.abc import Sequence

import bm25s
import numpy as np

from data_prep.queries import words_of


class Bm25:
    """BM25 (Lucene variant) over the lower-cased words of a corpus."""

    def __init__(self, texts: Sequence[str]) -> None:
        corpus = [_words(text) for text in texts]
        self._size = len(corpus)
        self._index = bm25s.BM25() if any(corpus) else None
        if self._index:
            self._index.index(corpus, show_progress=False)

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """Return float32 [queries, corpus].

        Texts without any word (a page without a text layer, a query of punctuation) score zero.
        """
        scores = np.zeros((len(queries), self._size), dtype=np.float32)
        for row, text in enumerate(queries):
            known = self._index.get_tokens_ids(_words(text)) if self._index else []
            if known:
                scores[row] = self._index.get_scores_from_ids(known)
        return scores


def _words(text: str) -> list[str]:
    # NFC first: in decomposed Vietnamese the tone marks are not \w and would cut every word apart.
    return words_of(unicodedata.normalize("NFC", text).lower())
