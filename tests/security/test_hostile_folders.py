"""Whatever lies in a folder, and changes: each entry is listed once, and an output is what its name says."""

import errno
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep import reading, source_files
from data_prep.config import ReadingConfig
from data_prep.errors import NoUsableDocuments
from data_prep.reading import Reading, read_documents
from data_prep.source_files import find_documents, shown_name
from infra.store import LocalStore
from tests.unit.data_prep.making import encrypted_pdf, png_of, prepare, prose, write_pdf

NAMES = [
    b"\xff.pdf", rb"\xff.pdf", rb"\\xff.pdf", b"a\nb.pdf", rb"a\nb.pdf", b"\x1b[31mred.pdf",
    b"\xe2\x80\xa8.pdf", b"x" * 251 + b".pdf", "é.pdf".encode(), "e\u0301.pdf".encode(), b" .pdf",
    b".pdf", b"-rf.pdf", b"\\.pdf", "\u202efdp.pdf".encode(),
    b"\xed\xa0\x80.pdf", b"\xf0\x9f\x98\x80" * 62 + b".pdf",
]  # fmt: skip


def kinds(tmp_path: Path) -> dict[str, Callable[[bytes], None]]:
    """What may stand under a name."""
    whole = write_pdf(tmp_path / "whole.pdf", [prose(1), prose(2)]).read_bytes()
    encrypted = encrypted_pdf(tmp_path / "encrypted.pdf").read_bytes()

    def holding(content: bytes) -> Callable[[bytes], None]:
        def make(path: bytes) -> None:
            with open(path, "wb") as file:
                file.write(content)

        return make

    def bound(path: bytes) -> None:
        """A socket; its address is too long for most names."""
        short = os.fsencode(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(short)
        os.rename(short, path)

    return {
        "empty": holding(b""),
        "text": holding(b"I am a text."),
        "half": holding(whole[: len(whole) // 2]),
        "encrypted": holding(encrypted),
        "picture": holding(png_of(10, 10)),
        "nowhere": lambda path: os.symlink("nowhere", path),
        "itself": lambda path: os.symlink(path, path),
        "a-folder": lambda path: os.symlink(tmp_path, path),
        "a-device": lambda path: os.symlink("/dev/zero", path),
        "pipe": os.mkfifo,
        "socket": bound,
    }


def listing(prepared) -> list[dict]:
    return prepared.inventory.json("inventory.json")["documents"]


def test_every_entry_is_listed_once_with_its_reason(tmp_path):
    folder = tmp_path / "documents"
    for number in range(10):
        (folder / f"good-{number}").mkdir(parents=True)
        write_pdf(folder / f"good-{number}" / "a.pdf", [prose(10 * number), prose(10 * number + 1)])
    made = kinds(tmp_path)
    for kind, make in made.items():
        (folder / kind).mkdir()
        for name in NAMES:
            make(os.fsencode(folder / kind) + b"/" + name)
    prepared, _ = prepare(folder, tmp_path / "store")
    entries = listing(prepared)
    paths = [entry["path"] for entry in entries]
    assert len(set(paths)) == len(paths) == len(NAMES) * len(made) + 10
    assert all("\n" not in path and "\x1b" not in path and path.encode() for path in paths)
    bad = [entry for entry in entries if entry["status"] != "used"]
    assert len(bad) == len(NAMES) * len(made) and all(entry["reason"] for entry in bad)
    said = {kind: {e["reason"] for e in bad if e["path"].startswith(f"{kind}/")} for kind in made}
    assert said["nowhere"] == {"cannot be read: No such file or directory"}
    assert said["itself"] == {"cannot be read: Too many levels of symbolic links"}
    assert said["a-folder"] == {"a link to a folder, which is not followed"}
    for kind in ("a-device", "pipe", "socket"):
        assert said[kind] == {"no file but a pipe, a socket or a device"}
    again, steps = prepare(folder, tmp_path / "store")
    assert again == prepared and steps == []


@given(st.lists(st.binary(min_size=1, max_size=12), min_size=2, max_size=2, unique=True))
def test_two_names_are_never_shown_as_one(names):
    names = [one.replace(b"/", b"_").replace(b"\0", b"_") for one in names]
    first, second = (shown_name(PurePath(os.fsdecode(name))) for name in names)
    assert (first == second) == (PurePath(os.fsdecode(names[0])) == PurePath(os.fsdecode(names[1])))
    first.encode()
    assert len(first.splitlines()) == 1


@given(st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="\\/"), min_size=1))
def test_a_usual_name_is_shown_as_it_is(name):
    assert shown_name(PurePath("folder", name)) == str(PurePath("folder", name))


def test_samples_of_twins_do_not_replace_each_other(tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    for number, name in enumerate((b"\xff.pdf", rb"\xff.pdf", "é.pdf".encode(), "e\u0301.pdf".encode())):
        whole = write_pdf(tmp_path / "whole.pdf", [prose(number), prose(10 + number)])
        os.rename(whole, os.fsencode(folder) + b"/" + name)
    prepared, _ = prepare(folder, tmp_path / "store")
    assert [entry["status"] for entry in listing(prepared)] == ["used"] * 4
    samples = [
        split.manifest.counts["samples"] for split in (prepared.train, prepared.validation, prepared.test)
    ]
    assert sum(samples) == 4 * 8


def refusing(function: Callable, refused: Path, number: int) -> Callable:
    """A file system that refuses one path, as root is refused nothing."""

    def maybe(path, *arguments, **keywords):
        if not isinstance(path, int) and os.fspath(path) == os.fspath(refused):
            raise OSError(number, os.strerror(number), os.fspath(path))
        return function(path, *arguments, **keywords)

    return maybe


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_an_unreadable_folder_is_shown_like_a_bad_file(tmp_path, monkeypatch, number):
    folder = tmp_path / "documents"
    (folder / "locked").mkdir(parents=True)
    for name in ("a.pdf", "b.pdf"):
        write_pdf(folder / name, [prose(1), prose(2)])
    write_pdf(folder / "locked" / "c.pdf", [prose(5), prose(6)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refusing(os.scandir, folder / "locked", number))
        patch.setattr(os, "open", refusing(os.open, folder / "locked", number))
        entries = {one["path"]: one for one in listing(prepare(folder, tmp_path / "store")[0])}
    assert (entries["locked"]["status"], entries["locked"]["reason"]) == (
        "quarantined", f"cannot be read: {os.strerror(number)}",
    )  # fmt: skip
    assert "locked/c.pdf" in {one["path"] for one in listing(prepare(folder, tmp_path / "store")[0])}
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refusing(os.scandir, folder, number))
        with pytest.raises(NoUsableDocuments, match=f"cannot be listed: {os.strerror(number)}"):
            prepare(folder, tmp_path / "store")


def test_what_permissions_forbid_is_listed(tmp_path):
    folder = tmp_path / "documents"
    for name in ("no-listing", "no-entry"):
        (folder / name).mkdir(parents=True)
        write_pdf(folder / name / "a.pdf", [prose(1)])
    write_pdf(folder / "a.pdf", [prose(2), prose(3)])
    write_pdf(folder / "b.pdf", [prose(4)]).chmod(0)
    (folder / "no-listing").chmod(0o300)
    (folder / "no-entry").chmod(0o600)
    if os.access(folder / "b.pdf", os.R_OK):
        pytest.skip("this user may read everything")
    try:
        entries = {one["path"]: one["reason"] for one in listing(prepare(folder, tmp_path / "store")[0])}
    finally:
        for name in ("no-listing", "no-entry"):
            (folder / name).chmod(0o700)
    refused = "cannot be read: Permission denied"
    assert entries == {"a.pdf": None, "b.pdf": refused, "no-entry/a.pdf": refused, "no-listing": refused}


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOMEM, errno.EACCES]
)
def test_a_file_that_cannot_be_opened_once_is_read_next_time(tmp_path, monkeypatch, number):
    path = write_pdf(tmp_path / "a.pdf", [prose(1)])
    store = LocalStore(tmp_path / "store")
    for step in ("digest_of", "_start"):
        with monkeypatch.context() as patch:
            broken = refusing(os.open, path, number)
            original = getattr(reading, step)

            def failing(*arguments, broken=broken, original=original):
                with pytest.MonkeyPatch.context() as inner:
                    inner.setattr(os, "open", broken)
                    return original(*arguments)

            patch.setattr(reading, step, failing)
            [failed] = read_all(tmp_path, store)
        assert failed.reason == f"cannot be read: {os.strerror(number)}"
        assert store.names("document") == []
    [healthy] = read_all(tmp_path, store)
    assert healthy.reason is None


def read_all(folder: Path, store: LocalStore, before: Callable[[], None] = lambda: None) -> list[Reading]:
    files, _ = find_documents(folder)
    before()
    return read_documents(files, ReadingConfig(), store, lambda *step: None, workers=2)


def replaced(path: Path) -> None:
    write_pdf(path.with_suffix(".new"), [prose(50), prose(51)]).rename(path)


def overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100:-80] = bytes(20)
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(10))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def with_another_text(path: Path) -> None:
    path.with_suffix(".txt").write_text("another text of the page")


def without_its_text(path: Path) -> None:
    path.with_suffix(".txt").unlink()


CHANGES = (replaced, overwritten, cut, grown, Path.unlink, a_folder, a_pipe, a_link_to_nothing)
CHANGES_BESIDE = (with_another_text, without_its_text)


def outputs_in(store: LocalStore) -> dict[tuple[str, str], str]:
    """{(name of the output, digest of the file): digest of its content}"""
    found = {}
    for name in store.names("document"):
        manifest = store.find("document", name).manifest
        found[name, manifest.inputs["file"]] = manifest.content_digest
    return found


@pytest.mark.chaos
@pytest.mark.parametrize("step", ["listed", "hashed", "started", "read"])
def test_a_document_that_changes_is_never_committed_as_another(tmp_path, monkeypatch, step):
    folder = tmp_path / "documents"
    folder.mkdir()
    for number, change in enumerate(CHANGES):
        write_pdf(folder / f"{change.__name__}.pdf", [prose(number), prose(10 + number)])
    for number, change in enumerate(CHANGES_BESIDE):
        Image.new("L", (100, 50), 40 * number).save(folder / f"{change.__name__}.png")
        (folder / f"{change.__name__}.txt").write_text("the text of the page")
    shutil.copytree(folder, tmp_path / "before")
    pending = {change.__name__: change for change in (*CHANGES, *CHANGES_BESIDE)}

    def change(path: Path) -> None:
        if act := pending.pop(path.stem, None):
            act(path)

    def change_all() -> None:
        for path in sorted(folder.glob("*.p*")):
            change(path)

    start, take_in = reading._start, reading.reader_answers.read_answer

    def started(sandbox, file, config, pages):
        if step == "hashed":
            change(file.path)
        call = start(sandbox, file, config, pages)
        if step == "started":
            change(file.path)
        return call

    def taken_in(answer, name, digest, config, pages):
        if step == "read":
            change(folder / name)
        return take_in(answer, name, digest, config, pages)

    store = LocalStore(tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(reading, "_start", started)
        patch.setattr(reading.reader_answers, "read_answer", taken_in)
        readings = read_all(folder, store, before=change_all if step == "listed" else lambda: None)
    assert not pending, "each was changed"
    assert len(readings) == len(CHANGES) + len(CHANGES_BESIDE)
    true_before, true_after = LocalStore(tmp_path / "true-before"), LocalStore(tmp_path / "true-after")
    read_all(tmp_path / "before", true_before)
    after = read_all(folder, true_after)
    true = outputs_in(true_before) | outputs_in(true_after)
    committed = outputs_in(store)
    assert committed.items() <= true.items()
    again = read_all(folder, store)
    assert [(one.source, one.reason, one.pages) for one in again] == [
        (one.source, one.reason, one.pages) for one in after
    ]
    assert outputs_in(true_after).items() <= outputs_in(store).items() <= true.items()


def test_what_vanishes_between_listing_and_reading_has_a_reason(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", [prose(1)])
    [one] = read_all(tmp_path, LocalStore(tmp_path / "store"), before=path.unlink)
    assert one.reason == "cannot be read: No such file or directory"


def test_a_file_is_not_hashed_before_its_size_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(source_files, "_digest_of_part", None)
    with (tmp_path / "a.pdf").open("wb") as file:
        file.truncate(2**40)
    [one] = read_all(tmp_path, LocalStore(tmp_path / "store"))
    assert one.reason == "too large: 1,099,511,627,776 bytes, the limit is 536,870,912"
