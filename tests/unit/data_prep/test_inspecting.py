"""What `lco inspect` reads is what a run reads."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.config import DocumentsConfig
from data_prep.inspecting import Inspected, given_documents, inspect_documents, page_pictures
from data_prep.reading import read_documents
from data_prep.samples import PageNote
from data_prep.shards import ShardSource
from data_prep.source_files import find_documents
from infra.store import LocalStore
from tests.unit.data_prep.making import encrypted_pdf, prose, write_pdf

CONFIG = DocumentsConfig().reading


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given(*paths: str) -> tuple[list[tuple[str, str | None]], list[tuple[str, str]]]:
    """The documents' names with those of their texts, and what is none."""
    documents, unsupported = given_documents([Path(path) for path in paths])
    texts = [(one.name, one.beside and one.beside.name) for one in documents]
    return texts, [(one.name, one.reason) for one in unsupported]


def test_documents_are_called_as_they_were_named_and_come_once(here):
    for name in ("a/x.pdf", "b/x.pdf", "b/deep/y.PDF", "b/notes.odt"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).touch()
    named = ("b/x.pdf", "a/x.pdf", "./b", str(here / "a"), "no.pdf")
    documents, others = given(*named)
    assert [name for name, _ in documents] == [
        "b/x.pdf", "a/x.pdf", "b/deep/y.PDF", f"{here}/a/x.pdf", "no.pdf"
    ]  # fmt: skip
    assert others == [("b/notes.odt", "neither a PDF nor a page image")]
    assert given(".")[0] == [("a/x.pdf", None), ("b/deep/y.PDF", None), ("b/x.pdf", None)]


def test_an_image_takes_the_text_beside_it_as_in_a_run(here, scan):
    scan.save(here / "a.png")
    scan.save(here / "b.png")
    (here / "a.TXT").touch()
    assert given("a.png", "b.png") == ([("a.png", "a.TXT"), ("b.png", None)], [])
    assert given("a.TXT", "a.png") == ([("a.png", "a.TXT")], []), "as a shell gives a*"
    assert given("a.TXT") == ([], [("a.TXT", "neither a PDF nor a page image")])
    files, _ = find_documents(here)
    assert [(one.name, one.beside and one.beside.name) for one in files] == given("a.png", "b.png")[0]


def test_what_cannot_be_a_document_is_named_and_the_others_are_read(here):
    os.mkfifo(here / "pipe.pdf")
    (here / "empty").mkdir()
    (here / "a.pdf").touch()
    documents, others = given("pipe.pdf", "empty", "a.pdf")
    assert [name for name, _ in documents] == ["a.pdf"]
    assert others[0] == ("pipe.pdf", "no file but a pipe, a socket or a device")
    assert others[1][0] == "empty" and others[1][1].startswith("no documents found (.pdf, .png")


def test_a_documents_samples_are_those_of_a_run_without_their_images(here):
    for name in ("a.pdf", "c.pdf"):
        write_pdf(here / name, [prose(1, lines=2), prose(2, lines=2)])
    encrypted_pdf(here / "b.pdf")
    files, _ = given_documents([Path()])
    readings = read_documents(files, CONFIG, LocalStore(here / "store"), lambda *step: None, workers=2)
    inspected = list(inspect_documents(files, CONFIG, workers=2))
    assert [(one.name, one.reason) for one in inspected] == [
        (one.source.name, one.reason) for one in readings
    ]
    for one, reading in zip(inspected, readings, strict=True):
        samples = ShardSource(reading.samples.path) if reading.samples else []
        assert one.samples == [replace(sample, png=b"") for sample in samples]
    assert inspected[0].summary().pages == 2 and inspected[0].summary().blocks == 4
    assert inspected[1].outcome().summary is None


def test_pictures_are_of_whole_pages_in_the_pixels_of_the_boxes(here, scan):
    write_pdf(here / "a.pdf", [prose(1), prose(2)])
    (here / "b.pdf").write_bytes(b"no document")
    scan.save(here / "c.png")
    files, _ = given_documents([Path()])
    shown = [list(pictures) for pictures in page_pictures(files, CONFIG, workers=2)]
    assert [len(pictures) for pictures in shown] == [2, 0, 1]
    for document, pictures in zip(inspect_documents(files, CONFIG, workers=2), shown, strict=True):
        for sample in document.samples:
            page = pictures[sample.page - 1]
            assert page.image().size == page.box[2:]
            assert page.image().crop(sample.box).getextrema() == sample.ink


def test_pages_and_characters_that_are_left_out_are_counted():
    notes = [
        PageNote(page=1, left_out={"white": 3}),
        PageNote(page=4, refused="no area", left_out={"white": 2}),
    ]
    summary = Inspected(name="a", parts=notes).summary()
    assert (summary.pages, summary.left_out, summary.refused_pages) == (4, {"white": 5}, {"no area": 1})
    both = summary + summary
    assert (both.pages, both.left_out, both.refused_pages) == (8, {"white": 10}, {"no area": 2})
