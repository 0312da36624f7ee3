"""Samples in WebDataset tars, written with the webdataset library and read back by index.

A committed split holds `shards/NNNNNN.tar` (members `KEY.png`, `KEY.json`), beside each tar
`NNNNNN.index.json` with the offsets of every sample's two members, so that any sample is one read away,
`shards.json` with the number of samples of each shard, and `queries.jsonl`. The tars stay plain: any
WebDataset reader opens them.
"""

import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.open_shards import OpenShard, SplitView, open_shard
from data_prep.queries import Query


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One page or block: its image (PNG bytes) and its text (NFC; empty for a page without text)."""

    key: str
    document: str
    page: int
    block: int | None
    text: str
    is_heading: bool
    width: int
    height: int
    trainable: bool
    png: bytes

    def image(self) -> Image.Image:
        """Decode the image (grey, 8 bit). Only PNG is accepted."""
        return Image.open(io.BytesIO(self.png), formats=("PNG",))


def sample_key(document: str, page: int, block: int | None) -> str:
    """Return a tar-safe key, unique in its corpus: a digest of the document's path, page and block."""
    place = f"{page:05d}" if block is None else f"{page:05d}-{block:03d}"
    return f"{_digest(document.encode())[:12]}-{place}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def write_split(folder: Path, samples: Iterable[Sample], queries: Iterable[Query], per_shard: int) -> dict:
    """Write one split into `folder`; the same samples give the same bytes. Returns its counts."""
    (folder / "shards").mkdir()
    shards: list[dict] = []
    text_bytes, remaining = 0, iter(samples)
    while shard := list(itertools.islice(remaining, per_shard)):
        name = f"{len(shards):06d}.tar"
        index = _write_shard(folder / "shards" / name, shard)
        text_bytes += sum(entry["text_bytes"] for entry in index)
        trainable = sum(entry["trainable"] for entry in index)
        shards.append({"name": name, "samples": len(index), "trainable": trainable})
    (folder / "shards.json").write_text(json.dumps(shards), encoding="utf-8")
    lines = [query.to_json() + "\n" for query in queries]
    (folder / "queries.jsonl").write_text("".join(lines), encoding="utf-8")
    return {
        "samples": sum(shard["samples"] for shard in shards),
        "trainable": sum(shard["trainable"] for shard in shards),
        "shards": len(shards),
        "queries": len(lines),
        "text_bytes": text_bytes,
    }


def _write_shard(path: Path, samples: list[Sample]) -> list[dict]:
    """Write one tar and the index beside it; return the index."""
    import webdataset  # loads torch, which readers of shards (the report, the flow) do not need

    with webdataset.TarWriter(str(path), encoder=False, mtime=0, user="root", group="root") as writer:
        for sample in samples:
            fields = {name: value for name, value in vars(sample).items() if name != "png"}
            record = json.dumps(fields, ensure_ascii=False, sort_keys=True).encode()
            writer.write({"__key__": sample.key, "png": sample.png, "json": record})
    with tarfile.open(path) as tar:
        places = {member.name: (member.offset_data, member.size) for member in tar}
    index = [
        {
            "key": sample.key,
            "png": places[f"{sample.key}.png"],
            "json": places[f"{sample.key}.json"],
            "characters": len(sample.text),
            "text_bytes": len(sample.text.encode()),
            "width": sample.width,
            "height": sample.height,
            "trainable": sample.trainable,
            "document_digest": _digest(sample.document.encode()),
            "text_digest": _digest(sample.text.encode()),
            "image_digest": _digest(sample.png),
        }
        for sample in samples
    ]
    path.with_suffix(".index.json").write_text(json.dumps(index), encoding="utf-8")
    return index


class ShardSource:
    """Random access to the samples of a committed split, by position; threads may share it.

    It holds one number per shard. Parsed indexes and open tars are in a cache that all sources of the
    process share, so that neither memory nor open files grow with the number of samples or of sources.

    Args:
        folder: the split's folder.
        trainable_only: leave out pages without text.
        max_characters: leave out longer texts (the whole index is read once to count the others).
    """

    def __init__(
        self, folder: Path, *, trainable_only: bool = False, max_characters: int | None = None
    ) -> None:
        self.folder = Path(folder)
        self._view = SplitView(
            folder=self.folder, trainable_only=trainable_only, max_characters=max_characters
        )
        shards = json.loads((self.folder / "shards.json").read_text(encoding="utf-8"))
        self._names = [shard["name"] for shard in shards]
        count = "trainable" if trainable_only else "samples"
        self.shard_sizes = np.array(
            [shard[count] for shard in shards]
            if max_characters is None
            else [len(self._view.read_index(name)) for name in self._names],
            dtype=np.int64,
        )
        """Samples of each shard after the filter."""
        self._ends = np.cumsum(self.shard_sizes)
        self._samples = int(self.shard_sizes.sum())

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, position: int) -> Sample:
        shard, number = self._place(position)
        return Sample(**shard.record(number), png=shard.member("png", number))

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
        for name in self._names:
            for entry in self._view.read_index(name):
                yield entry["key"]

    def positions_of(self, keys: Iterable[str]) -> dict[str, int]:
        """Return {key: position} of those of `keys` that the source has, in one pass over the indexes."""
        wanted = set(keys)
        return {key: position for position, key in enumerate(self.keys()) if key in wanted}

    def _place(self, position: int) -> tuple[OpenShard, int]:
        """Return the shard that holds a position and the sample's number in it."""
        if not 0 <= position < self._samples:
            raise IndexError(f"{self.folder}: no sample {position:,} among {self._samples:,}")
        number = self._ends.searchsorted(position, side="right")
        return self._shard(number), int(position - self._ends[number] + self.shard_sizes[number])

    def _shard(self, number: int) -> OpenShard:
        shard = open_shard(self._view, self._names[number])
        if shard.samples != self.shard_sizes[number]:
            raise ValueError(
                f"{shard.path}: its index has {shard.samples:,} samples where shards.json says "
                f"{self.shard_sizes[number]:,}; the split is damaged, make it again"
            )
        return shard


def read_queries(folder: Path) -> list[Query]:
    """Return the queries of a committed split, in file order."""
    lines = (Path(folder) / "queries.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return [Query(**{**record, "relevant": tuple(record["relevant"])}) for record in map(json.loads, lines)]
