"""Committed outputs: a folder of immutable files plus `manifest.json`, visible completely or not at all.

    with store.attempt("pretrain", fingerprint) as attempt:
        (attempt.path / "training.json").write_text("...")
        committed = attempt.commit(inputs={...}, configuration={...}, counts={...})

Protocol: write into a private attempt folder on the same filesystem, sync every file and folder, write and
sync the manifest last, rename the folder to its final name, sync the parent. The rename is the only commit;
a crash before it leaves nothing that a reader can see. `find` verifies every byte, `open` presence and sizes,
`Committed.read` the one file that it reads.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from infra.fingerprint import canonical_json, code_version

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
ATTEMPTS = ".attempts"
ABANDONED_AFTER_SECONDS = 7 * 24 * 3600


class StoreError(Exception):
    """An output cannot be read from or written to the store."""


class CorruptOutput(StoreError):
    """A committed folder does not hold what its manifest says, or has no valid manifest."""


class CommitConflict(StoreError):
    """Another attempt committed different content under the same fingerprint."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of an output: POSIX path relative to the output's folder, size in bytes, SHA-256 in hex."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an output is, what it was made from, and every file it holds (sorted by path)."""

    stage: str
    fingerprint: str
    files: tuple[FileEntry, ...]
    inputs: dict[str, str]
    configuration: dict
    code_version: str
    counts: dict

    @functools.cached_property
    def content_digest(self) -> str:
        """SHA-256 over the sorted (path, sha256) pairs only: equal content means equal digest."""
        return _digest(sorted([entry.path, entry.sha256] for entry in self.files))


@dataclass(frozen=True)
class Committed:
    """An output: its folder and its manifest."""

    path: Path
    manifest: Manifest

    def read(self, file: str) -> bytes:
        """Content of one file, verified. Raises CorruptOutput, also for a file that is not of the output."""
        expected = {entry.path: entry.sha256 for entry in self.manifest.files}
        if file not in expected:
            raise _corrupt(self.path / file, "it is not in the manifest")
        try:
            content = (self.path / file).read_bytes()
        except OSError as error:
            raise _corrupt(self.path / file, f"it cannot be read ({error})") from error
        if hashlib.sha256(content).hexdigest() != expected[file]:
            raise _corrupt(self.path / file, "its SHA-256 differs from the manifest")
        return content

    def json(self, file: str) -> Any:
        """Content of one JSON file, verified."""
        return json.loads(self.read(file))


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A private folder, `path`, to fill; `commit` makes it visible. Without a commit nothing remains."""

    path: Path
    final: Path
    stage: str
    fingerprint: str

    def commit(self, *, inputs: dict[str, str], configuration: dict, counts: dict) -> Committed:
        """Publish the folder; return the committed output.

        `inputs` maps an input's name to its content digest. If another attempt was faster and committed the
        same content, that output is adopted. Raises CommitConflict when the contents differ.
        """
        _write_manifest(
            self.path / MANIFEST,
            Manifest(
                stage=self.stage,
                fingerprint=self.fingerprint,
                files=_sync_and_list(self.path),
                inputs=inputs,
                configuration=configuration,
                code_version=code_version(),
                counts=counts,
            ),
        )
        manifest = _read_manifest(self.path)  # as every later reader gets it: tuples are lists
        if not _make_visible(self.path, self.final):
            return self._adopt(manifest.content_digest)
        return Committed(self.final, manifest)

    def _adopt(self, mine: str) -> Committed:
        committed = open_committed(self.final, every_byte=True)
        theirs = committed.manifest.content_digest
        if theirs != mine:
            raise CommitConflict(
                f"{self.final} already holds different content "
                f"(digest {theirs[:12]}, this attempt {mine[:12]}): "
                "two runs of one fingerprint disagreed. "
                "Keep the committed one and run again, or delete that folder and run again."
            )
        return committed


class Store(Protocol):
    """Where outputs live, by (stage, fingerprint). What each method promises stands in LocalStore."""

    def find(self, stage: str, fingerprint: str) -> Committed | None: ...

    def attempt(self, stage: str, fingerprint: str) -> AbstractContextManager[Attempt]: ...

    def open(self, path: Path | str) -> Committed: ...

    def names(self, stage: str) -> list[str]: ...

    def set_aside(self, stage: str, fingerprint: str) -> Path: ...

    def remove(self, stage: str, fingerprint: str) -> None: ...

    def following(self, stage: str, wanted: Callable[[str], bool]) -> AbstractContextManager[None]: ...

    def trim(self, most_bytes: int, keep: Collection[str]) -> None: ...


def open_store(folder: str | Path) -> Store:
    """The store in a folder, for programs: they have no network (see infra/mirrored_store.py)."""
    return LocalStore(folder)


class LocalStore:
    """Outputs at `<root>/<stage>/<fingerprint>/`, attempts at `<root>/.attempts/`, on one filesystem."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()

    def path(self, stage: str, fingerprint: str) -> Path:
        """The folder of an output, whether or not it is committed. Raises StoreError for an unsafe name."""
        for name in (stage, fingerprint):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
                raise StoreError(f"{name!r} cannot name an output: use letters, digits, '_', '.' and '-'")
        return self.root / stage / fingerprint

    def find(self, stage: str, fingerprint: str) -> Committed | None:
        """The output, every byte verified; None if there is none. Raises CorruptOutput if it is damaged."""
        folder = self.path(stage, fingerprint)
        if not os.path.lexists(folder):
            return None
        committed = open_committed(folder, every_byte=True)
        if (committed.manifest.stage, committed.manifest.fingerprint) != (stage, fingerprint):
            found = f"{committed.manifest.stage}/{committed.manifest.fingerprint}"
            raise _corrupt(folder, f"its manifest is of {found}")
        return committed

    def open(self, path: Path | str) -> Committed:
        """A committed folder by its path, cheaply: manifest, presence and sizes. Raises CorruptOutput."""
        return open_committed(path)

    def names(self, stage: str) -> list[str]:
        """Fingerprints of a stage's committed outputs, sorted; not verified."""
        folder = self.root / stage
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def set_aside(self, stage: str, fingerprint: str) -> Path:
        """Take an output out of sight at once; its files stay among the attempts until those are cleaned."""
        aside = self._new_name(stage, fingerprint)
        os.rename(self.path(stage, fingerprint), aside)
        os.utime(aside)  # its age among the attempts begins now
        return aside

    def remove(self, stage: str, fingerprint: str) -> None:
        """Delete an output: no reader sees half of it."""
        shutil.rmtree(self.set_aside(stage, fingerprint))

    def following(self, stage: str, wanted: Callable[[str], bool]) -> AbstractContextManager[None]:
        """While a program commits outputs of a stage: here they are in their place already."""
        return contextlib.nullcontext()

    def trim(self, most_bytes: int, keep: Collection[str]) -> None:
        """What is here alone stays."""

    def _new_name(self, stage: str, fingerprint: str) -> Path:
        attempts = self.root / ATTEMPTS
        attempts.mkdir(parents=True, exist_ok=True)
        return attempts / f"{stage}-{fingerprint}-{uuid.uuid4().hex}"

    def take(self, folder: Path, manifest: bytes, stage: str, fingerprint: str) -> None:
        """Make a folder of this filesystem the output that a manifest, from elsewhere, describes.

        Whoever filled it has verified the content; names and sizes are looked at: raises CorruptOutput. Where
        the output is there already, that one stays.
        """
        (folder / MANIFEST).write_bytes(manifest)
        open_committed(folder)
        for path in _below(folder).values():
            _sync(path)
        _make_visible(folder, self.path(stage, fingerprint))

    @contextlib.contextmanager
    def attempt(self, stage: str, fingerprint: str) -> Iterator[Attempt]:
        """A fresh private folder; removed at the end unless committed."""
        final = self.path(stage, fingerprint)
        folder = self._new_name(stage, fingerprint)
        _remove_abandoned(folder.parent)
        folder.mkdir()
        try:
            yield Attempt(path=folder, final=final, stage=stage, fingerprint=fingerprint)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _make_visible(folder: Path, final: Path) -> bool:
    """Rename a folder, whose files are synced, to its final name; False if something is there."""
    _sync(folder)
    final.parent.mkdir(parents=True, exist_ok=True)
    _sync(final.parent.parent)
    try:
        # Rename would replace an empty folder silently; a full one makes it fail. Neither is ours.
        if os.path.lexists(final):
            return False
        os.rename(folder, final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        return False
    _sync(final.parent)
    return True


def open_committed(path: Path | str, *, every_byte: bool = False) -> Committed:
    """Read the manifest in `path`; check that exactly its files are there, by size or by SHA-256 too.

    Raises CorruptOutput, naming the file, when a file is missing, changed or not in the manifest.
    """
    folder = Path(path).absolute()
    manifest = _read_manifest(folder)
    present = {name: path for name, path in _below(folder).items() if path.is_file() and name != MANIFEST}
    for entry in manifest.files:
        file = present.pop(entry.path, None)
        if file is None:
            raise _corrupt(folder / entry.path, "it is missing")
        size = file.stat().st_size
        if size != entry.bytes:
            raise _corrupt(file, f"it has {size} bytes instead of {entry.bytes}")
        if every_byte and _sha256(file) != entry.sha256:
            raise _corrupt(file, "its SHA-256 differs from the manifest")
    if present:
        raise _corrupt(folder / min(present), "it is not in the manifest")
    return Committed(folder, manifest)


def _remove_abandoned(attempts: Path) -> None:
    """Delete attempt folders in which nothing was written for a week: their process was killed."""
    for folder in attempts.iterdir():
        with contextlib.suppress(FileNotFoundError):  # its owner may finish while we look
            newest = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
            if newest < time.time() - ABANDONED_AFTER_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _sync_and_list(folder: Path) -> tuple[FileEntry, ...]:
    """Sync all that lies below `folder` to disk and describe the files."""
    below = _below(folder)
    if MANIFEST in below:
        raise StoreError(f"{folder / MANIFEST}: this name is reserved for the store; write another name")
    for path in below.values():
        _sync(path)
    files = {name: path for name, path in below.items() if path.is_file()}
    if not files:
        raise StoreError(f"{folder}: an output without files cannot be committed; write its files first")
    return tuple(
        FileEntry(path=name, bytes=path.stat().st_size, sha256=_sha256(path)) for name, path in files.items()
    )


def _below(folder: Path) -> dict[str, Path]:
    """{POSIX path relative to `folder`: path} of files and folders, sorted; anything else is refused."""
    below = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for path in below.values():
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise CorruptOutput(f"{path}: an output holds plain files only, no links or devices; copy it")
    return dict(sorted(below.items()))


def _write_manifest(path: Path, manifest: Manifest) -> None:
    body = json.loads(canonical_json(manifest))
    body |= {"version": MANIFEST_VERSION, "content_digest": manifest.content_digest}
    body["manifest_digest"] = _digest(body)
    path.write_text(json.dumps(body, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    _sync(path)


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _corrupt(folder, f"it has no {MANIFEST}, so it was never committed") from error
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: Path | str) -> Manifest:
    """The manifest in a file's content. Raises CorruptOutput, naming `path`."""
    try:
        body = json.loads(content)
        digest = body.pop("manifest_digest")
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise _corrupt(path, f"it is not a manifest ({error!r})") from error
    if digest != _digest(body):
        raise _corrupt(path, "its own digest differs from its content")
    if body.pop("version") != MANIFEST_VERSION:
        raise _corrupt(path, f"it is not of manifest version {MANIFEST_VERSION}")
    del body["content_digest"]
    files = tuple(FileEntry(**entry) for entry in body.pop("files"))
    for entry in files:
        parts = PurePosixPath(entry.path).parts
        if not parts or entry.path.startswith("/") or ".." in parts:
            raise _corrupt(path, f"it names a file outside its folder ({entry.path!r})")
    return Manifest(files=files, **body)


def _corrupt(path: Path | str, reason: str) -> CorruptOutput:
    return CorruptOutput(
        f"{path} is damaged: {reason}. Delete the output's folder; the next run makes it again."
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Make a file's content, or a folder's entries (names, renames), durable: one does not do the other."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
