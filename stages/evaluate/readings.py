"""Ways to search pages with one checkpoint: what it says of a page is read in several ways. Torch-free.

| reading | kept of a page | score of a query |
|---|---|---|
| pooled | its vector | cosine with the query's vector |
| lexical | log-probabilities of words, where the vector is read | query likelihood |
| transcribed, trigrams | the text that the model wrote | BM25 of words, of character trigrams |
| fused | all of these | weighted sum of their z-scores |

Lexical and transcribed search need no model for a query: an index answers without it. Beside them late
interaction is measured (late_interaction.py).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
from scipy import sparse

from data_prep.queries import words_of
from stages.cells import PRIMARY_METRIC
from stages.evaluate.score import score_retrieval
from stages.train.bm25 import Bm25

SMALLEST_SHARE = 1e-9
"""Of the probability that is left for all words that are not kept, where rounding left none."""


class Reading(Protocol):
    """Pages, encoded in one way."""

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """Encode queries and return their scores [queries, pages], higher is better."""


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """The embedding: cosines of L2-normalised vectors."""

    pages: np.ndarray
    """[pages, hidden]."""
    embed: Callable[[Sequence[str]], np.ndarray]
    """The model: queries to vectors [queries, hidden]."""

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        return self.embed(queries) @ self.pages.T


@dataclass(frozen=True, kw_only=True)
class WordsOfPages:
    """What a model says which words a page holds: the likeliest of them, and a floor for the rest.

    `columns`: [pages, kept] which words; `log_probabilities`: [pages, kept], natural, over all `size` words.
    """

    columns: np.ndarray
    log_probabilities: np.ndarray
    size: int

    def floors(self) -> np.ndarray:
        """[pages] log-probability of a word that is not kept: they share what is left evenly."""
        kept = np.exp(self.log_probabilities).sum(axis=1, dtype=np.float64)
        rest = np.maximum(1 - kept, SMALLEST_SHARE)
        return np.log(rest / max(self.size - self.columns.shape[1], 1))


class Lexical:
    """Query likelihood: which page would have said the query's words.

    The score is the sum over the query's words of log p(word | page): the unigram language model of Ponte and
    Croft (1998), "A Language Modeling Approach to Information Retrieval", with p by a neural model of the
    page, as in learned sparse retrieval (Formal et al. 2021, "SPLADE"). Words are not weighted by how rare
    they are once more: the model was trained to name rare words first (stages/train/words.py). Kept as an
    inverted index of what the likeliest words are above the page's floor."""

    def __init__(self, pages: WordsOfPages, *, columns_of: Callable[[str], Sequence[int]]) -> None:
        """`columns_of`: the columns that stand for a case-folded word; it counts in each for its share."""
        self._columns_of = columns_of
        self._floors = pages.floors().astype(np.float32)
        rows, kept = pages.columns.shape
        above = pages.log_probabilities - self._floors[:, None]
        # Places as int32, or int64 beyond 2^31 of them: with them scipy copies none but in `tocsc`.
        ends = np.arange(rows + 1, dtype=np.int64) * kept
        ends = ends.astype(np.int32) if ends[-1] < 2**31 else ends
        by_page = (
            above.clip(min=0, out=above).ravel(),
            pages.columns.astype(ends.dtype, copy=False).ravel(),
            ends,
        )
        # By word: a query reads only the pages that its words are likely on.
        self._above = sparse.csr_array(by_page, shape=(rows, pages.size)).tocsc()

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """Return float32 [queries, pages]; zero for a query without words."""
        asked = sparse.lil_array((len(queries), self._above.shape[1]), dtype=np.float32)
        for row, query in enumerate(queries):
            for word in words_of(query.casefold()):
                columns = self._columns_of(word)
                for column in columns:
                    asked[row, column] += 1 / len(columns)
        asked = asked.tocsr()
        return (asked @ self._above.T).toarray() + asked.sum(axis=1)[:, None] * self._floors

    @property
    def bytes_a_page(self) -> float:
        """Of the index in memory."""
        parts = (self._above.data, self._above.indices, self._above.indptr, self._floors)
        return sum(part.nbytes for part in parts) / self._above.shape[0]


class Transcribed:
    """BM25 over what the model wrote for each page."""

    def __init__(self, texts: Sequence[str], terms: Callable[[str], list[str]]) -> None:
        self._index = Bm25(texts, terms)

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        return self._index.scores(queries)

    @property
    def bytes_a_page(self) -> float:
        """Of the index in memory, without its terms."""
        return self._index.bytes_a_text


def fused_scores(scores: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Return a weighted sum of readings' scores [queries, pages], each standardised over the pages.

    Fox and Shaw (1994), "Combination of Multiple Searches" (CombSUM), with z-scores as in Montague and Aslam
    (2001), "Relevance Score Normalization for Metasearch".
    """
    return sum(weights[name] * standardised(matrix) for name, matrix in scores.items() if weights[name])


def standardised(scores: np.ndarray) -> np.ndarray:
    """Return each row's z-scores; zeros where all of a row are equal, which tells no page from another."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)


def equal_weights(names: Collection[str]) -> dict[str, float]:
    return {name: 1 / len(names) for name in names}


def best_weights(
    scores: Mapping[str, np.ndarray],
    *,
    corpus_ids: Sequence[str],
    relevant: Sequence[Collection[str]],
    steps: int,
) -> dict[str, float]:
    """Return the weights, in steps of 1 / `steps` and summing to 1, with the highest mean nDCG@10.

    Of equal ones the most even. The queries must not be those that are tested.
    """
    names, parts = list(scores), {name: standardised(matrix) for name, matrix in scores.items()}
    best, chosen = -1.0, equal_weights(names)
    grid = [one for one in product(range(steps + 1), repeat=len(names)) if sum(one) == steps]
    for shares in sorted(grid, key=lambda one: (sum(share**2 for share in one), one)):
        weights = {name: share / steps for name, share in zip(names, shares, strict=True)}
        summed = sum(weights[name] * parts[name] for name in names)
        found = score_retrieval(summed, corpus_ids=corpus_ids, relevant=relevant)["means"][PRIMARY_METRIC]
        if found > best:
            best, chosen = found, weights
    return chosen
