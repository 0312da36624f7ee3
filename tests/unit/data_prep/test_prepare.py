"""Prepared once, a folder is not read again; one changed document touches only its own split."""

import json
import re
import shutil

import pytest
from PIL import Image

from data_prep import reading
from data_prep.errors import NoUsableDocuments
from data_prep.queries import read_queries
from data_prep.shards import ShardSource
from data_prep.splits import SPLITS
from tests.unit.data_prep.making import prepare, prose, read, write_pdf


def digests(prepared) -> dict[str, str]:
    return {name: output.manifest.content_digest for name, output in vars(prepared).items()}


def inventory_of(prepared) -> dict:
    return prepared.inventory.json("inventory.json")


@pytest.fixture
def folder(six_documents, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(six_documents, tmp_path / "documents")


@pytest.fixture
def store(prepared, tmp_path):
    """A copy of the store in which the folder is prepared already."""
    return shutil.copytree(prepared.train.path.parents[1], tmp_path / "store")


def test_an_unchanged_folder_is_neither_read_nor_split_again(folder, store, prepared, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(reading, "Sandbox", None)  # no reader can be started
        patch.setattr("data_prep.prepare.choose_samples", None)
        again, steps = prepare(folder, store)
    assert digests(again) == digests(prepared) and steps == []
    shutil.rmtree(again.test.path)
    again, steps = prepare(folder, store)
    assert digests(again) == digests(prepared) and steps[-1] == (3, 3, "splitting"), "lost, and made again"
    (folder / "queries.jsonl").write_text('{"query": "one word", "document": "deep/d0.pdf", "page": 1}\n')
    asked, steps = prepare(folder, store)
    assert digests(asked) != digests(prepared) and steps[-1] == (3, 3, "splitting")


def test_another_store_gets_the_same_bytes(folder, prepared, tmp_path):
    again, steps = prepare(folder, tmp_path / "other", workers=1)
    assert digests(again) == digests(prepared)
    expected = [(n, 6, "reading documents") for n in range(1, 7)] + [(n, 3, "splitting") for n in range(1, 4)]
    assert steps == expected


def test_a_changed_document_changes_its_own_split_only(folder, store, prepared):
    name = "deep/d0.pdf"
    (own,) = next(e for e in inventory_of(prepared)["documents"] if e["path"] == name)["splits"]
    write_pdf(folder / name, [prose(500), prose(501)])
    changed, steps = prepare(folder, store, workers=1)
    assert read(steps) == 1
    other = {name for name, digest in digests(changed).items() if digest != digests(prepared)[name]}
    assert other == {own, f"{own}_queries", "inventory"}


def test_another_unit_is_another_output(folder, prepared, tmp_path):
    pages, _ = prepare(folder, tmp_path / "other", unit="page", workers=1)
    records = [r for name in SPLITS for r in ShardSource(getattr(pages, name).path).records()]
    assert {record["block"] for record in records} == {None}
    assert digests(pages)["train"] != digests(prepared)["train"]


@pytest.mark.parametrize("setting", [{"test_share": 0.5}, {"queries_per_sample": 1}, {"seed": 3}], ids=str)
def test_settings_of_splits_and_queries_read_no_document_again(folder, store, setting):
    _, steps = prepare(folder, store, **setting)
    assert read(steps) == 0


def queries_beside(folder, *lines) -> None:
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def a_document_of(prepared, split: str) -> str:
    return next(e["path"] for e in inventory_of(prepared)["documents"] if e["splits"] == [split])


def test_the_users_queries_alone_are_the_test_where_there_are_any(folder, store, prepared):
    document = a_document_of(prepared, "test")
    queries_beside(
        folder,
        {"query": "where is the river", "document": document, "page": 1},
        {"query": "what is not here", "document": document, "page": 77},
    )
    with_queries, _ = prepare(folder, store)
    (query,) = read_queries(with_queries.test_queries.path)
    source = ShardSource(with_queries.test.path)
    answers = [source[position] for position in source.positions_of(query.relevant).values()]
    assert len(answers) == len(query.relevant)
    assert query.text == "where is the river"
    assert {(sample.document, sample.page) for sample in answers} == {(document, 1)}
    assert read_queries(with_queries.train_queries.path) == read_queries(prepared.train_queries.path)
    assert inventory_of(with_queries)["warnings"] == ["queries.jsonl: 1 of 2 lines are not used."]
    assert inventory_of(with_queries)["unused_queries"] == [f"line 2: '{document}' has 2 pages, not 77"]


def test_other_queries_leave_the_samples_as_they_are(folder, store, prepared):
    queries_beside(folder, {"query": "where", "document": a_document_of(prepared, "test"), "page": 1})
    asked, _ = prepare(folder, store)
    half, _ = prepare(folder, store, query_word_share=0.8)
    for name in SPLITS:
        assert getattr(asked, name).manifest == getattr(prepared, name).manifest
        digest = getattr(half, name).manifest.content_digest
        assert digest == getattr(prepared, name).manifest.content_digest
        assert not list(getattr(prepared, name).path.glob("quer*"))
    assert asked.test_queries.manifest.content_digest != prepared.test_queries.manifest.content_digest
    assert half.train_queries.manifest.content_digest != prepared.train_queries.manifest.content_digest


def test_the_users_training_queries_stand_beside_made_ones(folder, store, prepared):
    document = a_document_of(prepared, "train")
    queries_beside(folder, {"query": "where is the river", "document": document, "page": 1})
    with_queries, _ = prepare(folder, store)
    own, *made = read_queries(with_queries.train_queries.path)
    assert own.text == "where is the river"
    assert made == read_queries(prepared.train_queries.path)
    assert read_queries(with_queries.test_queries.path) == read_queries(prepared.test_queries.path)
    assert inventory_of(with_queries)["warnings"] == [
        "queries.jsonl has no query for the test pages; they get made ones."
    ]


def test_a_text_with_several_pages_is_one_query_of_one_split(folder, store, prepared):
    tested, trained = (a_document_of(prepared, split) for split in ("test", "train"))
    lines = [("where  is it", tested, 1), ("Where is it", tested, 2), ("where is it", trained, 1)]
    queries_beside(folder, *({"query": q, "document": d, "page": p} for q, d, p in lines))
    asked, _ = prepare(folder, store)
    [query] = read_queries(asked.test_queries.path)
    answers = [one for one in ShardSource(asked.test.path).records() if one["key"] in query.relevant]
    assert {(one["document"], one["page"]) for one in answers} == {(tested, 1), (tested, 2)}
    assert "where is it" not in {one.text for one in read_queries(asked.train_queries.path)}
    [line] = inventory_of(asked)["unused_queries"]
    assert line.startswith(f"line 3: page 1 of '{trained}' is in train; the same query asks for one in test")
    assert "1 text(s) have pages in several splits" in inventory_of(asked)["warnings"][1]


def test_a_training_query_with_several_pages_has_all_of_them_for_positives(folder, store, prepared):
    """So that none is a negative: what answers an anchor is masked (`stages.refine.pairs.answers`)."""
    document = a_document_of(prepared, "train")
    queries_beside(folder, *({"query": "where is it", "document": document, "page": p} for p in (1, 2)))
    asked, _ = prepare(folder, store)
    own = [one for one in read_queries(asked.train_queries.path) if one.text == "where is it"]
    pages = {one["key"]: one["page"] for one in ShardSource(asked.train.path).records()}
    assert [{pages[key] for key in query.relevant} for query in own] == [{1, 2}]


@pytest.mark.parametrize("split", ["test", "train"])
def test_a_made_query_that_the_user_asks_is_the_users(folder, store, prepared, split):
    """They say what answers it; what they ask in the test is not trained on."""
    made = read_queries(prepared.train_queries.path)
    queries_beside(folder, {"query": made[0].text, "document": a_document_of(prepared, split), "page": 1})
    asked, _ = prepare(folder, store)
    own = [one for one in read_queries(getattr(asked, f"{split}_queries").path) if one.text == made[0].text]
    assert [one.identity for one in own] == ["user-000000"]
    trained = [one for one in read_queries(asked.train_queries.path) if one not in own]
    assert trained == [one for one in made if one.text != made[0].text]


@pytest.mark.parametrize("wrong", [{"document": "DEEP/d0.pdf"}, {"page": 3}, {"document": "deep\\d0.pdf"}])
def test_a_file_of_queries_of_which_none_is_used_is_refused(folder, store, wrong):
    line = {"query": "where is it", "document": "deep/d0.pdf", "page": 1} | wrong
    queries_beside(folder, *[line] * 5)
    with pytest.raises(NoUsableDocuments) as caught:
        prepare(folder, store)
    message = str(caught.value).removeprefix(
        f"{folder / 'queries.jsonl'}: none of its 5 line(s) is used: line 1: "
    )
    assert "'deep/d0.pdf'" in message and "; line 3: " in message and "line 4" not in message
    assert message.endswith("; and 2 more. Correct them; without the file queries are made")


def test_a_file_of_queries_without_a_line_is_said(folder, store, prepared):
    (folder / "queries.jsonl").write_text("\n \n")
    asked, _ = prepare(folder, store)
    assert inventory_of(asked)["warnings"] == ["queries.jsonl holds no line: all queries are made."]
    assert read_queries(asked.test_queries.path) == read_queries(prepared.test_queries.path)


def test_a_page_whose_samples_all_repeat_others_cannot_be_asked_for(folder, store):
    for number in range(2):
        write_pdf(folder / f"same-{number}.pdf", [prose(700)])
    queries_beside(folder, *({"query": f"q{n}", "document": f"same-{n}.pdf", "page": 1} for n in range(2)))
    [line] = inventory_of(prepare(folder, store)[0])["unused_queries"]
    assert re.fullmatch(r"line \d: nothing is left of page 1 of 'same-\d.pdf': it repeats other pages", line)


def test_a_bad_line_of_queries_is_named(folder, store):
    queries_beside(folder, {"query": "a", "document": "b", "page": 1}, {"query": "a"})
    with pytest.raises(NoUsableDocuments, match=r"queries\.jsonl: line 2 is not .*document: Field required"):
        prepare(folder, store)


def test_images_with_more_text_than_a_block_are_searched_and_said(folder, store):
    Image.effect_noise((300, 200), 80).save(folder / "scan.png")
    (folder / "scan.txt").write_text("many words " * 40)
    [warning] = inventory_of(prepare(folder, store)[0])["warnings"]
    assert warning.startswith("1 page image(s) have more text") and 'unit "page"' in warning
    assert inventory_of(prepare(folder, store, unit="page")[0])["warnings"] == []
