"""A bad file never ends a run and never vanishes; a folder with nothing usable says why in one line."""

import os
import tempfile
import time
from pathlib import Path

import pytest
from fpdf import FPDF
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.config import ReadingConfig
from data_prep.errors import NoUsableDocuments
from data_prep.reading import read_documents
from data_prep.shards import ShardSource
from data_prep.source_files import find_documents
from infra.store import LocalStore
from tests.unit.data_prep.making import (
    column,
    encrypted_pdf,
    endless_pdf,
    png_of,
    prepare,
    prose,
    read,
    swelling_pdf,
    tiff_of,
    write_pdf,
)

REASONS = {
    "empty.pdf": "empty file (0 bytes)",
    "encrypted.pdf": "encrypted: needs a password",
    "giant-page.pdf": "oversized: page 1 has 18,667 x 18,667 pixels, the limit is 64,000,000",
    "half.jpg": "broken image: image file is truncated",
    "half.pdf": "truncated PDF: the end-of-file marker is missing",
    "huge.png": "oversized",
    "latin.png": "the text beside it is not UTF-8: save it as UTF-8",
    "long.png": "the text beside it, long.txt, is too large: 1,048,577 bytes, the limit is 1,048,576",
    "link.pdf": "cannot be read: No such file or directory",
    "other.png": "broken image: it begins as no PNG, JPEG or TIFF",
    "text.pdf": "not a PDF: the file does not begin with %PDF-",
    "torn.pdf": "broken PDF",
}


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "documents").mkdir()
    return tmp_path / "documents"


def bad_files(folder: Path, scan) -> None:
    whole = write_pdf(folder / "half.pdf", [prose(number) for number in range(6)]).read_bytes()
    (folder / "half.pdf").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pdf").touch()
    encrypted_pdf(folder / "encrypted.pdf")
    giant = FPDF(unit="pt", format=(14_000, 14_000))
    giant.add_page()
    giant.output(str(folder / "giant-page.pdf"))
    scan.resize((400, 400)).save(folder / "half.jpg")
    (folder / "half.jpg").write_bytes((folder / "half.jpg").read_bytes()[:-900])
    (folder / "huge.png").write_bytes(png_of(30_000, 30_000))
    scan.save(folder / "latin.png")
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    scan.save(folder / "long.png")
    (folder / "long.txt").write_bytes(b"a" * (2**20 + 1))
    (folder / "link.pdf").symlink_to("nowhere.pdf")
    scan.save(folder / "other.png", format="GIF")
    (folder / "text.pdf").write_text("I am a text.")
    (folder / "torn.pdf").write_bytes(b"%PDF-1.7\n" + bytes(500) + b"%%EOF\n")


@pytest.mark.parametrize("pages", [2, 4])
def test_one_good_document_among_bad_ones_is_enough(folder, tmp_path, scan, pages):
    bad_files(folder, scan)
    write_pdf(folder / "good.pdf", [prose(number) for number in range(pages)], heading="The same heading")
    write_pdf(folder / "scanned.pdf", [[], [], [], [], []])
    (folder / "notes.docx").touch()
    prepared, _ = prepare(folder, tmp_path / "store")
    inventory = prepared.inventory.json("inventory.json")
    reasons = {entry["path"]: entry["reason"] for entry in inventory["documents"]}
    for name, reason in REASONS.items():
        assert reasons.pop(name).startswith(reason), name
    assert reasons.pop("notes.docx") == "neither a PDF nor a page image"
    assert reasons == {"good.pdf": None, "scanned.pdf": None}
    assert inventory["counts"] == {
        "used": 2, "quarantined": len(REASONS), "unsupported": 1, "refused_pages": 0, "left_out_characters": 0
    }  # fmt: skip
    for entry in inventory["documents"]:
        bad = "unsupported" if entry["path"] == "notes.docx" else "quarantined"
        assert entry["status"] == (bad if entry["reason"] else "used")
    assert "Only 1 document(s) with text" in inventory["warnings"][0]
    for split, queries in ((prepared.train, prepared.train_queries), (prepared.test, prepared.test_queries)):
        assert split.manifest.counts["trainable"]
        assert queries.manifest.counts["queries"]

    again, steps = prepare(folder, tmp_path / "store")
    assert again == prepared
    assert read(steps) == 0
    write_pdf(folder / "nowhere.pdf", [prose(50)])
    mended, steps = prepare(folder, tmp_path / "store")
    assert read(steps) == 2  # it, and the link, which points to something now
    statuses = {one["path"]: one["status"] for one in mended.inventory.json("inventory.json")["documents"]}
    assert statuses["link.pdf"] == statuses["nowhere.pdf"] == "used"


ENOUGH_TO_HANG = {"document_memory_bytes": 64 * 2**30}


@pytest.mark.parametrize(
    ("make", "limits", "reason"),
    [
        (endless_pdf, {"document_seconds": 1.5, **ENOUGH_TO_HANG}, "took longer than 1.5 s to read"),
        (swelling_pdf, {"document_memory_bytes": 2**28}, "the reader died on it (exit code -"),
    ],
)
def test_a_file_that_hangs_or_kills_the_reader_is_tried_again_next_time(tmp_path, make, limits, reason):
    make(tmp_path / "a.pdf")
    write_pdf(tmp_path / "b.pdf", [prose(1)])
    files, _ = find_documents(tmp_path)
    store = LocalStore(tmp_path / "store")
    bad, good = read_documents(files, ReadingConfig(**limits), store, print, workers=1)
    assert bad.reason.startswith(reason)
    assert (good.reason, good.pages) == (None, 1)
    assert store.names("document") == [good.samples.path.name]


def test_an_interrupt_does_not_wait_for_documents_that_are_being_read(tmp_path):
    for name in ("b.pdf", "c.pdf", "d.pdf"):
        endless_pdf(tmp_path / name)
    write_pdf(tmp_path / "a.pdf", [prose(1)])
    files, _ = find_documents(tmp_path)

    def interrupted(done: int, total: int, label: str) -> None:
        raise KeyboardInterrupt

    config, store = ReadingConfig(**ENOUGH_TO_HANG), LocalStore(tmp_path / "store")
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        read_documents(files, config, store, interrupted, workers=1)
    assert time.monotonic() - started < 60


@pytest.mark.timeout(60)
def test_what_is_no_regular_file_is_never_opened(tmp_path, scan):
    write_pdf(tmp_path / "a.pdf", [prose(1)])
    scan.save(tmp_path / "scan.png")
    os.mkfifo(tmp_path / "scan.txt")
    os.mkfifo(tmp_path / "pipe.pdf")
    (tmp_path / "pipe-link.pdf").symlink_to("pipe.pdf")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    documents, unsupported = find_documents(tmp_path)
    assert [file.name for file in documents] == ["a.pdf", "scan.png"]
    assert [one.name for one in unsupported] == ["pipe-link.pdf", "pipe.pdf", "scan.txt", "zero.png"]
    _, reading = read_documents(documents, ReadingConfig(), LocalStore(tmp_path / "store"), print, workers=1)
    assert list(ShardSource(reading.samples.path).texts()) == [""]


def refused(folder: Path, **settings) -> str:
    with pytest.raises(NoUsableDocuments) as caught:
        prepare(folder, folder.parent / "store", workers=1, **settings)
    message = str(caught.value)
    assert message.startswith(f"{folder}: ")
    assert "\n" not in message
    return message


def test_too_large_a_share_of_bad_files_names_the_first_reason(folder):
    write_pdf(folder / "a.pdf", [prose(1), prose(2)])
    (folder / "b.pdf").touch()
    message = refused(folder, max_quarantined_share=0.4)
    assert "1 of 2 document(s) cannot be used (limit 40%)" in message
    (folder / "a.pdf").write_text("text")
    assert "2 of 2 document(s) cannot be used" in (message := refused(folder))
    assert message.endswith("the first is a.pdf: not a PDF: the file does not begin with %PDF-")


def test_empty_and_missing_folders(folder, tmp_path):
    assert "no documents found (.pdf, " in refused(folder)
    (folder / "a.docx").touch()
    assert "among 1 file(s)" in refused(folder)
    assert "no such folder" in refused(tmp_path / "missing")


@pytest.mark.parametrize(
    ("pages", "reason"),
    [
        ([[], []], "to test with: none of their pages has text"),
        ([prose(1)], "to test with: too little text, and 0 part(s) of it repeat others"),
        ([prose(1), prose(1), prose(1)], "to train on: too little text, and 8 part(s) of it repeat others"),
        ([column("two words"), column("one river")], "to train on: too little text"),
    ],
    ids=["scans", "one page", "the same page", "one query"],
)
def test_usable_documents_without_enough_text(folder, pages, reason):
    write_pdf(folder / "a.pdf", pages)
    purpose, why = reason.split(": ")
    message = refused(folder)
    assert f"1 usable document(s) leave not enough text {purpose} (" in message
    assert f" needed): {why}" in message


def test_long_text_beside_images_asks_for_pages(folder, scan):
    for number in range(2):
        scan.rotate(90 * number).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("many words " * 40 + str(number))
    assert 'use unit "page"' in refused(folder)


def test_a_file_name_that_is_not_unicode_is_shown_and_read(tmp_path):
    write_pdf(tmp_path / "a.pdf", [prose(1)])
    (tmp_path / "a.pdf").rename(str(tmp_path).encode().decode() + "/caf\udce9.pdf")
    (file,), _ = find_documents(tmp_path)
    assert file.name == "caf\\xe9.pdf"
    (reading,) = read_documents([file], ReadingConfig(), LocalStore(tmp_path / "store"), print, workers=1)
    assert (reading.reason, reading.pages) == (None, 1)


def listed(folder: Path) -> tuple[dict[str, str | None], dict[str, str]]:
    """(the text of each document, the reason for every other entry), by name."""
    documents, unsupported = find_documents(folder)
    texts = {one.name: one.beside and one.beside.name for one in documents}
    return texts, {one.name: one.reason for one in unsupported}


@given(
    image=st.sampled_from(["png", "Png", "PNG", "TIF", "jpeg"]),
    text=st.sampled_from(["txt", "TXT", "Txt", "tXt"]),
)
def test_the_suffix_of_a_text_may_have_any_case_as_that_of_an_image(image, text):
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (image, text):
            (Path(folder) / f"SCAN.{suffix}").touch()
        assert listed(Path(folder)) == ({f"SCAN.{image}": f"SCAN.{text}"}, {})


def test_of_two_texts_beside_an_image_one_is_read_and_the_other_named(tmp_path, scan):
    scan.save(tmp_path / "scan.png")
    (tmp_path / "scan.Txt").write_text("another text")
    (tmp_path / "scan.TXT").write_text("a text")
    reason = "a second text beside an image, of which {} is read"
    assert listed(tmp_path) == ({"scan.png": "scan.TXT"}, {"scan.Txt": reason.format("scan.TXT")})
    (tmp_path / "scan.txt").write_text("the text")
    named = {name: reason.format("scan.txt") for name in ("scan.TXT", "scan.Txt")}
    assert listed(tmp_path) == ({"scan.png": "scan.txt"}, named)
    files, _ = find_documents(tmp_path)
    [reading] = read_documents(files, ReadingConfig(), LocalStore(tmp_path / "store"), print, workers=1)
    assert list(ShardSource(reading.samples.path).texts()) == ["the text"]


def test_what_cannot_be_read_as_a_text_stands_in_no_other_ones_way(tmp_path):
    for name in ("a.png", "a.TXT", "b.png", "B.txt"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "a.txt")
    (tmp_path / "b.txt").mkdir()
    assert listed(tmp_path) == (
        {"a.png": "a.TXT", "b.png": None},
        {"B.txt": "neither a PDF nor a page image", "a.txt": "no file but a pipe, a socket or a device"},
    )


def test_two_images_of_one_name_share_their_text(tmp_path):
    for name in ("scan.png", "scan.jpg", "scan.TXT"):
        (tmp_path / name).touch()
    assert listed(tmp_path) == ({"scan.png": "scan.TXT", "scan.jpg": "scan.TXT"}, {})


def test_a_text_beside_an_image_of_several_pages_is_named(folder, tmp_path):
    write_pdf(folder / "a.pdf", [prose(1), prose(2)])
    for name in ("pages.tif", "shared.tif"):
        (folder / name).write_bytes(tiff_of(3))
    for name in ("pages.TXT", "shared.txt"):
        (folder / name).write_text("some words")
    Image.effect_noise((64, 64), 80).save(folder / "shared.png")
    prepared, _ = prepare(folder, tmp_path / "store")
    entries = {one["path"]: one for one in prepared.inventory.json("inventory.json")["documents"]}
    assert entries.pop("pages.TXT")["reason"] == (
        "beside an image of 3 pages: it cannot say which page its words are on"
    )
    assert set(entries) == {"a.pdf", "pages.tif", "shared.tif", "shared.png"}


def test_queries_under_another_name_are_named(tmp_path):
    (tmp_path / "a.pdf").touch()
    (tmp_path / "below").mkdir()
    for name in ("Queries.JSONL", "below/queries.jsonl"):
        (tmp_path / name).touch()
    reason = "queries are read from queries.jsonl at the top of the folder only"
    assert listed(tmp_path)[1] == {"Queries.JSONL": reason, "below/queries.jsonl": reason}
