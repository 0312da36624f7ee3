"""Made queries come from the text without copying it; of the user's lines each is used, or named with why."""

import dataclasses
import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import NoUsableDocuments
from data_prep.queries import Query
from data_prep.query_making import make_queries
from data_prep.samples import lot_of, sample_key
from data_prep.splits import SPLITS
from data_prep.user_queries import Named, UserQuery, assign_user_queries, in_words, read_user_queries

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


def lines_of(tmp_path, *lines: bytes) -> list[UserQuery]:
    path = tmp_path / "queries.jsonl"
    path.write_bytes(b"\n".join(lines))
    return read_user_queries(path)


def test_a_query_may_hold_any_line_separator(tmp_path):
    lines = [
        {"query": "old\u2028stone  e\u0301", "document": "a.pdf", "page": 3},
        {"query": "b", "document": "b.pdf", "page": 1},
    ]
    body = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (tmp_path / "queries.jsonl").write_text("\ufeff" + body + "\n", encoding="utf-8", newline="\r\n")
    assert read_user_queries(tmp_path / "queries.jsonl") == [
        UserQuery(line=1, text="old stone é", document="a.pdf", page=3),
        UserQuery(line=3, text="b", document="b.pdf", page=1),
    ]


def test_a_query_is_cleaned_like_the_text_of_a_page(tmp_path):
    line = rb'{"query": "\u001b[31mred\u0085stone \u202etxet\u202c ok", "document": "a.pdf", "page": 1}'
    assert [one.text for one in lines_of(tmp_path, line)] == ["[31mred stone txet ok"]
    for query in ("C++", "Ω?", "😀", "ខ្មែរ\u200bភាសា"):
        line = json.dumps({"query": query, "document": "a.pdf", "page": 1}).encode()
        assert [one.text for one in lines_of(tmp_path, line)] == [query]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"no json", "Invalid JSON: Expecting value at character 1"),
        (b"5", "Input should be a valid dictionary"),
        (b"[]", "Input should be a valid dictionary"),
        (b'{"query": "a", "document": "b"}', "page: Field required"),
        (b'{"query": null, "document": "b", "page": 1}', "query: Input should be a valid string"),
        (b'{"query": " ", "document": "b", "page": 1}', "query: no letter, digit or sign in it"),
        (rb'{"query": "\u200b", "document": "b", "page": 1}', "query: no letter, digit or sign"),
        (rb'{"query": "\u2060 \u00ad", "document": "b", "page": 1}', "query: no letter, digit"),
        (rb'{"query": "\u001b \u202e", "document": "b", "page": 1}', "query: no letter, digit"),
        (rb'{"query": "\ud83d", "document": "b", "page": 1}', r"query: half a character in '\ud8"),
        (rb'{"query": "a", "document": "\ude00", "page": 1}', "document: half a character in"),
        (b'{"query": "a", "document": "", "page": 1}', "document: Value should have at least 1 item"),
        (b'{"query": "a", "document": 1, "page": 1}', "document: Input should be a valid string"),
        (b'{"query": "a", "document": "b", "page": "3"}', "page: Input should be a valid integer"),
        (b'{"query": "a", "document": "b", "page": 3.0}', "page: Input should be a valid integer"),
        (b'{"query": "a", "document": "b", "page": true}', "page: Input should be a valid integer"),
        (b'{"query": "a", "document": "b", "page": 0}', "page: Input should be greater than or equal to 1"),
        (b'{"query": "a", "document": "b", "page": 1000000001}', "page: Input should be less than or"),
        (b'{"query": "a", "document": "b", "page": ' + b"9" * 5_000 + b"}", "Exceeds the limit"),
        (b'{"query": "a", "document": "b", "page": 1, "page": 2}', "'page' is there twice"),
        (b'{"query": "a", "document": "b", "page": 1, "\\u0070age": 2}', "'page' is there twice"),
        (b'{"query": "caf\xe9", "document": "b", "page": 1}', "not UTF-8 at byte 15"),
        (b'{"query": "a", "document": "b", "page": 1, "c": ' + b"[" * 200_000, "too deeply nested"),
    ],
    ids=lambda value: repr(value[:60]),
)  # fmt: skip
def test_a_bad_line_is_named_with_what_is_wrong(tmp_path, line, reason):
    with pytest.raises(NoUsableDocuments) as caught:
        lines_of(tmp_path, b'{"query": "a", "document": "b", "page": 1}', line)
    expected = f'queries.jsonl: line 2 is not {{"query": ..., "document": ..., "page": ...}}: {reason}'
    assert expected in str(caught.value)
    assert str(caught.value).isprintable()


def asked(text: str, document: str, page: int, line: int = 1) -> UserQuery:
    return UserQuery(line=line, text=text, document=document, page=page)


DECOMPOSED = unicodedata.normalize("NFD", "Việt.pdf")
NAMED = Named(
    pages={"a/b.pdf": 12, "Việt.pdf": 9, "one.pdf": 1, "test.pdf": 3},
    refused={"locked.pdf": "encrypted: needs a password", "notes.docx": "neither a PDF nor a page image"},
    samples={
        ("a/b.pdf", 1): ("train", ("a1", "a2")),
        ("a/b.pdf", 2): ("train", ("a3",)),
        ("a/b.pdf", 3): ("train", ()),
        ("Việt.pdf", 2): ("validation", ("v1",)),
        ("test.pdf", 1): ("test", ("t1",)),
        ("test.pdf", 2): ("test", ("t2",)),
    },
)


def test_queries_find_their_pages_whatever_form_the_name_has():
    for document in ("Việt.pdf", DECOMPOSED, "./Việt.pdf", ".//Việt.pdf"):
        found = assign_user_queries([asked("one", document, 2)], NAMED)
        query = Query(identity="user-000000", text="one", relevant=("v1",))
        assert found.queries == {"train": [], "validation": [query], "test": []} and not found.unused


def test_of_two_documents_that_compose_to_the_same_name_the_one_that_is_written_is_meant():
    twins = Named(
        pages={"Việt.pdf": 1, DECOMPOSED: 1},
        refused={},
        samples={("Việt.pdf", 1): ("test", ("composed",)), (DECOMPOSED, 1): ("test", ("decomposed",))},
    )
    lines = [asked("one", "Việt.pdf", 1), asked("two", DECOMPOSED, 1, line=2)]
    queries = assign_user_queries(lines, twins).queries["test"]
    assert [query.relevant for query in queries] == [("composed",), ("decomposed",)]


@pytest.mark.parametrize(
    ("document", "page", "reason"),
    [
        ("A/B.PDF", 1, "no document 'A/B.PDF'; the nearest is 'a/b.pdf'"),
        ("a\\b.pdf", 1, "no document 'a\\b.pdf'; the nearest is 'a/b.pdf'"),
        ("b.pdf", 1, "no document 'b.pdf'; the nearest is 'a/b.pdf'"),
        (
            "/me/a/b.pdf", 1,
            "no document '/me/a/b.pdf' (names begin below the documents folder); the nearest is 'a/b.pdf'",
        ),
        ("日本語", 1, "no document '日本語'"),
        ("\x1b[31m\u202e日本", 1, r"no document '\x1b[31m\u202e日本'"),
        ("日" * 5_000, 1, f"no document '{'日' * 200}…'"),
        ("a/b.pdf", 13, "'a/b.pdf' has 12 pages, not 13"),
        ("one.pdf", 2, "'one.pdf' has 1 page, not 2"),
        ("one.pdf", 1, "nothing is left of page 1 of 'one.pdf': it repeats other pages"),
        ("a/b.pdf", 3, "page 3 of 'a/b.pdf' is in train and has no text to train on"),
        ("locked.pdf", 1, "'locked.pdf' is not used: encrypted: needs a password"),
        ("notes.docx", 1, "'notes.docx' is not used: neither a PDF nor a page image"),
    ],
    ids=lambda value: ascii(value)[:40],
)  # fmt: skip
def test_a_line_that_is_not_used_has_its_reason_and_the_nearest_name(document, page, reason):
    found = assign_user_queries([asked("one", document, page)], NAMED)
    assert not any(found.queries.values())
    assert list(found.unused.values()) == [reason]
    assert in_words(found.unused) == [f"line 1: {reason}"]
    assert reason.isprintable()


def test_the_nearest_is_looked_up_for_so_many_names_only(monkeypatch):
    monkeypatch.setattr("data_prep.user_queries._NEAREST_SOUGHT", 2)
    lines = [
        asked("q", name, 1, line) for line, name in enumerate(("A/b.pdf", "a/B.pdf", "A/B.pdf", "A/b.pdf"))
    ]
    found = assign_user_queries(lines, dataclasses.replace(NAMED))
    assert ["nearest" in reason for reason in found.unused.values()] == [True, True, False, True]


def test_lines_of_equal_text_are_one_query_with_all_their_pages():
    places = [("test.pdf", 1), ("test.pdf", 2), ("test.pdf", 1)]
    lines = [asked("one", *place, line) for line, place in enumerate(places, start=1)]
    found = assign_user_queries(lines, NAMED)
    assert found.queries["test"] == [Query(identity="user-000000", text="one", relevant=("t1", "t2"))]
    assert not found.unused and not found.parted


def test_a_text_is_of_one_split_with_its_pages_there_only():
    lines = [asked("one", "a/b.pdf", 1), asked("one", "Việt.pdf", 2, 2), asked("two", "a/b.pdf", 2, 3)]
    found = assign_user_queries(lines, NAMED)
    assert [(query.text, query.relevant) for query in found.queries["validation"]] == [("one", ("v1",))]
    assert [(query.text, query.relevant) for query in found.queries["train"]] == [("two", ("a3",))]
    belongs = "the same query asks for one in validation, and belongs to one split"
    assert found.unused == {lines[0]: f"page 1 of 'a/b.pdf' is in train; {belongs}"} and found.parted == 1
    tested = assign_user_queries([*lines, asked("one", "test.pdf", 1, 4)], NAMED)
    assert [query.relevant for query in tested.queries["test"]] == [("t1",)]
    assert not tested.queries["validation"] and len(tested.unused) == 2


PLACES = st.sampled_from([*NAMED.samples, ("a/b.pdf", 13), ("one.pdf", 1), ("locked.pdf", 1), ("c.pdf", 1)])


@given(st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), PLACES), max_size=12))
def test_every_line_is_used_or_named_and_a_text_is_asked_once(chosen):
    lines = [asked(text, *place, line=number) for number, (text, place) in enumerate(chosen, start=1)]
    found = assign_user_queries(lines, NAMED)
    queries = {query.text: query for of_split in found.queries.values() for query in of_split}
    assert len(queries) == sum(map(len, found.queries.values()))
    for line in lines:
        split, keys = NAMED.samples.get((line.document, line.page), ("", ()))
        used = bool(keys) and queries[line.text] in found.queries[split]
        assert used != (line in found.unused)
        assert set(keys) <= set(queries[line.text].relevant) if used else found.unused[line]
    for split, of_split in found.queries.items():
        for query in of_split:
            pages = {(line.document, line.page) for line in lines if line.text == query.text}
            own = [NAMED.samples.get(page, ("", ())) for page in pages]
            assert set(query.relevant) == {key for there, keys in own for key in keys if there == split}
            assert all(SPLITS.index(there) <= SPLITS.index(split) for there, keys in own if keys)
