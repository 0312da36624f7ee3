"""Prepared once, a folder is not read again; one changed document touches only its own split."""

import dataclasses
import json
import shutil

import pytest
from PIL import Image

from data_prep import reading
from data_prep.config import DocumentsConfig
from data_prep.errors import NoUsableDocuments
from data_prep.prepare import prepare_documents
from data_prep.shards import ShardSource, read_queries
from data_prep.splits import SPLITS
from infra.store import LocalStore
from tests.unit.data_prep.making import Steps, prose, write_pdf


def digests(prepared) -> dict[str, str]:
    return {name: getattr(prepared, name).manifest.content_digest for name in (*SPLITS, "inventory")}


def inventory_of(prepared) -> dict:
    return prepared.inventory.json("inventory.json")


@pytest.fixture
def folder(six_documents, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(six_documents, tmp_path / "documents")


@pytest.fixture
def store(prepared, tmp_path) -> LocalStore:
    """A copy of the store in which the folder is prepared already."""
    return LocalStore(shutil.copytree(prepared.train.path.parents[1], tmp_path / "store"))


def test_an_unchanged_folder_is_not_read_again(folder, config, store, prepared, monkeypatch):
    monkeypatch.setattr(reading, "ProcessPool", None)  # no reader can be started
    steps = Steps()
    again = prepare_documents(folder, config, store, steps, workers=2)
    assert digests(again) == digests(prepared)
    assert steps.read() == 0


def test_another_store_gets_the_same_bytes(folder, config, prepared, tmp_path):
    steps = Steps()
    again = prepare_documents(folder, config, LocalStore(tmp_path / "other"), steps, workers=1)
    assert digests(again) == digests(prepared)
    assert steps.seen == [(n, 6, "reading documents") for n in range(1, 7)] + [
        (n, 3, "splitting") for n in range(1, 4)
    ]


def test_a_changed_document_changes_its_own_split_only(folder, config, store, prepared):
    name = "deep/d0.pdf"
    (own,) = next(e for e in inventory_of(prepared)["documents"] if e["path"] == name)["splits"]
    write_pdf(folder / name, [prose(500), prose(501)])
    steps = Steps()
    changed = digests(prepare_documents(folder, config, store, steps, workers=1))
    assert steps.read() == 1
    assert {split for split in SPLITS if changed[split] != digests(prepared)[split]} == {own}


def test_another_configuration_is_another_output(folder, config, prepared, tmp_path):
    pages = prepare_documents(
        folder, DocumentsConfig(unit="page"), LocalStore(tmp_path / "other"), Steps(), workers=1
    )
    records = [r for name in SPLITS for r in ShardSource(getattr(pages, name).path).records()]
    assert {record["block"] for record in records} == {None}
    assert digests(pages)["train"] != digests(prepared)["train"]


@pytest.mark.parametrize(
    "setting",
    [{"test_share": 0.5}, {"queries_per_sample": 1}, {"seed": 3}],
    ids=lambda setting: next(iter(setting)),
)
def test_settings_of_splits_and_queries_read_no_document_again(folder, store, setting):
    steps = Steps()
    prepare_documents(folder, DocumentsConfig(**setting), store, steps, workers=2)
    assert steps.read() == 0


def queries_beside(folder, *lines) -> None:
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_users_queries_alone_are_the_test_where_there_are_any(folder, config, store, prepared):
    document = next(e["path"] for e in inventory_of(prepared)["documents"] if e["splits"] == ["test"])
    queries_beside(
        folder,
        {"query": "where is the river", "document": document, "page": 1},
        {"query": "what is not here", "document": document, "page": 77},
    )
    with_queries = prepare_documents(folder, config, store, Steps(), workers=2)
    (query,) = read_queries(with_queries.test.path)
    source = ShardSource(with_queries.test.path)
    answers = [source[position] for position in source.positions_of(query.relevant).values()]
    assert len(answers) == len(query.relevant)
    assert query.text == "where is the river"
    assert {(sample.document, sample.page) for sample in answers} == {(document, 1)}
    assert read_queries(with_queries.train.path) == read_queries(prepared.train.path)
    assert inventory_of(with_queries)["warnings"] == ["queries.jsonl: 1 of 2 queries name unknown pages."]


def test_the_users_training_queries_stand_beside_made_ones(folder, config, store, prepared):
    document = next(e["path"] for e in inventory_of(prepared)["documents"] if e["splits"] == ["train"])
    queries_beside(folder, {"query": "where is the river", "document": document, "page": 1})
    with_queries = prepare_documents(folder, config, store, Steps(), workers=2)
    own, *made = read_queries(with_queries.train.path)
    assert own.text == "where is the river"
    assert made == read_queries(prepared.train.path)
    assert read_queries(with_queries.test.path) == read_queries(prepared.test.path)
    assert inventory_of(with_queries)["warnings"] == [
        "queries.jsonl has no query for the test pages; they get made ones."
    ]


def test_a_bad_line_of_queries_is_named(folder, config, store):
    queries_beside(folder, {"query": "a", "document": "b", "page": 1}, {"query": "a"})
    with pytest.raises(NoUsableDocuments, match=r"queries\.jsonl: line 2 is not"):
        prepare_documents(folder, config, store, Steps(), workers=2)


def test_images_with_more_text_than_a_block_are_searched_and_said(folder, config, store):
    page = Image.effect_noise((300, 200), 80)
    page.save(folder / "scan.png")
    (folder / "scan.txt").write_text("many words " * 40)
    prepared = prepare_documents(folder, config, store, Steps(), workers=1)
    [warning] = inventory_of(prepared)["warnings"]
    assert warning.startswith("1 page image(s) have more text") and 'unit "page"' in warning
    whole = dataclasses.replace(config, unit="page")
    assert inventory_of(prepare_documents(folder, whole, store, Steps(), workers=1))["warnings"] == []
