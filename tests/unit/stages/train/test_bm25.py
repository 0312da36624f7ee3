"""BM25 against its formula."""

import math
import unicodedata

import numpy as np
import pytest

from stages.train.bm25 import Bm25


def test_bm25_reads_vietnamese_in_either_normal_form():
    corpus = ["Chèn bảng tính vào tài liệu", "Định dạng đoạn văn", "", "!!!"]
    query = unicodedata.normalize("NFD", "BẢNG tính")
    scores = Bm25(corpus).scores([query, "?!", "unbekannt", ""])
    assert scores.shape == (4, 4) and scores.dtype == np.float32
    assert scores[0].argmax() == 0 and scores[0, 0] > 0
    assert not scores[1:].any() and not scores[:, 2:].any()
    assert not Bm25(["", ""]).scores(["x"]).any()


WORDS = ("page", "break", "insert", "the", "file", "menu", "before", "cell", "range", "is", "empty", "table")


def lucene_by_hand(query, corpus, k1=1.5, b=0.75):
    """BM25 as Lucene scores it, without the constant factor k1 + 1; a word counts as often as asked for."""
    average = sum(map(len, corpus)) / len(corpus)
    scores = np.zeros(len(corpus))
    for word in query:
        having = sum(word in text for text in corpus)
        idf = math.log(1 + (len(corpus) - having + 0.5) / (having + 0.5))
        for number, text in enumerate(corpus):
            count = text.count(word)
            scores[number] += idf * count / (count + k1 * (1 - b + b * len(text) / average))
    return scores


@pytest.mark.parametrize("seed", range(3))
def test_bm25_is_lucenes_formula(seed):
    rng = np.random.default_rng(seed)
    corpus = [list(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(30)]
    queries = [list(rng.choice(WORDS, rng.integers(1, 6))) for _ in range(10)]
    ours = Bm25([" ".join(text).title() for text in corpus]).scores([" ".join(query) for query in queries])
    for row, query in enumerate(queries):
        assert ours[row] == pytest.approx(lucene_by_hand(query, corpus), abs=1e-5)
