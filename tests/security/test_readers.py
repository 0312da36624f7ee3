"""What a reader says is checked; what went wrong meanwhile is never remembered."""

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep import reading
from data_prep.config import ReadingConfig
from data_prep.errors import ReaderFailure, UnreadableDocument
from data_prep.reader_answers import joined, read_answer
from data_prep.reading import read_documents
from data_prep.samples import PageNote, Sample, sample_key
from data_prep.source_files import find_documents
from infra.sandbox import Sandbox
from infra.store import LocalStore
from tests.security.hostile_reader import CANARY_FILE, FAILURES, lies
from tests.unit.data_prep.making import prose, write_pdf

HOSTILE = "tests.security.hostile_reader"
LIES = tuple(lies({"digest": "", "pages": 1}))


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "documents").mkdir()
    return tmp_path / "documents"


@pytest.fixture
def picture() -> Image.Image:
    return Image.radial_gradient("L")


def read(folder: Path, store: LocalStore, module: str | None = None, **settings) -> dict[str, str | None]:
    """{name: reason}, where the readers run this module."""
    files, _ = find_documents(folder)
    with pytest.MonkeyPatch.context() as patch:
        if module:
            patch.setattr(reading, "Sandbox", lambda **parts: Sandbox(**parts | {"module": module}))
        config = ReadingConfig(**settings)
        readings = read_documents(files, config, store, lambda *step: None, workers=2)
    return {one.source.name: one.reason for one in readings}


def test_a_lying_reader_is_not_believed_and_nothing_of_it_is_run(folder, tmp_path):
    whole = write_pdf(tmp_path / "whole.pdf", [prose(1)]).read_bytes()
    for name in LIES:
        (folder / f"{name}.pdf").write_bytes(whole + name.encode())
    Path(CANARY_FILE).unlink(missing_ok=True)
    store = LocalStore(tmp_path / "store")
    reasons = read(folder, store, HOSTILE)
    digests = ("wrong-digest.pdf", "refused-with-a-wrong-digest.pdf")
    for name, reason in reasons.items():
        expected = "it changed while it was read" if name in digests else "its reader gave a malformed answer"
        assert reason.startswith(expected), name
    assert not Path(CANARY_FILE).exists()
    assert store.names("document") == []
    assert set(read(folder, store).values()) == {None}


@pytest.mark.chaos
def test_what_the_machine_refused_is_tried_again(folder, tmp_path, picture):
    whole = write_pdf(tmp_path / "whole.pdf", [prose(1)]).read_bytes()
    for name in (*FAILURES, "memory"):
        (folder / f"{name}.pdf").write_bytes(whole + name.encode())
    for name in ("decoder", "pillow-memory"):
        picture.save(folder / f"{name}.png")
    store = LocalStore(tmp_path / "store")
    reasons = read(folder, store, HOSTILE)
    assert reasons.pop("memory.pdf") == "needs more memory than one document may use"
    assert reasons.pop("EIO.pdf") == reasons.pop("decoder.png") == "cannot be read: Input/output error"
    assert all(reason.startswith("cannot be read: ") for reason in reasons.values())
    assert store.names("document") == []
    assert set(read(folder, store).values()) == {None}


@pytest.mark.parametrize("settings", [{"document_memory_bytes": 2**27}, {"max_sample_bytes_per_document": 1}])
def test_a_document_beyond_the_memory_is_tried_again_and_one_beyond_the_bytes_is_not(
    folder, tmp_path, picture, settings
):
    picture.resize((6000, 6000)).save(folder / "a.tiff", compression="tiff_lzw")
    store = LocalStore(tmp_path / "store")
    [reason] = read(folder, store, **settings).values()
    if "document_memory_bytes" in settings:
        assert reason.startswith(("needs more memory", "the reader died on it", "cannot be read: out of mem"))
        assert store.names("document") == []
    else:
        assert reason == "its samples take more than 1 bytes, the limit"
        assert len(store.names("document")) == 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_samples_per_document": 3}, "more than 3 samples, the limit"),
        ({"max_page_characters": 40}, "a page has "),
        ({"max_pages_per_document": 1}, "2 pages, the limit is 1"),
        ({"max_document_bytes": 100}, "too large: "),
    ],
)
def test_each_limit_is_named(folder, tmp_path, settings, reason):
    write_pdf(folder / "a.pdf", [prose(1), prose(2)])
    assert read(folder, LocalStore(tmp_path / "store"), **settings)["a.pdf"].startswith(reason)


def test_a_text_beside_an_image_counts_as_its_page(folder, tmp_path, picture):
    picture.save(folder / "a.png")
    (folder / "a.txt").write_text("many words " * 100)
    reasons = read(folder, LocalStore(tmp_path / "store"), max_page_characters=1_000)
    assert reasons == {"a.png": "a page has 1,099 characters, the limit is 1,000"}


DIGEST = "d" * 64


def honest_answer(texts: list[str]) -> bytes:
    Image.new("L", (32, 16), 7).save(buffer := io.BytesIO(), format="PNG")
    png = buffer.getvalue()
    record = {
        "kind": "sample", "is_heading": False, "width": 32, "height": 16, "block": None,
        "box": [0, 0, 32, 16], "ink": [7, 7], "reason": None, "png_bytes": len(png),
    }  # fmt: skip
    lines = [
        json.dumps(record | {"page": page, "text": text}).encode() + b"\n" + png
        for page, text in enumerate(texts, start=1)
    ]
    return json.dumps({"digest": DIGEST, "pages": len(texts)}).encode() + b"\n" + b"".join(lines)


def taken(answer: bytes, config: ReadingConfig | None = None) -> list[Sample | PageNote]:
    """What a document is that was read at once."""
    config = config or ReadingConfig()
    read = read_answer(io.BytesIO(answer), "a.pdf", DIGEST, config, range(1, 17))
    return list(joined([read], config))


def test_an_honest_answer_is_taken_with_the_name_that_the_caller_knows():
    samples = taken(honest_answer(["một", "hai"]))
    assert [(one.document, one.page, one.text) for one in samples] == [
        ("a.pdf", 1, "một"),
        ("a.pdf", 2, "hai"),
    ]
    assert [one.key for one in samples] == [sample_key("a.pdf", page, None) for page in (1, 2)]
    assert samples[0].image().size == (32, 16)


def test_an_answer_of_more_samples_than_a_document_may_have_is_none():
    answer, config = honest_answer(["one", "two"]), ReadingConfig(max_samples_per_document=1)
    with pytest.raises(UnreadableDocument, match="more than 1 samples, the limit"):
        taken(answer, config)


def test_a_document_has_no_more_pages_than_allowed_and_as_many_in_every_answer():
    with pytest.raises(ReaderFailure, match="malformed"):
        taken(honest_answer(["one", "two"]), ReadingConfig(max_pages_per_document=1))
    config, parts = ReadingConfig(), []
    for pages, asked in ((2, range(1, 3)), (4, range(3, 5))):
        notes = [{"kind": "note", "page": page, "refused": "no", "left_out": {}} for page in asked]
        lines = [{"digest": DIGEST, "pages": pages}, *notes]
        answer = io.BytesIO(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        parts.append(read_answer(answer, "a.pdf", DIGEST, config, asked))
    with pytest.raises(ReaderFailure, match="malformed"):
        list(joined(parts, config))


@given(st.data())
def test_an_answer_that_was_changed_anywhere_gives_samples_or_one_of_two_errors(data):
    answer = bytearray(honest_answer(["river", "stone"]))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(answer)))
        end = start + data.draw(st.integers(0, 8))
        answer[start:end] = data.draw(st.binary(max_size=8) | st.sampled_from([b"\n", b"{", b"9" * 30, b'"']))
    try:
        samples = taken(bytes(answer))
    except (ReaderFailure, UnreadableDocument):
        return
    assert samples
    for sample in samples:
        assert sample.key == sample_key("a.pdf", sample.page, sample.block)
        assert sample.png.startswith(b"\x89PNG") and sample.width * sample.height <= 320 * 96
        sample.text.encode()
