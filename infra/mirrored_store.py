"""A store whose outputs are in a bucket too: what one machine committed, another one finds.

Programs work in the folder, a `LocalStore`, and have no network. What is committed there is published: its
files under a name that holds their digest, then `<stage>/<fingerprint>/manifest.json`, which is created only
if there is none. That one object is the commit: who sees it sees a whole output, or none. An output that is
only in the bucket is fetched into the folder, verified byte by byte, before anyone uses it."""

import contextlib
import fcntl
import functools
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from infra.bucket import Bucket, BucketError, open_bucket
from infra.store import (
    MANIFEST,
    Attempt,
    CommitConflict,
    Committed,
    CorruptOutput,
    FileEntry,
    LocalStore,
    Manifest,
    Store,
    parse_manifest,
)

FETCHING = ".fetching"
SECONDS_BETWEEN_LOOKS = 15.0


class MirroredStore:
    """Outputs of a folder and a bucket; see `infra.store.LocalStore` for what each method promises."""

    def __init__(self, local: LocalStore, bucket: Bucket, only_here: Collection[str] = ()) -> None:
        """`only_here`: stages whose outputs are not published: many, small, and made again from others."""
        self.local, self.bucket, self._only_here = local, bucket, frozenset(only_here)
        self._published: set[tuple[str, str]] = set()
        self._seen: dict[str, set[str]] = {}

    def find(self, stage: str, fingerprint: str) -> Committed | None:
        """The output, every byte verified, in the folder and in the bucket; None where it is in neither.

        Raises BucketError.
        """
        committed = self.local.find(stage, fingerprint)
        if committed is not None:
            os.utime(committed.path)  # used last of all, for `trim`
            self.publish(committed)
            return committed
        # By the listing of this stage when it was first asked for: a run looks for what it is about to make
        # again and again. What another machine commits meanwhile is adopted when ours is published.
        if stage not in self._seen:
            self.names(stage)
        return self._fetch(stage, fingerprint) if fingerprint in self._seen[stage] else None

    def open(self, path: Path | str) -> Committed:
        return self.local.open(path)

    def names(self, stage: str) -> list[str]:
        """Fingerprints of a stage's outputs in either place, sorted."""
        found: Iterable[list[str]] = ()
        if stage not in self._only_here:
            found = (one.key.split("/") for one in self.bucket.listed(f"{stage}/"))
        self._seen[stage] = {parts[1] for parts in found if parts[2:] == [MANIFEST]}
        return sorted(self._seen[stage] | set(self.local.names(stage)))

    def set_aside(self, stage: str, fingerprint: str) -> Path:
        """Take an output out of sight in both places; its files stay among the folder's attempts."""
        self._withdraw(stage, fingerprint)
        return self.local.set_aside(stage, fingerprint)

    def remove(self, stage: str, fingerprint: str) -> None:
        """Delete an output in both places."""
        self._withdraw(stage, fingerprint)
        if fingerprint in self.local.names(stage):
            self.local.remove(stage, fingerprint)

    @contextlib.contextmanager
    def attempt(self, stage: str, fingerprint: str) -> Iterator[Attempt]:
        """A fresh private folder; what is committed is published at the end."""
        with self.local.attempt(stage, fingerprint) as attempt:
            yield attempt
        if os.path.lexists(attempt.final):
            self.publish(self.local.open(attempt.final))

    def publish(self, committed: Committed) -> None:
        """Bring an output of the folder into the bucket, where it is not there.

        Raises CommitConflict where the bucket has other content of this name, BucketError, and CorruptOutput
        where a file changed meanwhile.
        """
        manifest = committed.manifest
        name = (manifest.stage, manifest.fingerprint)
        if name in self._published or manifest.stage in self._only_here:
            return
        there = self._manifest_there(*name)
        if there is None:
            for entry in sorted(manifest.files, key=lambda entry: (-entry.bytes, entry.path)):
                key = f"{_folder_of(manifest)}/{entry.path}"
                self.bucket.upload(committed.path / entry.path, key, sha256=entry.sha256)
            content = (committed.path / MANIFEST).read_bytes()
            if not self.bucket.create(_commit_key(*name), content):
                there = self._manifest_there(*name)
        if there is not None and there.content_digest != manifest.content_digest:
            raise CommitConflict(
                f"{self.bucket.address}/{_commit_key(*name)} has other content "
                f"(digest {there.content_digest[:12]}) than {committed.path} "
                f"(digest {manifest.content_digest[:12]}): two machines disagreed on one fingerprint. "
                "Remove the one that is wrong and run again."
            )
        self._published.add(name)

    def trim(self, most_bytes: int, keep: Collection[str]) -> None:
        """Remove from the folder what has not been used for longest, until no more than this is left.

        Only what the bucket has, and nothing of the stages `keep`. Nobody may be using the folder.
        What is only here stays.
        """
        outputs = [
            self.local.open(self.local.path(folder.name, name))
            for folder in sorted(self.local.root.iterdir())
            if not folder.name.startswith(".")
            for name in self.local.names(folder.name)
        ]
        outputs.sort(key=lambda one: one.path.stat().st_mtime_ns)
        total = sum(entry.bytes for one in outputs for entry in one.manifest.files)
        for one in outputs:
            if total <= most_bytes:
                break
            if one.manifest.stage not in self._only_here.union(keep):
                self.publish(one)
                self.local.remove(one.manifest.stage, one.manifest.fingerprint)
                total -= sum(entry.bytes for entry in one.manifest.files)

    @contextlib.contextmanager
    def following(self, stage: str, wanted: Callable[[str], bool]) -> Iterator[None]:
        """Publish what a program commits of a stage meanwhile, by name, and withdraw what it removes.

        What the bucket has of these and the folder has not is fetched first: another machine's. An error of
        the bucket ends the following, not the program; what was left is published at the end, or raises
        there."""
        for name in self.names(stage):
            if wanted(name) and name not in self.local.names(stage):
                self._fetch(stage, name)
        ended = threading.Event()

        def follow() -> None:
            with contextlib.suppress(BucketError):
                while not ended.wait(SECONDS_BETWEEN_LOOKS):
                    self._follow(stage, wanted)

        thread = threading.Thread(target=follow, name=f"publish {stage}", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:  # a checkpoint that was saved on the way out is for another machine
            ended.set()
            thread.join()
            with contextlib.suppress(BucketError):
                self._follow(stage, wanted)
            raise
        ended.set()
        thread.join()
        self._follow(stage, wanted)

    def _follow(self, stage: str, wanted: Callable[[str], bool]) -> None:
        here = [name for name in self.local.names(stage) if wanted(name)]
        for name in here:
            with contextlib.suppress(CorruptOutput):  # the program removed it meanwhile
                self.publish(self.local.open(self.local.path(stage, name)))
        for name in set(self.names(stage)) - set(self.local.names(stage)):
            if wanted(name):
                self._withdraw(stage, name)

    def _fetch(self, stage: str, fingerprint: str) -> Committed | None:
        content = self.bucket.read(_commit_key(stage, fingerprint))
        if content is None:
            return None
        manifest = self._parsed(content, stage, fingerprint)
        final = self.local.path(stage, fingerprint)
        # Of this content, not of this attempt: a fetch that was cut is continued.
        folder = self.local.root / FETCHING / f"{stage}-{fingerprint}-{manifest.content_digest[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f"{folder.name}.lock")):
            if not os.path.lexists(final):
                for entry in manifest.files:
                    self._fetch_file(manifest, entry, folder / entry.path)
                self.local.take(folder, content, stage, fingerprint)
            shutil.rmtree(folder, ignore_errors=True)
        self._published.add((stage, fingerprint))
        return self.local.open(final)

    def _fetch_file(self, manifest: Manifest, entry: FileEntry, path: Path) -> None:
        """Every byte is verified as it comes. Raises CorruptOutput, and keeps nothing of the file then."""
        key = f"{_folder_of(manifest)}/{entry.path}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.bucket.download(key, path, size=entry.bytes) != entry.sha256:
            path.unlink()
            raise CorruptOutput(
                f"{self.bucket.address}/{key} is damaged: its SHA-256 differs from the manifest. Remove "
                f"{manifest.stage}/{manifest.fingerprint}/ from the bucket; the next run makes it again."
            )

    def _manifest_there(self, stage: str, fingerprint: str) -> Manifest | None:
        content = self.bucket.read(_commit_key(stage, fingerprint))
        return None if content is None else self._parsed(content, stage, fingerprint)

    def _parsed(self, content: bytes, stage: str, fingerprint: str) -> Manifest:
        return parse_manifest(content, f"{self.bucket.address}/{_commit_key(stage, fingerprint)}")

    def _withdraw(self, stage: str, fingerprint: str) -> None:
        """The commit first: no reader sees half an output."""
        self.bucket.remove(_commit_key(stage, fingerprint))
        self.bucket.remove(f"{stage}/{fingerprint}/")
        self._published.discard((stage, fingerprint))


def _commit_key(stage: str, fingerprint: str) -> str:
    return f"{stage}/{fingerprint}/{MANIFEST}"


def _folder_of(manifest: Manifest) -> str:
    """Two attempts with other content do not meet."""
    return f"{manifest.stage}/{manifest.fingerprint}/{manifest.content_digest[:16]}"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.cache
def store_of(folder: Path, bucket: str | None, only_here: tuple[str, ...]) -> Store:
    """The store in a folder, mirrored into a bucket where one is given (`s3://name/prefix`).

    One for all who ask: it remembers what is published. `only_here`: see `MirroredStore`. Raises BucketError.
    """
    local = LocalStore(folder)
    if bucket is None:
        return local
    opened = open_bucket(bucket)
    opened.require_conditional_writes()
    return MirroredStore(local, opened, only_here)
