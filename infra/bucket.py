"""Objects below a prefix of an S3 bucket: whole or not there, transfers that go on where they were cut.

    bucket = open_bucket("s3://name/prefix")

Credentials, region, endpoint and proxies are those of boto3's default chain (environment, ~/.aws, instance):
none comes from our own settings, and none is written anywhere. Another endpoint: AWS_ENDPOINT_URL_S3."""

import base64
import hashlib
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from infra.store import StoreError

PART_BYTES = 16 * 2**20
MOST_PARTS = 10_000
"""Of one upload, as S3 has it."""
AT_ONCE = 8
"""Parts in flight of one file; each is in memory."""
MOST_ATTEMPTS = 15
"""Of one call: a server that is started anew is waited for, about a minute."""
_PROBE = ".lco"
_SHA256 = "sha256"
"""Metadata of an object: of its content, in hex."""
_ADDRESS = re.compile(r"s3://(?P<name>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")
_CHANGED, _IN_CONFLICT = "PreconditionFailed", "ConditionalRequestConflict"
_CUT = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
_MISSING = ("404", "NoSuchKey", "NotFound", "NoSuchUpload")


class BucketError(StoreError):
    """A bucket cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An object below the prefix. `key` is relative to it."""

    key: str
    bytes: int
    etag: str


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Keys are relative to `prefix`, which is empty or ends with a slash."""

    client: Any
    name: str
    prefix: str

    @property
    def address(self) -> str:
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    def read(self, key: str) -> bytes | None:
        """Content of a small object; None where there is none."""
        with self._told(key):
            try:
                return self._content(key)
            except ClientError as error:
                if _code(error) in _MISSING:
                    return None
                raise

    def create(self, key: str, content: bytes) -> bool:
        """Write a small object if there is none; whether there was none."""
        with self._told(key):
            while True:
                try:
                    self.client.put_object(
                        **self._place(key), Body=content, IfNoneMatch="*", ChecksumAlgorithm="SHA256"
                    )
                    return True
                except ClientError as error:
                    if _code(error) == _IN_CONFLICT:  # another one is being written: look again
                        continue
                    if _code(error) in (_CHANGED, "412"):
                        return False
                    raise

    def require_conditional_writes(self) -> None:
        """Raises BucketError for a service that ignores `If-None-Match`: the last commit would win."""
        self.create(_PROBE, b"")
        if self.create(_PROBE, b""):
            raise BucketError(
                f"{self.address}: this service ignores conditional writes (If-None-Match), and two runs "
                "would overwrite each other's outputs: use another service, or a folder"
            )

    def write(self, key: str, content: bytes, *, media_type: str = "application/octet-stream") -> None:
        """Write a small object, over one that is there."""
        with self._told(key):
            self.client.put_object(
                **self._place(key), Body=content, ChecksumAlgorithm="SHA256", ContentType=media_type
            )

    def listed(self, below: str = "") -> Iterator[Listed]:
        """Objects whose keys begin with `below`, sorted by key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=self.prefix + below
        )
        with self._told(below):
            for page in pages:
                for one in page.get("Contents", ()):
                    key = one["Key"].removeprefix(self.prefix)
                    yield Listed(key=key, bytes=one["Size"], etag=one["ETag"].strip('"'))

    def remove(self, below: str) -> None:
        """Delete all objects whose keys begin with `below`, and uploads of such that were cut."""
        with self._told(below):
            for one in list(self.listed(below)):
                self.client.delete_object(**self._place(one.key))
            for upload in self._uploads(below):
                self.client.abort_multipart_upload(
                    Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"]
                )

    def upload(self, path: Path, key: str, *, sha256: str) -> None:
        """Write a file, whose SHA-256 in hex is known, with checksums of all its parts.

        The content of a key never changes: parts that an earlier attempt, or another process, has brought
        there are not sent again. Until the last part is there, nobody sees an object."""
        size = path.stat().st_size
        with self._told(key):
            if self._holds(key, size, sha256):
                return
            if size <= PART_BYTES:
                content = path.read_bytes()
                checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
                self.client.put_object(
                    **self._place(key), Body=content, ChecksumSHA256=checksum, Metadata={_SHA256: sha256}
                )
                return
            self._upload_parts(path, key, size, sha256)

    def download(self, key: str, path: Path, *, size: int) -> str:
        """Fetch an object of `size` bytes; a file that holds its beginning is continued.

        Returns the SHA-256 of what the file holds then, in hex: whoever knows what it is to be compares.
        Raises BucketError for an object that is not there or of another size.
        """
        if path.exists() and path.stat().st_size > size:  # of something else
            path.unlink()
        content = hashlib.sha256()
        with self._told(key), path.open("a+b") as file, ThreadPoolExecutor(AT_ONCE) as pool:
            file.seek(0)
            while beginning := file.read(PART_BYTES):
                content.update(beginning)
            starts = range(file.tell(), size, PART_BYTES)
            for part in _in_order(pool, lambda start: self._part(key, start, size), starts):
                file.write(part)
                content.update(part)
            if size == 0 and self.client.head_object(**self._place(key))["ContentLength"]:
                raise BucketError(f"{self.address}/{key} has other than 0 bytes")
        return content.hexdigest()

    def _content(self, key: str, **asked: str) -> bytes:
        """A body that is cut is asked for again: botocore does so only with requests."""
        cut = 0
        while True:
            try:
                return self.client.get_object(**self._place(key), **asked)["Body"].read()
            except _CUT:
                cut += 1
                if cut == MOST_ATTEMPTS:
                    raise
                time.sleep(min(0.1 * 2**cut, 5))

    def _part(self, key: str, start: int, size: int) -> bytes:
        end = min(start + PART_BYTES, size) - 1
        part = self._content(key, Range=f"bytes={start}-{end}")
        if len(part) != end - start + 1:
            raise BucketError(f"{self.address}/{key} is shorter than the {size:,} bytes it was to have")
        return part

    def _holds(self, key: str, size: int, sha256: str) -> bool:
        try:
            head = self.client.head_object(**self._place(key))
        except ClientError as error:
            if _code(error) in _MISSING:
                return False
            raise
        return head["ContentLength"] == size and head["Metadata"].get(_SHA256) == sha256

    def _upload_parts(self, path: Path, key: str, size: int, sha256: str) -> None:
        # A larger file has larger parts, always the same for its size: so its parts are found again.
        part_bytes = PART_BYTES * -(-size // (PART_BYTES * MOST_PARTS))
        upload, there = self._begun(key, sha256)
        numbers = range(1, -(-size // part_bytes) + 1)

        def send(number: int) -> dict[str, Any]:
            with path.open("rb") as file:
                content = os.pread(file.fileno(), part_bytes, (number - 1) * part_bytes)
            checksum = base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()
            sent = there.get(number)
            if sent is None or not _is_of(sent, content, checksum):
                sent = self.client.upload_part(
                    **self._place(key),
                    UploadId=upload,
                    PartNumber=number,
                    Body=content,
                    ChecksumCRC32=checksum,
                )
            return {"PartNumber": number, "ETag": sent["ETag"], "ChecksumCRC32": checksum}

        with ThreadPoolExecutor(AT_ONCE) as pool:
            parts = list(_in_order(pool, send, numbers))
        try:
            self.client.complete_multipart_upload(
                **self._place(key), UploadId=upload, MultipartUpload={"Parts": parts}
            )
        except ClientError as error:
            if _code(error) not in _MISSING or not self._holds(key, size, sha256):
                raise  # else another process was faster

    def _begun(self, key: str, sha256: str) -> tuple[str, dict[int, dict[str, Any]]]:
        """The newest upload of this key that was cut, with its parts by number, or a new one."""
        mine = [one for one in self._uploads(key) if one["Key"] == self.prefix + key]
        for one in sorted(mine, key=lambda one: one["Initiated"], reverse=True)[:1]:
            pages = self.client.get_paginator("list_parts").paginate(
                **self._place(key), UploadId=one["UploadId"]
            )
            parts = {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
            return one["UploadId"], parts
        begun = self.client.create_multipart_upload(
            **self._place(key), ChecksumAlgorithm="CRC32", Metadata={_SHA256: sha256}
        )
        return begun["UploadId"], {}

    def _uploads(self, below: str) -> list[dict[str, Any]]:
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.name, Prefix=self.prefix + below
        )
        return [one for page in pages for one in page.get("Uploads", ())]

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self.name, "Key": self.prefix + key}

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Errors of the service in words for people."""
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise BucketError(f"{self.address}/{key}: {error}; {_advice(error)}") from error


def open_bucket(address: str) -> Bucket:
    """The bucket and prefix of `s3://name/prefix`. Raises BucketError for another address."""
    found = _ADDRESS.fullmatch(address)
    if not found:
        raise BucketError(f"{address!r} is no address of a bucket: write s3://bucket/prefix")
    config = {
        "retries": {"mode": "standard", "max_attempts": MOST_ATTEMPTS},
        "connect_timeout": 10,
        "read_timeout": 60,
    }
    try:
        client = boto3.session.Session().client("s3", config=Config(**config))
        if not client.meta.endpoint_url.endswith("amazonaws.com"):  # few others have a host name a bucket
            client = boto3.session.Session().client(
                "s3", config=Config(**config, s3={"addressing_style": "path"})
            )
    except BotoCoreError as error:
        raise BucketError(f"{address}: {error}; {_advice(error)}") from error
    prefix = (found["prefix"] or "").strip("/")
    return Bucket(client=client, name=found["name"], prefix=f"{prefix}/" if prefix else "")


def _in_order(pool: ThreadPoolExecutor, function: Callable[[int], Any], over: range) -> Iterator[Any]:
    """Results in order, `AT_ONCE` computed ahead: no more are in memory. The first error ends all."""
    waiting = []
    try:
        for one in over:
            waiting.append(pool.submit(function, one))
            if len(waiting) == AT_ONCE:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        for one in waiting:
            one.cancel()


def _is_of(sent: dict[str, Any], content: bytes, crc32: str) -> bool:
    """Whether a part that is there has this content; where the service keeps no checksum, by its MD5."""
    if sent.get("Size") != len(content):
        return False
    if "ChecksumCRC32" in sent:
        return sent["ChecksumCRC32"] == crc32
    return sent["ETag"].strip('"') == hashlib.md5(content, usedforsecurity=False).hexdigest()


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _advice(error: Exception) -> str:
    text = f"{type(error).__name__} {_code(error) if isinstance(error, ClientError) else ''}"
    if "Credentials" in text:
        return "give credentials as `aws configure` does, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if any(word in text for word in ("AccessDenied", "403", "SignatureDoesNotMatch", "InvalidAccessKeyId")):
        return "check the credentials and what they may do with this bucket"
    if "NoSuchBucket" in text:
        return "make the bucket, or correct its name"
    if "Endpoint" in text or "Connect" in text:
        return "check the network and AWS_ENDPOINT_URL_S3, then run again"
    return "run again; what was transferred is kept"
