"""A document is the same whoever reads which of its pages, and what it lacks is told."""

import shutil
import subprocess
import sys
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import reading
from data_prep.config import ReadingConfig
from data_prep.reading import Reading, read_documents
from data_prep.shards import ShardSource
from data_prep.source_files import find_documents
from infra.sandbox import Sandbox
from infra.store import LocalStore
from tests.unit.data_prep.making import prepare, prose, tiff_of, write_pdf
from tests.unit.data_prep.troubled_reader import LEFT_OUT

PAGES = 11


@pytest.fixture(autouse=True)
def trouble(monkeypatch):
    """What the names of the documents tell."""
    module = "tests.unit.data_prep.troubled_reader"
    monkeypatch.setattr(reading, "Sandbox", lambda **parts: Sandbox(**parts | {"module": module}))


@pytest.fixture(scope="module")
def long_pdf(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.pdf"
    return write_pdf(path, [prose(number) for number in range(PAGES)])


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "documents").mkdir()
    return tmp_path / "documents"


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def in_ranges(monkeypatch):
    monkeypatch.setattr(reading, "FIRST_PAGES", 2)


def read(folder: Path, store: LocalStore, *, workers: int = 2, progress=lambda *step: None, **settings):
    files, _ = find_documents(folder)
    return read_documents(files, ReadingConfig(**settings), store, progress, workers=workers)


def digests(readings: list[Reading]) -> list[str]:
    return [one.samples.manifest.content_digest for one in readings]


def test_a_document_is_the_same_whoever_reads_which_of_its_pages(folder, tmp_path, long_pdf, monkeypatch):
    for name in ("a.pdf", "b refused=2,3,11 left_out=1,6,8.pdf", "c refused=1.pdf"):
        shutil.copy(long_pdf, folder / name)
    write_pdf(folder / "short.pdf", [prose(50)])
    (folder / "frames.tiff").write_bytes(tiff_of(7))
    at_once = read(folder, LocalStore(tmp_path / "at-once"), workers=1)
    assert [one.pages for one in at_once] == [PAGES, PAGES, PAGES, 7, 1]
    for first_pages, workers in ((1, 1), (2, 1), (2, 2), (3, 4), (10, 2)):
        monkeypatch.setattr(reading, "FIRST_PAGES", first_pages)
        again = read(folder, LocalStore(tmp_path / f"{first_pages}-{workers}"), workers=workers)
        assert digests(again) == digests(at_once)


@given(pages=st.integers(1, 5_000), workers=st.integers(1, 64), first=st.integers(1, 40))
def test_the_ranges_of_a_document_are_few_and_hold_every_page_once(pages, workers, first):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "FIRST_PAGES", first)
        ranges = [range(1, first + 1), *reading._other_ranges(pages, workers)]
    read = [page for one in ranges for page in one if page <= pages]
    assert read == list(range(1, pages + 1))
    assert len(ranges) <= 1 + max(workers, ceil(pages / reading.MOST_PAGES))
    assert all(first <= len(one) <= max(first, reading.MOST_PAGES) for one in ranges)
    assert all(one.start <= pages for one in ranges)


def test_the_progress_of_a_long_document_is_shown(folder, store, long_pdf, in_ranges, monkeypatch):
    monkeypatch.setattr(reading, "MOST_PAGES", 5)
    shutil.copy(long_pdf, folder / "a.pdf")
    write_pdf(folder / "b.pdf", [prose(50)])
    steps = []
    read(folder, store, workers=1, progress=lambda *step: steps.append(step))
    assert steps == [
        (0, 2, "reading page 2 of 11 of a.pdf"),
        (1, 2, "reading documents"),
        (1, 2, "reading page 7 of 11 of a.pdf"),
        (2, 2, "reading documents"),
    ]


def test_pages_that_cannot_be_used_and_characters_left_out_are_told(folder, tmp_path, long_pdf):
    name = "refused=2,5 left_out=1,7.pdf"
    shutil.copy(long_pdf, folder / name)
    prepared, _ = prepare(folder, tmp_path / "store")
    inventory = prepared.inventory.json("inventory.json")
    [document] = inventory["documents"]
    assert document["status"] == "used" and document["pages"] == PAGES
    assert document["refused_pages"] == 2
    assert document["first_refused_pages"] == [
        {"page": page, "reason": f"bad page {page}"} for page in (2, 5)
    ]
    assert document["left_out_characters"] == {reason: 2 * count for reason, count in LEFT_OUT.items()}
    assert prepared.inventory.manifest.counts["refused_pages"] == 2
    assert prepared.inventory.manifest.counts["left_out_characters"] == 8
    samples = [one for split in (prepared.train, prepared.validation, prepared.test)
               for one in ShardSource(split.path).records()]  # fmt: skip
    assert {one["page"] for one in samples} == {1, 3, 4, *range(6, PAGES + 1)}


def test_a_document_whose_pages_are_all_refused_has_the_first_ones_reason(folder, store, long_pdf, in_ranges):
    shutil.copy(long_pdf, folder / f"refused={','.join(map(str, range(1, PAGES + 1)))}.pdf")
    for _ in range(2):
        [one] = read(folder, store)
        assert (one.samples, one.pages, one.reason) == (None, 0, "bad page 1")
    [name] = store.names("document")
    assert [entry.path for entry in store.find("document", name).manifest.files] == ["summary.json"]


def test_the_first_twenty_pages_that_cannot_be_used_are_named(folder, store, in_ranges):
    refused = range(1, 24)
    write_pdf(folder / f"refused={','.join(map(str, refused))}.pdf", [prose(number) for number in range(24)])
    [one] = read(folder, store)
    assert one.refused_pages == 23
    assert [page["page"] for page in one.first_refused_pages] == list(range(1, 21))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_samples_per_document": 3 * PAGES}, "more than 33 samples, the limit"),
        ({"max_sample_bytes_per_document": 50_000}, "its samples take more than 50,000 bytes, the limit"),
        ({"max_pages_per_document": PAGES - 1}, "11 pages, the limit is 10"),
    ],
)
def test_limits_hold_for_all_pages_of_a_document_together(
    folder, store, long_pdf, in_ranges, settings, reason
):
    shutil.copy(long_pdf, folder / "a.pdf")
    [one] = read(folder, store, **settings)
    assert one.reason == reason
    assert len(store.names("document")) == 1


def test_a_reader_that_dies_on_a_late_page_fails_the_document(folder, store, long_pdf, monkeypatch):
    shutil.copy(long_pdf, folder / "dies=4.pdf")
    write_pdf(folder / "good.pdf", [prose(50)])
    asked, start = [], reading._start
    monkeypatch.setattr(reading, "FIRST_PAGES", 1)
    monkeypatch.setattr(reading, "MOST_PAGES", 3)
    monkeypatch.setattr(reading, "_start", lambda *call: asked.append(call[-1]) or start(*call))
    bad, good = read(folder, store, workers=2)
    assert bad.reason == "the reader died on it (exit code 3)" and good.reason is None
    assert store.names("document") == [good.samples.path.name]
    assert range(8, 11) in asked and range(11, 14) not in asked, "what can be of no use is not asked for"


def test_a_document_that_changes_between_its_pages_is_not_committed(folder, store, long_pdf, in_ranges):
    shutil.copy(long_pdf, folder / "a.pdf")

    def changed(*step) -> None:
        if step[0] == 0:
            write_pdf(folder / "a.pdf", [prose(100 + number) for number in range(PAGES)])

    [one] = read(folder, store, workers=1, progress=changed)
    assert one.reason == "it changed while it was read"
    assert store.names("document") == []


def test_what_checks_its_answer_is_not_loaded_where_a_reader_starts():
    loaded = "import sys, infra.sandbox, data_prep.reader; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert not {"pydantic", "data_prep.reader_answers", "data_prep.queries"} & set(modules.stdout.split())
    assert "numpy.ma" in modules.stdout.split(), "or each of its children would load it"
