"""Samples in WebDataset tars, written with the webdataset library and read back by index.

A committed split holds `shards/NNNNNN.tar` (members `KEY.png`, `KEY.json`), `queries.jsonl`, and
`index.json`: for every sample the offsets of its two members, so that any sample is one seek away. The tars
stay plain: any WebDataset reader opens them.
"""

import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from data_prep.queries import Query

_MEMBER_LIMIT_BYTES = 64 * 2**20


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
    return f"{hashlib.sha256(document.encode()).hexdigest()[:12]}-{place}"


def write_split(folder: Path, samples: Iterable[Sample], queries: Iterable[Query], per_shard: int) -> dict:
    """Write one split into `folder`; the same samples give the same bytes. Returns its counts."""
    (folder / "shards").mkdir()
    index: list[dict] = []
    shard: list[Sample] = []
    for sample in samples:
        shard.append(sample)
        if len(shard) == per_shard:
            index += _write_shard(folder, len(index) // per_shard, shard)
            shard = []
    if shard:
        index += _write_shard(folder, len(index) // per_shard, shard)
    lines = [query.to_json() + "\n" for query in queries]
    (folder / "queries.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return {
        "samples": len(index),
        "trainable": sum(entry["trainable"] for entry in index),
        "shards": -(-len(index) // per_shard),
        "queries": len(lines),
        "text_bytes": sum(entry["text_bytes"] for entry in index),
    }


def _write_shard(folder: Path, number: int, samples: list[Sample]) -> list[dict]:
    """Write one tar and return the index entries of its samples."""
    import webdataset  # loads torch, which readers of shards (the report, the flow) do not need

    path = folder / "shards" / f"{number:06d}.tar"
    with webdataset.TarWriter(str(path), encoder=False, mtime=0, user="root", group="root") as writer:
        for sample in samples:
            fields = {name: value for name, value in vars(sample).items() if name != "png"}
            record = json.dumps(fields, ensure_ascii=False, sort_keys=True).encode()
            writer.write({"__key__": sample.key, "png": sample.png, "json": record})
    with tarfile.open(path) as tar:
        places = {member.name: (member.offset_data, member.size) for member in tar}
    return [
        {
            "key": sample.key,
            "shard": path.name,
            "png": places[f"{sample.key}.png"],
            "json": places[f"{sample.key}.json"],
            "characters": len(sample.text),
            "text_bytes": len(sample.text.encode()),
            "trainable": sample.trainable,
        }
        for sample in samples
    ]


class ShardSource:
    """Random access to the samples of a committed split; a Grain data source.

    Args:
        folder: the split's folder.
        trainable_only: leave out pages without text.
        max_characters: leave out longer texts.
    """

    def __init__(
        self, folder: Path, *, trainable_only: bool = False, max_characters: int | None = None
    ) -> None:
        self.folder = Path(folder)
        entries = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
        self.entries = [
            entry
            for entry in entries
            if (entry["trainable"] or not trainable_only)
            and (max_characters is None or entry["characters"] <= max_characters)
        ]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, position: int) -> Sample:
        entry = self.entries[position]
        with self._open(entry["shard"]) as file:
            png, record = (_read_member(file, *entry[name]) for name in ("png", "json"))
        return Sample(**json.loads(record), png=png)

    def records(self) -> Iterator[dict]:
        """Every sample's JSON record, in order, without reading images."""
        for shard, entries in itertools.groupby(self.entries, key=lambda entry: entry["shard"]):
            with self._open(shard) as file:
                for entry in entries:
                    yield json.loads(_read_member(file, *entry["json"]))

    def texts(self) -> Iterator[str]:
        """Every sample's text, in order, without reading images."""
        return (record["text"] for record in self.records())

    def characters(self) -> list[int]:
        """Every sample's length in characters, in order."""
        return [entry["characters"] for entry in self.entries]

    def by_key(self, key: str) -> Sample:
        """Return one sample by key. Raises KeyError."""
        return self[self.positions[key]]

    @cached_property
    def positions(self) -> dict[str, int]:
        """{key: position} of every sample."""
        return {entry["key"]: position for position, entry in enumerate(self.entries)}

    def _open(self, shard: str) -> io.BufferedReader:
        if Path(shard).name != shard:
            raise ValueError(f"{self.folder / 'index.json'}: the shard {shard!r} lies outside the split")
        return (self.folder / "shards" / shard).open("rb")


def _read_member(file: io.BufferedReader, offset: int, size: int) -> bytes:
    if not 0 <= size <= _MEMBER_LIMIT_BYTES or offset < 0:
        raise ValueError(f"{file.name}: no member can have {size:,} bytes at {offset:,}")
    file.seek(offset)
    content = file.read(size)
    if len(content) != size:
        raise ValueError(f"{file.name}: it ends inside a member of {size:,} bytes at {offset:,}")
    return content


def read_queries(folder: Path) -> list[Query]:
    """Return the queries of a committed split, in file order."""
    lines = (Path(folder) / "queries.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return [Query(**{**record, "relevant": tuple(record["relevant"])}) for record in map(json.loads, lines)]
