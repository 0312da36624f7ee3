"""A reader sees a committed output or none; a damaged one is a loud error that names the file."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from infra.store import (
    ATTEMPTS,
    MANIFEST,
    CommitConflict,
    Committed,
    CorruptOutput,
    LocalStore,
    StoreError,
    open_store,
)

ROOT = Path(__file__).resolve().parents[3]
FILES = {"training.json": b'{"loss": 1}', "model/weights.bin": bytes(range(256)) * 20, "model/empty": b""}


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def commit(store: LocalStore, files: dict[str, bytes] = FILES, *, fingerprint="f1", **fields) -> Committed:
    with store.attempt("pretrain", fingerprint) as attempt:
        fill(attempt.path, files)
        return attempt.commit(**{"inputs": {"shards": "aa"}, "configuration": {}, "counts": {}} | fields)


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_a_commit_is_found_and_reads_back_equal(store):
    made = commit(store, configuration={"doses": (0, 300)}, counts={"files": 3})
    assert store.find("pretrain", "f1") == made == store.open(made.path)
    assert open_store(str(store.root)).find("pretrain", "f1") == made
    assert made.manifest.configuration == {"doses": [0, 300]}
    assert [entry.path for entry in made.manifest.files] == sorted(FILES)
    assert not list((store.root / ATTEMPTS).iterdir())


def test_one_file_is_read_and_verified_alone(store):
    made = commit(store)
    (made.path / "model/weights.bin").write_bytes(bytes(5120))  # of the same size
    opened = store.open(made.path)  # cheap: no byte of the weights is read
    assert opened == made
    assert opened.json("training.json") == {"loss": 1}
    assert opened.read("model/empty") == b""
    for file, words in (("model/weights.bin", "SHA-256 differs"), ("other.json", "not in the manifest")):
        with pytest.raises(CorruptOutput, match=f"{file} is damaged.*{words}"):
            opened.read(file)
    with pytest.raises(CorruptOutput, match=r"weights\.bin is damaged"):
        store.find("pretrain", "f1")
    (made.path / "training.json").unlink()
    with pytest.raises(CorruptOutput, match=r"training\.json is damaged"):
        opened.read("training.json")


def test_an_attempt_without_commit_leaves_nothing(store):
    with pytest.raises(ZeroDivisionError), store.attempt("pretrain", "f1") as attempt:
        fill(attempt.path, FILES)
        raise ZeroDivisionError
    assert store.find("pretrain", "f1") is None
    assert not attempt.path.exists()


NAMES = st.lists(st.text("abcé .-_", min_size=1, max_size=8), min_size=1, max_size=3).map("/".join)
NAMES = NAMES.filter(lambda name: all(part.strip(". ") and part != MANIFEST for part in name.split("/")))


@settings(max_examples=40, deadline=None)
@given(files=st.dictionaries(NAMES, st.binary(max_size=200), min_size=1, max_size=5))
def test_any_files_round_trip(tmp_path_factory, files):
    folders = {str(parent) for name in files for parent in Path(name).parents}
    files = {name: content for name, content in files.items() if name not in folders}
    store = LocalStore(tmp_path_factory.mktemp("store"))
    made = commit(store, files)
    found = store.find("pretrain", "f1")
    assert {e.path: (found.path / e.path).read_bytes() for e in found.manifest.files} == files
    again = commit(store, files, fingerprint="f2", inputs={"other": "bb"}, counts={"n": 1})
    assert again.manifest.content_digest == made.manifest.content_digest


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_found(tmp_path_factory, data):
    store = LocalStore(tmp_path_factory.mktemp("store"))
    folder = commit(store, counts={"n": 5}).path
    name = data.draw(st.sampled_from(["training.json", "model/weights.bin", MANIFEST]))
    content = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    before = json.loads((folder / MANIFEST).read_bytes())
    (folder / name).write_bytes(content)
    if name == MANIFEST:
        with contextlib.suppress(ValueError):
            assume(json.loads(content) != before)  # white space: the manifest still says the same
    with pytest.raises(CorruptOutput, match=r"damaged"):
        store.find("pretrain", "f1")


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (name, damage)
        for name in (*FILES, MANIFEST)
        for damage in ("longer", "delete", "folder", "link", "another beside it", "empty", "half")
        if FILES.get(name) != b"" or damage not in ("empty", "half")
    ],
)
def test_every_damage_to_every_file_names_the_file(store, name, damage):
    file = commit(store).path / name
    content = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage == "another beside it":
        file.write_bytes(content)
        file = file.with_name(f"not {file.name}")
        file.write_bytes(b"")
    elif damage == "link":
        target = store.root / "elsewhere"
        target.write_bytes(content)
        file.symlink_to(target)
    elif damage != "delete":
        changed = {"empty": b"", "half": content[: len(content) // 2], "longer": content + b"x"}
        file.write_bytes(changed[damage])
    folder = file.parents[name.count("/")]
    for look in (lambda: store.find("pretrain", "f1"), lambda: store.open(folder)):  # sizes are enough here
        with pytest.raises((CorruptOutput, IsADirectoryError), match=file.name):
            look()


@pytest.mark.parametrize("content", [{}, {"half.bin": b"x"}])
def test_a_leftover_without_manifest_is_loud(store, content):
    folder = store.path("pretrain", "f1")
    folder.mkdir(parents=True)
    fill(folder, content)
    with pytest.raises(CorruptOutput, match="never committed"):
        store.find("pretrain", "f1")
    with pytest.raises(CorruptOutput, match="never committed"):
        commit(store)  # nor is it overwritten


def test_an_output_moved_under_another_name_is_found(store):
    made = commit(store)
    shutil.copytree(made.path, store.path("pretrain", "f2"))
    with pytest.raises(CorruptOutput, match="pretrain/f1"):
        store.find("pretrain", "f2")


def test_a_second_commit_of_the_same_content_is_adopted_and_of_other_content_refused(store):
    first = commit(store, counts={"who": 1})
    assert commit(store, counts={"who": 2}) == first
    with pytest.raises(CommitConflict, match="different content"):
        commit(store, {"training.json": b"other"})
    assert store.find("pretrain", "f1") == first


def test_of_many_commits_at_once_one_wins_and_all_return_it(store):
    start = threading.Barrier(8)

    def work(number) -> int:
        with store.attempt("pretrain", "f1") as attempt:
            fill(attempt.path, FILES)
            start.wait()
            made = attempt.commit(inputs={}, configuration={}, counts={"who": number})
        return made.manifest.counts["who"]

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(work, range(8)))) == 1


def test_what_cannot_be_committed(store):
    for files, message in (({}, "without files"), ({MANIFEST: b"{}"}, "reserved")):
        with pytest.raises(StoreError, match=message):
            commit(store, files)
    with pytest.raises(StoreError, match="link"), store.attempt("pretrain", "f1") as attempt:
        (attempt.path / "link").symlink_to("/etc/hostname")
        attempt.commit(inputs={}, configuration={}, counts={})
    assert commit(store, {"m/manifest.json": b"{}"})  # only the top-level name is the store's


@pytest.mark.parametrize("name", ["..", "", "a/b", "/abs", ".hidden", "a\n"])
def test_names_cannot_leave_the_store(store, name):
    for names in ((name, "f1"), ("pretrain", name)):
        with pytest.raises(StoreError, match="cannot name an output"):
            store.find(*names)


def test_attempts_of_killed_processes_are_removed_later(store):
    old, young = (store.root / ATTEMPTS / name for name in ("pretrain-f0-old", "pretrain-f0-young"))
    for folder in (old, young):
        fill(folder, FILES)
    week = time.time() - 8 * 24 * 3600
    for path in (*old.rglob("*"), old):
        os.utime(path, (week, week))
    commit(store)
    assert not old.exists()
    assert young.exists()


def test_everything_is_synced_before_the_rename_and_the_parent_after(store, monkeypatch):
    calls = []

    def fsync(descriptor, original=os.fsync):
        calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        original(descriptor)

    def rename(source, target, original=os.rename):
        calls.append("RENAME")
        original(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    with store.attempt("pretrain", "f1") as attempt:
        fill(attempt.path, FILES)
        attempt.commit(inputs={}, configuration={}, counts={})
    before, after = calls[: calls.index("RENAME")], calls[calls.index("RENAME") + 1 :]
    filled = [str(attempt.path / name) for name in (*FILES, "model")]
    manifest = before.index(str(attempt.path / MANIFEST))
    assert manifest > max(map(before.index, filled)) and str(attempt.path) in before[manifest:]
    assert str(store.root / "pretrain") in after


CRASHING = """
import os, signal, sys
from infra.store import LocalStore
root, limit = sys.argv[1], int(sys.argv[2])
count = 0
def point():
    global count
    count += 1
    if count == limit:
        os.kill(os.getpid(), signal.SIGKILL)
def crash_around(name):
    original = getattr(os, name)
    def wrapped(*arguments, **options):
        point()
        result = original(*arguments, **options)
        point()
        return result
    setattr(os, name, wrapped)
with LocalStore(root).attempt("pretrain", "f1") as attempt:
    (attempt.path / "model").mkdir()
    (attempt.path / "model" / "w").write_bytes(b"abc")
    (attempt.path / "t.json").write_bytes(b"{}")
    for name in ("fsync", "rename", "mkdir"):
        crash_around(name)
    attempt.commit(inputs={}, configuration={}, counts={})
print("done")
"""


@pytest.mark.chaos
def test_killed_at_every_step_of_a_commit_a_reader_sees_all_or_nothing(tmp_path):
    states = []
    for step in range(1, 40):
        root = tmp_path / str(step)
        command = [sys.executable, "-c", CRASHING, str(root), str(step)]
        answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert answer.returncode in (0, -9), answer.stderr
        store = LocalStore(root)
        found = store.find("pretrain", "f1")  # verifies every byte, and raises for anything half done
        states.append(found is not None)
        again = commit(store, {"model/w": b"abc", "t.json": b"{}"})  # the dead one is not in its way
        assert store.find("pretrain", "f1") == again
        if answer.returncode == 0:
            break
    else:
        pytest.fail("the commit never completed")
    assert states.count(False) >= 12
    assert states == sorted(states)  # once visible, it stays visible


@pytest.mark.chaos
@pytest.mark.parametrize("function", ["fsync", "rename"])
def test_a_full_disk_is_an_error_and_leaves_nothing(store, monkeypatch, function):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, full)
    with pytest.raises(OSError, match="No space left"):
        commit(store)
    monkeypatch.undo()
    assert store.find("pretrain", "f1") is None
    assert not list((store.root / ATTEMPTS).iterdir())


def test_names_set_aside_and_removed(store):
    assert store.names("pretrain") == []
    for name in ("b", "a"):
        commit(store, {"file": name.encode()}, fingerprint=name)
    assert store.names("pretrain") == ["a", "b"]
    aside = store.set_aside("pretrain", "a")
    assert store.find("pretrain", "a") is None and (aside / "file").read_bytes() == b"a"
    store.remove("pretrain", "b")
    assert store.names("pretrain") == [] and list((store.root / ATTEMPTS).iterdir()) == [aside]
