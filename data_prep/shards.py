"""Samples in WebDataset tars, read by index; `data_prep.write_shards` writes them.

A committed split holds `shards/NNNNNN.tar` (members `KEY.png`, `KEY.json`), beside each tar
`NNNNNN.index.json` with the offsets of every sample's two members, so that any sample is one read away, and
`shards.json` with the number of samples of each shard. The tars stay plain: any WebDataset reader opens them.
"""

import json
import os
import weakref
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_prep.samples import Sample, sample_of

_MEMBER_LIMIT_BYTES = 64 * 2**20
_OPEN_SHARDS = 64  # of this process; the sample order reads from fewer at a time


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


class ShardSource:
    """Random access to the samples of a committed split, by position; threads may share it.

    It holds one number per shard. Parsed indexes and open tars are in a cache that all sources of the
    process share, so that neither memory nor open files grow with the number of samples or of sources.

    Args:
        folder: the split's folder.
        trainable_only: leave out pages without text.
        characters: leave out texts of other lengths (the whole index is read once to count the others).
    """

    def __init__(
        self, folder: Path, *, trainable_only: bool = False, characters: range | None = None
    ) -> None:
        self.folder = Path(folder)
        self._trainable_only, self._characters = trainable_only, characters
        shards = json.loads((self.folder / "shards.json").read_text(encoding="utf-8"))
        self._names = [shard["name"] for shard in shards]
        if characters is None:
            sizes = [shard["trainable" if trainable_only else "samples"] for shard in shards]
        else:
            sizes = [len(self.read_index(name)) for name in self._names]
        self.shard_sizes = np.array(sizes, dtype=np.int64)
        """Samples of each shard after the filter."""
        self._ends = np.cumsum(self.shard_sizes)
        self._samples = int(self.shard_sizes.sum())

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, position: int) -> Sample:
        shard, number = self._place(position)
        return sample_of(shard.record(number), shard.member("png", number))

    def length(self, position: int) -> int:
        """Return the length of one sample's text in characters, from the index alone."""
        shard, number = self._place(position)
        return int(shard.index["characters"][number])

    def entry(self, position: int) -> dict:
        """Return one sample's entry of the index: its key, sizes and digests."""
        shard, number = self._place(position)
        return {name: column[number].tolist() for name, column in shard.index.items()}

    def records(self) -> Iterator[dict]:
        """Every sample's JSON record, in order, without reading images."""
        for number, samples in enumerate(self.shard_sizes):
            shard = self._shard(number)
            yield from map(shard.record, range(samples))

    def texts(self) -> Iterator[str]:
        """Every sample's text, in order, without reading images."""
        return (record["text"] for record in self.records())

    def keys(self) -> Iterator[str]:
        """Every sample's key, in order, from the indexes alone."""
        return (entry["key"] for name in self._names for entry in self.read_index(name))

    def positions_of(self, keys: Iterable[str]) -> dict[str, int]:
        """Return {key: position} of those of `keys` that the source has, in one pass over the indexes."""
        wanted = set(keys)
        return {key: position for position, key in enumerate(self.keys()) if key in wanted}

    def read_index(self, name: str) -> list[dict]:
        """Return the entries of one shard that the source has."""
        if Path(name).name != name:
            raise ValueError(f"{self.folder / 'shards.json'}: the shard {name!r} lies outside the split")
        path = (self.folder / "shards" / name).with_suffix(".index.json")
        return [
            entry
            for entry in json.loads(path.read_text(encoding="utf-8"))
            if (entry["trainable"] or not self._trainable_only)
            and (self._characters is None or entry["characters"] in self._characters)
        ]

    def _place(self, position: int) -> tuple[OpenShard, int]:
        """Return the shard that holds a position and the sample's number in it."""
        if not 0 <= position < self._samples:
            raise IndexError(f"{self.folder}: no sample {position:,} among {self._samples:,}")
        number = self._ends.searchsorted(position, side="right")
        return self._shard(number), int(position - self._ends[number] + self.shard_sizes[number])

    def _shard(self, number: int) -> OpenShard:
        shard = open_shard(self, self._names[number])
        if shard.samples != self.shard_sizes[number]:
            raise ValueError(
                f"{shard.path}: its index has {shard.samples:,} samples where shards.json says "
                f"{self.shard_sizes[number]:,}; the split is damaged, make it again"
            )
        return shard


@lru_cache(maxsize=_OPEN_SHARDS)
def open_shard(source: ShardSource, name: str) -> OpenShard:
    """Return a shard of this source, from the cache where it is there; another source reads files anew."""
    return OpenShard(source.folder / "shards" / name, source.read_index(name))
