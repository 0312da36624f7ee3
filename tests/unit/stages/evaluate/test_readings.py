"""Readings against their formulas, computed by hand; an index of words or texts answers without a model."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluate.readings import (
    Lexical,
    Pooled,
    Transcribed,
    WordsOfPages,
    best_weights,
    fused_scores,
    standardised,
)
from stages.train.bm25 import trigrams, words

VOCABULARY = ["page", "break", "insert", "file"]


def kept(probabilities, count):
    """The likeliest `count` words of each page, as a model's head gives them."""
    logs = np.log(np.array(probabilities))
    columns = np.argsort(-logs, axis=1)[:, :count]
    return WordsOfPages(
        columns=columns, log_probabilities=np.take_along_axis(logs, columns, axis=1), size=logs.shape[1]
    )


def columns_of(word):
    return [VOCABULARY.index(part) for part in word.split("_")]


def lexical(pages):
    return Lexical(pages, columns_of=columns_of)


def test_lexical_is_query_likelihood_with_a_floor_for_words_that_are_not_kept():
    pages = kept([[0.5, 0.3, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4]], 2)
    # Of page 0 `insert` and `file` share what is left, 0.2; of page 1 `page` and `break` share 0.3.
    asked_once = [np.log(0.5) + np.log(0.1), np.log(0.15) + np.log(0.3)]
    asked_twice = [2 * np.log(0.3), 2 * np.log(0.15)]
    scores = lexical(pages).scores(["Page, INSERT!", "break break", "?!"])
    assert scores == pytest.approx(np.array([asked_once, asked_twice, [0, 0]]), abs=1e-5)
    # A word of two tokens counts as their mean.
    of_two = [(np.log(0.5) + np.log(0.3)) / 2, np.log(0.15)]
    assert lexical(pages).scores(["page_break"]) == pytest.approx(np.array([of_two]), abs=1e-5)


@given(st.integers(0, 2**32 - 1))
def test_with_all_words_kept_lexical_is_the_dense_sum(seed):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(4), size=5).clip(1e-6)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    query = random.choice(VOCABULARY, size=6)
    expected = sum(np.log(probabilities[:, VOCABULARY.index(word)]) for word in query)
    found = lexical(kept(probabilities, 4)).scores([" ".join(query)])[0]
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_word_with_a_wrong_character_is_found_by_trigrams_only():
    assert trigrams("Ab, cde") == [" ab", "ab ", " cd", "cde", "de "]
    texts = ["insert a page break", "xxyzq zzz qqq"]
    assert Transcribed(texts, words).scores(["brexk"]).tolist() == [[0, 0]]
    by_pieces = Transcribed(texts, trigrams).scores(["brexk"])[0]
    assert by_pieces[0] > 0 == by_pieces[1]


def test_pooled_is_the_cosine_of_unit_vectors():
    pages = np.array([[1.0, 0.0], [0.6, 0.8]])
    reading = Pooled(pages=pages, embed=lambda queries: np.array([[0.0, 1.0]] * len(queries)))
    assert reading.scores(["a", "b"]) == pytest.approx(np.array([[0, 0.8]] * 2))


def test_fused_adds_z_scores_by_weight_and_a_part_that_tells_nothing_adds_nothing():
    rows = {"a": [[1, 2, 3]], "b": [[300, 100, 200]], "flat": [[7, 7, 7]]}
    scores = {name: np.array(row, dtype=float) for name, row in rows.items()}
    z = np.sqrt(1.5)
    expected = [[-0.5 * z + 0.25 * z, -0.25 * z, 0.5 * z]]
    found = fused_scores(scores, {"a": 0.5, "b": 0.25, "flat": 0.25})
    assert found == pytest.approx(np.array(expected))
    assert standardised(np.array([[7.0, 7.0]])).tolist() == [[0, 0]]


def test_weights_are_those_that_validation_queries_like_best_and_even_where_they_do_not_care():
    ids, relevant = ["x", "y", "z"], [{"x"}, {"y"}]
    right = np.array([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]])
    place = {"corpus_ids": ids, "relevant": relevant, "steps": 4}
    alike = best_weights({"one": right, "other": right}, **place)
    assert alike == {"one": 0.5, "other": 0.5}
    chosen = best_weights({"one": right, "wrong": -right}, **place)
    assert chosen["one"] > chosen["wrong"]
    best = fused_scores({"one": right, "wrong": -right}, chosen)
    assert best.argmax(axis=1).tolist() == [0, 1]


def test_searching_with_words_or_texts_loads_no_torch():
    program = """
import sys
import numpy as np
from stages.evaluate.readings import Lexical, Transcribed, WordsOfPages
from stages.train.bm25 import words
from stages.train.words import SalientWords
salient = SalientWords(document_frequency={}, documents=0, tokenizer=None, buckets=tuple(range(8)))
pages = WordsOfPages(
    columns=np.array([[0, 1], [2, 3]]), log_probabilities=np.log([[0.6, 0.2], [0.5, 0.3]]), size=8
)
assert Lexical(pages, columns_of=salient.numbers_of).scores(["page"]).shape == (1, 2)
assert Transcribed(["a page", "b"], words).scores(["page"])[0, 0] > 0
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
