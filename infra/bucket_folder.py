"""What lies below a prefix of a bucket as a folder: fetched once, and again what has changed there."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from infra.bucket import AT_ONCE, Bucket, BucketError, Listed

Told = Callable[[int, int], None]
"""Hears how many of how many objects are here."""


def fetch_folder(bucket: Bucket, folder: Path, told: Told = lambda done, total: None) -> None:
    """Make `folder` hold exactly what the bucket's prefix holds, names and content.

    What was fetched before and has the same size and ETag there is not fetched again; a note beside the
    folder keeps them. Raises BucketError, also for a key that is no path of a file below a folder."""
    note = folder.with_name(f"{folder.name}.json")
    known: dict[str, list] = json.loads(note.read_text()) if note.is_file() else {}
    there = {one.key: one for one in bucket.listed() if not one.key.endswith("/")}
    for key in there:
        _require_path(bucket, key)
    if not there:
        raise BucketError(f"{bucket.address} holds nothing: check the address")
    # What is about to change is known of no more: an interrupted fetch begins it anew.
    fetched = {key: known[key] for key, one in there.items() if _is_here(one, folder, known)}
    missing = [one for key, one in there.items() if key not in fetched]
    _remove_others(folder, set(there))
    _write(note, fetched)

    def fetch(one: Listed) -> None:
        path = folder / one.key
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.unlink(missing_ok=True)  # of which version, nobody knows
        bucket.download(one.key, part, size=one.bytes)
        part.replace(path)

    told(len(fetched), len(there))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for one, _ in zip(missing, pool.map(fetch, missing), strict=True):
            fetched[one.key] = [one.bytes, one.etag]
            told(len(fetched), len(there))
    _write(note, fetched)


def _is_here(one: Listed, folder: Path, known: dict[str, list]) -> bool:
    path = folder / one.key
    return known.get(one.key) == [one.bytes, one.etag] and path.is_file() and path.stat().st_size == one.bytes


def _require_path(bucket: Bucket, key: str) -> None:
    parts = key.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts) or len(key) > 1024:
        raise BucketError(f"{bucket.address}/{key!r} cannot be a file below a folder: rename the object")


def _remove_others(folder: Path, keys: set[str]) -> None:
    """Files of objects that are gone, and what an interrupted fetch left."""
    folder.mkdir(parents=True, exist_ok=True)
    folders = {parent.as_posix() for key in keys for parent in PurePosixPath(key).parents}
    for path in sorted(folder.rglob("*"), reverse=True):
        key = path.relative_to(folder).as_posix()
        if path.is_dir():
            if key not in folders:
                shutil.rmtree(path)
        elif key not in keys:
            path.unlink()


def _write(note: Path, fetched: dict[str, list]) -> None:
    new = note.with_name(f".{note.name}.new")
    new.write_text(json.dumps(fetched, indent=1, sort_keys=True))
    new.replace(note)
