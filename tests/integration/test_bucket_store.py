"""What a store promises, on a folder and on a bucket of a real S3 server alike; transfers that are cut."""

import hashlib
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from infra import bucket as bucket_module
from infra import mirrored_store
from infra import store as store_module
from infra.bucket import Bucket, BucketError, Listed, open_bucket
from infra.bucket_folder import fetch_folder
from infra.mirrored_store import MirroredStore
from infra.store import ATTEMPTS, CommitConflict, Committed, CorruptOutput, LocalStore, Store
from tests.integration.faulty_proxy import FAULTS, faulty_proxy
from tests.integration.s3_server import S3Server, s3_server

ROOT = Path(__file__).resolve().parents[2]
FILES = {"training.json": b'{"loss": 1}', "model/weights.bin": os.urandom(3_000_000), "model/empty": b""}
PART = 5 * 2**20  # S3 lets no part but the last one be smaller
LARGE = {"training.json": b'{"loss": 1}', "model/weights.bin": os.urandom(2 * PART + 3)}
number = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        open_bucket("s3://test-bucket").client.create_bucket(Bucket="test-bucket")
        yield running


@pytest.fixture
def bucket(server) -> Bucket:
    return open_bucket(f"s3://test-bucket/prefix-{next(number)}/deep")


@pytest.fixture
def small_parts(monkeypatch) -> None:
    """Files of megabytes take several parts; smaller ones S3 does not let be."""
    monkeypatch.setattr(bucket_module, "PART_BYTES", PART)


@dataclass
class Machines:
    """Several machines, each with a store of its own for the same outputs."""

    make: Callable[[], Store]

    def __iter__(self) -> Iterator[Store]:
        return iter(self.make, None)


@pytest.fixture(params=["folder", "bucket"])
def machines(request, tmp_path) -> Machines:
    if request.param == "folder":
        return Machines(make=lambda: LocalStore(tmp_path / "shared"))
    bucket = request.getfixturevalue("bucket")
    return Machines(make=lambda: MirroredStore(LocalStore(tmp_path / f"machine-{next(number)}"), bucket))


def commit(store: Store, files: dict[str, bytes] = FILES, *, fingerprint: str = "f1") -> Committed:
    with store.attempt("pretrain", fingerprint) as attempt:
        for name, content in files.items():
            path = attempt.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return attempt.commit(inputs={"shards": "aa"}, configuration={}, counts={"files": 3})


def content_of(committed: Committed) -> dict[str, bytes]:
    return {entry.path: committed.read(entry.path) for entry in committed.manifest.files}


def test_what_one_commits_another_finds_equal(machines):
    one, other, third = itertools.islice(machines, 3)
    assert other.find("pretrain", "f1") is None and other.names("pretrain") == []
    made = commit(one)
    assert one.find("pretrain", "f1") == made
    for store in (other, third):
        assert store.names("pretrain") == ["f1"]
        found = store.find("pretrain", "f1")
        assert found.manifest == made.manifest and content_of(found) == FILES
        assert store.open(found.path) == found


def test_an_attempt_without_commit_is_seen_by_nobody(machines):
    one, other = itertools.islice(machines, 2)
    with pytest.raises(ZeroDivisionError), one.attempt("pretrain", "f1") as attempt:
        (attempt.path / "a").write_bytes(b"a")
        raise ZeroDivisionError
    assert one.find("pretrain", "f1") is other.find("pretrain", "f1") is None


def test_the_same_content_is_adopted_and_other_content_refused(machines):
    one, other, third = itertools.islice(machines, 3)
    digest = commit(one).manifest.content_digest
    assert commit(other).manifest.content_digest == digest
    with pytest.raises(CommitConflict, match=r"other content|different content"):
        commit(third, FILES | {"training.json": b"{}"})
    assert content_of(one.find("pretrain", "f1")) == FILES


def test_of_many_commits_at_once_one_content_stays(machines):
    stores, begin = list(itertools.islice(machines, 6)), threading.Barrier(6)

    def attempt(place: int) -> str | None:
        begin.wait()
        try:
            return commit(stores[place], {"a": b"even" if place % 2 == 0 else b"odd"}).manifest.content_digest
        except CommitConflict:
            return None

    with ThreadPoolExecutor(6) as pool:
        digests = list(pool.map(attempt, range(6)))
    assert len(set(digests) - {None}) == 1 and digests.count(None) == 3
    fresh = next(iter(machines))
    assert fresh.find("pretrain", "f1").manifest.content_digest in digests


def test_a_damaged_file_is_found_before_it_is_used(machines):
    store = next(iter(machines))
    made = commit(store)
    (made.path / "model/weights.bin").write_bytes(bytes(3_000_000))
    with pytest.raises(CorruptOutput, match=r"weights\.bin is damaged"):
        store.find("pretrain", "f1")


def test_what_is_removed_or_set_aside_is_gone_for_all(machines):
    one, other = itertools.islice(machines, 2)
    for fingerprint in ("f1", "f2", "f3"):
        commit(one, fingerprint=fingerprint)
    one.remove("pretrain", "f1")
    assert (one.set_aside("pretrain", "f2") / "training.json").is_file()
    assert one.names("pretrain") == other.names("pretrain") == ["f3"]
    assert other.find("pretrain", "f1") is other.find("pretrain", "f2") is None


def test_names_cannot_leave_the_store(machines):
    store = next(iter(machines))
    for name in ("..", "a/b", "", ".hidden"):
        with pytest.raises(Exception, match="cannot name an output"):
            commit(store, fingerprint=name)


def machine(tmp_path: Path, bucket: Bucket) -> MirroredStore:
    return MirroredStore(LocalStore(tmp_path / f"machine-{next(number)}"), bucket)


def test_a_flipped_byte_in_the_bucket_is_found_and_the_folder_stays_clean(tmp_path, bucket):
    made = commit(machine(tmp_path, bucket))
    [key] = [one.key for one in bucket.listed() if one.key.endswith("weights.bin")]
    whole = bucket.read(key)
    bucket.write(key, whole[:-1] + bytes([whole[-1] ^ 1]))
    other = machine(tmp_path, bucket)
    with pytest.raises(CorruptOutput, match=r"s3://test-bucket/.*weights\.bin is damaged.*from the bucket"):
        other.find("pretrain", "f1")
    assert other.local.find("pretrain", "f1") is None
    bucket.write(key, whole)
    assert other.find("pretrain", "f1").manifest == made.manifest


def test_a_manifest_that_names_files_elsewhere_is_refused(tmp_path, bucket):
    store = machine(tmp_path, bucket)
    made = commit(store)
    [entry, *_] = made.manifest.files
    hostile = replace(made.manifest, files=(replace(entry, path="../../escaped"),))
    store_module._write_manifest(tmp_path / "hostile.json", hostile)
    bucket.write("pretrain/f1/manifest.json", (tmp_path / "hostile.json").read_bytes())
    with pytest.raises(CorruptOutput, match="outside its folder"):
        machine(tmp_path, bucket).find("pretrain", "f1")
    assert not list(tmp_path.rglob("escaped"))


class Cut:
    """A client whose process dies at one of its calls, before the call or after it."""

    def __init__(self, client, at: int, after: bool) -> None:
        self._client, self._at, self._after, self._calls = client, at, after, itertools.count()

    def __getattr__(self, name: str):
        method = getattr(self._client, name)
        if name in ("get_paginator", "meta"):
            return method

        def call(**arguments):
            mine = next(self._calls) == self._at
            if mine and not self._after:
                os._exit(9)
            try:
                return method(**arguments)
            finally:
                if mine:
                    os._exit(9)

        return call


CUT = """
import sys
from dataclasses import replace
from pathlib import Path
from infra import bucket as module
from infra.bucket import open_bucket
from infra.mirrored_store import MirroredStore
from infra.store import LocalStore
from tests.integration import test_bucket_store as tests
folder, address, at, after = sys.argv[1:]
module.PART_BYTES = module_part = tests.PART
module.AT_ONCE = 1
bucket = open_bucket(address)
bucket = replace(bucket, client=tests.Cut(bucket.client, int(at), after == "after"))
store = MirroredStore(LocalStore(Path(folder)), bucket)
store.publish(store.local.find("pretrain", "f1"))
"""


@pytest.mark.chaos
@pytest.mark.parametrize("after", ["before", "after"])
def test_killed_at_every_call_of_a_publication_others_see_all_or_nothing(
    tmp_path, bucket, small_parts, after
):
    """And the next attempt brings the rest."""
    local = LocalStore(tmp_path / "first")
    made = commit(local, LARGE)
    for at in range(30):
        ended = subprocess.run(
            [sys.executable, "-c", CUT, str(local.root), bucket.address, str(at), after],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ).returncode
        found = machine(tmp_path, bucket).find("pretrain", "f1")
        assert ended in (0, 9) and (found is None or content_of(found) == LARGE)
        if ended == 0:
            break
        assert found is None or (after, found.manifest) == ("after", made.manifest)
    assert ended == 0 and found is not None
    assert at >= 3
    left = {one["Key"] for one in bucket._uploads("")}
    assert not left, "no upload is left open"


def counted(bucket: Bucket, monkeypatch) -> list[int]:
    """Numbers of the parts that are sent from now on."""
    sent, upload_part = [], bucket.client.upload_part

    def upload(**arguments):
        sent.append(arguments["PartNumber"])
        if len(sent) == counted.fail_at:
            raise ConnectionResetError
        return upload_part(**arguments)

    monkeypatch.setattr(bucket.client, "upload_part", upload)
    return sent


def test_an_upload_that_was_cut_sends_only_what_is_missing(tmp_path, bucket, small_parts, monkeypatch):
    path = tmp_path / "large"
    path.write_bytes(os.urandom(4 * PART + 5))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(bucket_module, "AT_ONCE", 1)
    counted.fail_at = 3
    first = counted(bucket, monkeypatch)
    with pytest.raises(ConnectionResetError):
        bucket.upload(path, "large", sha256=digest)
    assert first == [1, 2, 3] and bucket.read("large") is None
    counted.fail_at = None
    first.clear()
    bucket.upload(path, "large", sha256=digest)
    assert first == [3, 4, 5] and bucket.read("large") == path.read_bytes()
    first.clear()
    bucket.upload(path, "large", sha256=digest)
    assert first == []


def test_a_part_of_other_content_is_sent_again(tmp_path, bucket, small_parts, monkeypatch):
    path = tmp_path / "large"
    content = os.urandom(3 * PART)
    path.write_bytes(content)
    monkeypatch.setattr(bucket_module, "AT_ONCE", 1)
    counted.fail_at = 3
    sent = counted(bucket, monkeypatch)
    with pytest.raises(ConnectionResetError):
        bucket.upload(path, "large", sha256=hashlib.sha256(content).hexdigest())
    changed = b"x" + content[1:]
    path.write_bytes(changed)
    counted.fail_at = None
    sent.clear()
    bucket.upload(path, "large", sha256=hashlib.sha256(changed).hexdigest())
    assert sent == [1, 3] and bucket.read("large") == changed


@pytest.mark.parametrize("cut", [0, 1, PART, PART + 7, 3 * PART])
def test_a_download_goes_on_where_it_was_cut(tmp_path, bucket, small_parts, cut):
    content = os.urandom(3 * PART)
    bucket.write("large", content)
    path = tmp_path / "large"
    path.write_bytes(content[:cut])
    assert bucket.download("large", path, size=len(content)) == hashlib.sha256(content).hexdigest()
    assert path.read_bytes() == content


def test_what_was_not_used_for_longest_leaves_the_folder_and_comes_back(tmp_path, bucket):
    store = machine(tmp_path, bucket)
    content = {"a": bytes(1000)}
    for fingerprint in ("f1", "f2", "f3", "f4"):
        commit(store, content, fingerprint=fingerprint)
    assert store.find("pretrain", "f1")  # used again
    store.trim(4000, keep=())
    assert store.local.names("pretrain") == ["f1", "f2", "f3", "f4"]
    store.trim(2500, keep=())
    assert store.local.names("pretrain") == ["f1", "f4"]
    store.trim(0, keep=("pretrain",))
    assert store.local.names("pretrain") == ["f1", "f4"]
    assert content_of(store.find("pretrain", "f2")) == content
    local = LocalStore(tmp_path / "alone")
    commit(local)
    local.trim(0, keep=())
    assert local.names("pretrain") == ["f1"], "what is nowhere else stays"


def test_what_is_looked_for_again_and_again_asks_the_bucket_once(tmp_path, bucket, monkeypatch):
    one, other = machine(tmp_path, bucket), machine(tmp_path, bucket)
    asked = []
    monkeypatch.setattr(Bucket, "read", lambda self, key: asked.append(key))
    assert all(one.find("pretrain", f"f{place}") is None for place in range(50)) and asked == []
    monkeypatch.undo()
    assert commit(other).manifest == commit(one).manifest, "what came meanwhile is adopted"


def test_what_is_only_here_is_not_published_and_not_trimmed(tmp_path, bucket):
    store = MirroredStore(LocalStore(tmp_path / "here"), bucket, only_here=("pretrain",))
    made = commit(store)
    store.trim(0, keep=())
    assert store.find("pretrain", "f1") == made and store.names("pretrain") == ["f1"]
    assert list(bucket.listed()) == []


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_prefix_is_fetched_as_a_folder_once_and_again_what_changed(tmp_path, bucket, monkeypatch):
    objects = {"a.pdf": b"one", "deep/b.pdf": b"two", "deep/er/ữ.pdf": b"three", "empty.pdf": b""}
    for key, content in objects.items():
        bucket.write(key, content)
    bucket.write("marker/", b"")
    folder, fetched = tmp_path / "documents", []
    download = Bucket.download

    def counted(self, key, path, *, size):
        fetched.append(key)
        download(self, key, path, size=size)

    monkeypatch.setattr(Bucket, "download", counted)
    told = []
    fetch_folder(bucket, folder, lambda *done: told.append(done))
    assert files_of(folder) == objects and sorted(fetched) == sorted(objects)
    assert told == [(done, 4) for done in range(5)]
    fetched.clear()
    bucket.write("a.pdf", b"ONE")  # of the same size
    bucket.remove("deep/b.pdf")
    (folder / "deep" / "er" / "ữ.pdf").unlink()
    (folder / "mine.txt").touch()
    fetch_folder(bucket, folder)
    assert sorted(fetched) == ["a.pdf", "deep/er/ữ.pdf"]
    assert files_of(folder) == {"a.pdf": b"ONE", "deep/er/ữ.pdf": b"three", "empty.pdf": b""}


@pytest.mark.parametrize("key", ["../out.pdf", "a/../../out.pdf", "a//b.pdf", "./a.pdf"])
def test_a_key_that_would_leave_the_folder_is_refused(tmp_path, server, key):
    class Listing:
        address = "s3://made-up"

        def listed(self):
            return [Listed(key=key, bytes=1, etag="x")]

    with pytest.raises(BucketError, match="rename the object"):
        fetch_folder(Listing(), tmp_path / "documents")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_prefix_is_an_error(tmp_path, bucket):
    with pytest.raises(BucketError, match="holds nothing: check the address"):
        fetch_folder(bucket, tmp_path / "documents")


def test_what_cannot_be_reached_is_told_in_words(server, tmp_path, monkeypatch):
    with pytest.raises(BucketError, match=r"no-such-bucket.*make the bucket"):
        list(open_bucket("s3://no-such-bucket").listed())
    with pytest.raises(BucketError, match="write s3://bucket/prefix"):
        open_bucket("s3:/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(BucketError, match="check the credentials") as told:
        open_bucket("s3://test-bucket").write("a", b"a")
    assert "wrong" not in str(told.value)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(BucketError, match="aws configure"):
        open_bucket("s3://test-bucket").write("a", b"a")


@pytest.mark.chaos
def test_a_troubled_service_corrupts_nothing_and_hides_nothing(
    server, tmp_path, small_parts, bucket, monkeypatch
):
    with faulty_proxy(server.ports["s3"], share=0.2, seed=0) as (address, met):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        troubled = open_bucket(bucket.address)
        made = commit(machine(tmp_path, troubled), LARGE)
        found = machine(tmp_path, troubled).find("pretrain", "f1")
        assert found.manifest == made.manifest and content_of(found) == LARGE
        for place in range(20):
            commit(machine(tmp_path, troubled), {"a": bytes([place])}, fingerprint=f"g{place}")
        assert len(met) == len(FAULTS), met
    assert content_of(machine(tmp_path, bucket).find("pretrain", "f1")) == LARGE
    for place in range(20):
        assert content_of(machine(tmp_path, bucket).find("pretrain", f"g{place}")) == {"a": bytes([place])}


def test_a_service_without_conditional_writes_is_refused(bucket, monkeypatch):
    bucket.require_conditional_writes()
    put_object = bucket.client.put_object
    monkeypatch.setattr(bucket.client, "put_object", lambda IfNoneMatch=None, **others: put_object(**others))
    with pytest.raises(BucketError, match="ignores conditional writes"):
        bucket.require_conditional_writes()


def test_a_server_that_was_away_is_waited_for(server, tmp_path, bucket):
    store = machine(tmp_path, bucket)
    with ThreadPoolExecutor(1) as pool:
        server.kill()
        publishing = pool.submit(commit, store)
        server.start()
        made = publishing.result(timeout=120)
    assert machine(tmp_path, bucket).find("pretrain", "f1").manifest == made.manifest


def test_a_programs_checkpoints_are_published_as_they_come_and_fetched_elsewhere(
    tmp_path, bucket, monkeypatch
):
    monkeypatch.setattr(mirrored_store, "SECONDS_BETWEEN_LOOKS", 0.05)
    one = machine(tmp_path, bucket)
    program = LocalStore(one.local.root)  # what ranks write to
    mine = lambda name: name.startswith("t1-")  # noqa: E731
    with one.following("pretrain", mine):
        for step in (1, 2, 3):
            commit(program, {"state": bytes([step])}, fingerprint=f"t1-{step}")
        commit(program, {"state": b"x"}, fingerprint="t2-1")
        wait_for(lambda: machine(tmp_path, bucket).names("pretrain") == ["t1-1", "t1-2", "t1-3"])
        program.remove("pretrain", "t1-1")
        wait_for(lambda: machine(tmp_path, bucket).names("pretrain") == ["t1-2", "t1-3"])
    monkeypatch.setattr(mirrored_store, "SECONDS_BETWEEN_LOOKS", 1000)
    other = machine(tmp_path, bucket)
    with pytest.raises(KeyboardInterrupt), other.following("pretrain", mine):
        assert other.local.names("pretrain") == ["t1-2", "t1-3"]
        commit(other.local, {"state": b"4"}, fingerprint="t1-4")
        raise KeyboardInterrupt
    assert machine(tmp_path, bucket).names("pretrain") == ["t1-2", "t1-3", "t1-4"]


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not come true")


def test_attempts_leave_nothing(machines):
    store = next(iter(machines))
    made = commit(store)
    assert not list((made.path.parents[1] / ATTEMPTS).iterdir())
