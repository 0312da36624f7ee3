"""Made queries come from the text without copying it; the user's are matched by document and page."""

import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import NoUsableDocuments
from data_prep.query_making import UserQuery, make_queries, match_user_queries, read_user_queries
from data_prep.samples import lot_of, sample_key

TEXT = "The quick river bends around the market. Winter letters arrive by cart, at last!"


def texts_of(text, key="k", **settings):
    made = make_queries(key, text, **{"count": 2, "word_share": 0.5, "seed": 0} | settings)
    return [query.text for query in made]


def test_a_sample_always_gets_the_same_queries_which_name_it_and_another_gets_others():
    made = make_queries("key-1", TEXT, count=2, word_share=0.5, seed=0)
    assert made == make_queries("key-1", TEXT, count=2, word_share=0.5, seed=0)
    assert [query.identity for query in made] == ["key-1-q0", "key-1-q1"]
    assert {query.relevant for query in made} == {("key-1",)}
    assert texts_of(TEXT, count=5) != texts_of(TEXT, count=5, key="l")
    assert texts_of(TEXT, count=5) != texts_of(TEXT, count=5, seed=1)


def test_a_long_key_draws_what_the_short_one_drew():
    for key in (sample_key("a.pdf", 3, None), sample_key("tài liệu.pdf", 12, 7)):
        short = key[:12] + key[32:]
        assert (
            re.fullmatch(r"[0-9a-f]{32}-[0-9]{5}(-[0-9]{3})?", key) and lot_of(f"{key}-q0") == f"{short}-q0"
        )
        assert texts_of(TEXT, key=key, count=5) == texts_of(TEXT, key=short, count=5)
        assert lot_of(short) == short
    # As drawn when keys had twelve digits.
    assert texts_of(TEXT, key=sample_key("a.pdf", 3, None)) == [
        "letters cart by Winter",
        "market The around the",
    ]
    assert lot_of("user-000001") == "user-000001"


@given(
    st.lists(st.sampled_from(["river", "Stone", "Việt", "हिन्दी", "a", "b.", "c,", "?"]), max_size=20),
    st.integers(1, 4),
)
def test_queries_hold_words_of_the_text_and_never_all_of_it(words, count):
    text = " ".join(words)
    printed = [word.strip(".,?") for word in words if word.strip(".,?")]
    made = texts_of(text, count=count)
    assert len(made) == len({query.casefold() for query in made}) <= count
    for query in made:
        assert len(query.split()) >= 2
        assert all(query.split().count(word) <= printed.count(word) for word in query.split())
        assert query.split() != printed


@pytest.mark.parametrize("key", "abcdef")
def test_a_sentence_of_two_words_is_turned_round(key):
    made = texts_of("two words", key=key, count=1) + texts_of("Two words.", key=key, count=1)
    assert [query.casefold() for query in made] == ["words two"] * 2


@pytest.mark.parametrize("text", ["", "one", "One.", "?! ...", "bora bora"])
def test_a_text_that_can_only_be_copied_has_no_query(text):
    assert texts_of(text) == []


@pytest.mark.parametrize(
    "text", ["हिन्दी में लिखा हुआ पाठ यहाँ है", "សៀវភៅ នេះ ល្អ ណាស់", "می‌خواهم کتاب بخوانم امروز"]
)
def test_marks_and_joiners_stay_in_their_words(text):
    assert set(" ".join(texts_of(text, count=8)).split()) <= set(text.split())


def test_a_query_may_hold_any_line_separator(tmp_path):
    lines = [
        {"query": "old\u2028stone  e\u0301", "document": "a.pdf", "page": 3},
        {"query": "b", "document": "b.pdf", "page": 1},
    ]
    body = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (tmp_path / "queries.jsonl").write_text("\ufeff" + body + "\n", encoding="utf-8", newline="\r\n")
    assert read_user_queries(tmp_path / "queries.jsonl") == [
        UserQuery(query="old stone é", document="a.pdf", page=3),
        UserQuery(query="b", document="b.pdf", page=1),
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"no json", b"5", b"[]", b'{"query": "a", "document": "b"}',
        b'{"query": null, "document": "b", "page": 1}',
        b'{"query": " ", "document": "b", "page": 1}', b'{"query": "a", "document": "b", "page": "x"}',
        b'{"query": "a", "document": "b", "page": 0}', b'{"query": "a", "document": "b", "page": true}',
        b'{"query": "a", "document": 1, "page": 1}', b'{"query": "caf\xe9", "document": "b", "page": 1}',
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "queries.jsonl"
    path.write_bytes(b'{"query": "a", "document": "b", "page": 1}\n' + line + b"\n")
    with pytest.raises(NoUsableDocuments, match=re.escape('queries.jsonl: line 2 is not {"query": ..., ')):
        read_user_queries(path)


def test_queries_find_their_pages_whatever_form_the_name_has():
    queries = [
        UserQuery(query="one", document=unicodedata.normalize("NFD", "Việt.pdf"), page=2),
        UserQuery(query="two", document="Việt.pdf", page=9),
        UserQuery(query="three", document="unknown.pdf", page=1),
        UserQuery(query="four", document="./a.pdf", page=1),
    ]
    matched, others = match_user_queries(queries, {("Việt.pdf", 2): ["k1", "k2"], ("a.pdf", 1): ["k3"]})
    assert [(query.identity, query.text, query.relevant) for query in matched] == [
        ("user-000000", "one", ("k1", "k2")),
        ("user-000003", "four", ("k3",)),
    ]
    assert others == 2
