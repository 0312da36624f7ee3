"""Open shards: a parsed index and a tar to read from, in a bounded cache for the whole process."""

import json
import os
import weakref
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

_MEMBER_LIMIT_BYTES = 64 * 2**20
_OPEN_SHARDS = 64  # of this process; the sample order reads from fewer at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitView:
    """Which samples of which split a source has. Compared by identity: a new source reads files anew."""

    folder: Path
    trainable_only: bool
    max_characters: int | None

    def read_index(self, name: str) -> list[dict]:
        """Return the entries of one shard that the source has."""
        if Path(name).name != name:
            raise ValueError(f"{self.folder / 'shards.json'}: the shard {name!r} lies outside the split")
        path = (self.folder / "shards" / name).with_suffix(".index.json")
        return [
            entry
            for entry in json.loads(path.read_text(encoding="utf-8"))
            if (entry["trainable"] or not self.trainable_only)
            and (self.max_characters is None or entry["characters"] <= self.max_characters)
        ]


class OpenShard:
    """One shard: its index, and its open tar, closed when nobody uses it any more."""

    def __init__(self, path: Path, entries: list[dict]) -> None:
        self.path = path
        self.samples = len(entries)
        self.index = {
            name: np.array([entry[name] for entry in entries]) for name in (entries[0] if entries else ())
        }
        """One array per field of the entries: a third of their memory."""
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def record(self, number: int) -> dict:
        """Return the JSON record of one sample."""
        return json.loads(self.member("json", number))

    def member(self, kind: str, number: int) -> bytes:
        """Return the bytes of a sample's `png` or `json`. Threads may call it at the same time."""
        offset, size = self.index[kind][number].tolist()
        if not 0 <= size <= _MEMBER_LIMIT_BYTES or offset < 0:
            raise ValueError(f"{self.path}: no member can have {size:,} bytes at {offset:,}")
        content = os.pread(self._descriptor, size, offset)
        if len(content) != size:
            raise ValueError(f"{self.path}: it ends inside a member of {size:,} bytes at {offset:,}")
        return content


@lru_cache(maxsize=_OPEN_SHARDS)
def open_shard(view: SplitView, name: str) -> OpenShard:
    """Return one shard of a split, from the cache where it is there."""
    return OpenShard(view.folder / "shards" / name, view.read_index(name))
