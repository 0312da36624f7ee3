"""Prepared once, a folder is not read again; one changed document touches only its own split."""

import json
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
    assert inventory_of(with_queries)["warnings"] == ["queries.jsonl: 1 of 2 queries name unknown pages."]


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
