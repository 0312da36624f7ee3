"""Any `queries.jsonl` gives queries that can be stored, or one line that names what is wrong."""

import json
import os
import random
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from data_prep import user_queries
from data_prep.errors import NoUsableDocuments
from data_prep.prepare import prepare_documents
from data_prep.queries import read_queries, write_queries
from data_prep.user_queries import Named, assign_user_queries, in_words, read_user_queries
from infra.fingerprint import canonical_json
from tests.unit.data_prep.making import prepare, prose, write_pdf

FILES = 10_000
GOOD = b'{"query": "where is it", "document": "a.pdf", "page": 1}'
VALUES = [
    b'"a"', b'""', b'" "', b'"a.pdf"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\\u2028"',
    b'"\xff"', b'"\xed\xa0\x80"', b"1", b"0", b"-1", b"1.0", b"1e400", b"NaN", b"Infinity", b"9" * 25,
    b"9" * 5_000, b"true", b"null", b"[]", b"{}", b"[" * 500 + b"]" * 500, b'{"a":' * 300 + b"1" + b"}" * 300,
    b'"' + b"a" * 5_000 + b'"', "\"e\u0301 \u202e\u200b\"".encode(), b'"\\n"', b'"\\x"', b'"a',
]  # fmt: skip
KEYS = [b'"query"', b'"document"', b'"page"', b'"other"', b'"query\\u0000"', b"query", b"1", b'"\\ud800"']
BETWEEN = [b"\n", b"\n", b"\n", b"\r\n", b"\n\n", b"\r", b"", b"\0", b"\xef\xbb\xbf", b" ", "\u2028".encode()]


def any_line(chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.4:
        return GOOD
    if kind < 0.5:
        return chance.randbytes(chance.randrange(20))
    keys = KEYS[:3] if kind < 0.9 else chance.choices(KEYS, k=chance.randrange(6))
    line = b"{" + b", ".join(key + b": " + chance.choice(VALUES) for key in keys) + b"}"
    if chance.random() < 0.2:
        cut = chance.randrange(len(line))
        line = line[:cut] + chance.randbytes(1) + line[cut + 1 :]
    return line


def any_file(chance: random.Random) -> bytes:
    lines = (any_line(chance) + chance.choice(BETWEEN) for _ in range(chance.randrange(4)))
    return chance.choice(BETWEEN[:4] + BETWEEN[8:9] * 2) + b"".join(lines)


def test_any_file_gives_queries_that_can_be_stored_or_one_line_that_says_why(tmp_path):
    path, accepted, refused = tmp_path / "queries.jsonl", [], 0
    one_line = re.compile(re.escape(f"{path}: line ") + r"\d+ is not [^\n]+")
    for seed in range(FILES):
        path.write_bytes(any_file(random.Random(seed)))
        try:
            accepted += read_user_queries(path)
        except NoUsableDocuments as error:
            assert one_line.fullmatch(str(error)), seed
            assert str(error).isprintable(), seed
            refused += 1
    assert refused > 1_000 < len(accepted)
    accepted = [replace(query, line=number) for number, query in enumerate(accepted)]
    for query in accepted:
        assert query.text.isprintable() or "\u200b" in query.text
    documents = dict.fromkeys((query.document for query in accepted), 2**40)
    samples = {(query.document, query.page): ("test", (f"key-{n}",)) for n, query in enumerate(accepted)}
    found = assign_user_queries(accepted, Named(pages=documents, refused={}, samples=samples))
    matched = found.queries["test"]
    assert len({query.text for query in accepted}) == len(matched) > 1 and not found.unused
    write_queries(tmp_path, matched)
    assert read_queries(tmp_path) == matched
    canonical_json([asdict(query) for query in accepted])
    nowhere = assign_user_queries(accepted, Named(pages={"b.pdf": 1}, refused={}, samples={}))
    assert len(nowhere.unused) == len(accepted) and all(map(str.isprintable, in_words(nowhere.unused)))


def refused_for(path: Path) -> str:
    with pytest.raises(NoUsableDocuments) as caught:
        read_user_queries(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.timeout(60)
def test_what_is_no_file_of_a_sensible_size_is_refused_and_not_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "queries.jsonl"
    assert refused_for(path) == "cannot be read: No such file or directory; correct or remove it"
    for make, reason in (
        (lambda: path.symlink_to("nowhere"), "No such file or directory"),
        (lambda: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda: os.mkfifo(path), "not a regular file"),
    ):
        make()
        assert refused_for(path) == f"cannot be read: {reason}; correct or remove it"
        path.unlink()
    with path.open("wb") as file:
        file.truncate(2**40)
    assert refused_for(path) == "too large, the limit is 67,108,864 bytes; shorten it"
    path.unlink()
    path.mkdir()
    assert refused_for(path) == "cannot be read: Is a directory; correct or remove it"
    path.rmdir()
    monkeypatch.setattr(user_queries, "USER_QUERIES_BYTES", len(GOOD))
    path.write_bytes(GOOD)
    assert len(read_user_queries(path)) == 1
    path.write_bytes(GOOD + b" ")
    assert refused_for(path).startswith("too large")


def test_a_bad_file_of_queries_is_told_before_documents_are_read(tmp_path, monkeypatch):
    write_pdf(tmp_path / "a.pdf", [prose(1), prose(2)])
    (tmp_path / "queries.jsonl").symlink_to("nowhere")
    monkeypatch.setitem(prepare_documents.__globals__, "read_documents", None)
    with pytest.raises(NoUsableDocuments, match=r"queries\.jsonl: cannot be read"):
        prepare(tmp_path, tmp_path / "store")


def test_a_query_finds_its_document_by_the_name_that_the_inventory_shows(tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    whole = write_pdf(tmp_path / "whole.pdf", [prose(1), prose(2)])
    whole.rename(os.fsencode(folder).decode() + "/\udcff.pdf")
    asked = [{"query": "where is it", "document": "\\xff.pdf", "page": page} for page in (1, 2)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    prepared, _ = prepare(folder, tmp_path / "store")
    assert [one.text for one in read_queries(prepared.test_queries.path)] == ["where is it"]


def test_nothing_of_a_hostile_file_is_obeyed_where_it_is_shown(tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(5):
        write_pdf(folder / f"{number}.pdf", [prose(number), prose(10 + number)])
    (folder / "\u202efdp.pdf").write_bytes(b"no PDF")
    obeyed = "\x1b]0;title\x07\u0085 \u202ereversed\u2066 \u2028"
    lines = [{"query": f"where {obeyed}", "document": "0.pdf", "page": 1}]
    lines += [{"query": obeyed, "document": f"{obeyed}{number}.pdf", "page": 1} for number in range(20)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    prepared, _ = prepare(folder, tmp_path / "store")
    inventory = prepared.inventory.json("inventory.json")
    assert len(inventory["unused_queries"]) == 20
    shown = [*inventory["unused_queries"], *inventory["warnings"]]
    shown += [f"{one['path']}: {one['reason']}" for one in inventory["documents"]]
    for split in (prepared.train_queries, prepared.validation_queries, prepared.test_queries):
        shown += [query.text for query in read_queries(split.path)]
    assert all(map(str.isprintable, shown))
