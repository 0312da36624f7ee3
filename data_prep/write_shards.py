"""Samples as WebDataset tars, written with the webdataset library as `data_prep.shards` reads them."""

import hashlib
import itertools
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_prep.samples import Sample


def write_split(folder: Path, samples: Iterable[Sample], per_shard: int) -> dict:
    """Write one split into `folder`; the same samples give the same bytes. Returns its counts.

    One sample is in memory at a time. Raises ValueError for a key that comes twice.
    """
    (folder / "shards").mkdir()
    shards: list[dict] = []
    text_bytes, remaining = 0, _unrepeated(samples)
    for first in remaining:
        name = f"{len(shards):06d}.tar"
        shard = itertools.chain([first], itertools.islice(remaining, per_shard - 1))
        index = _write_shard(folder / "shards" / name, shard)
        text_bytes += sum(entry["text_bytes"] for entry in index)
        trainable = sum(entry["trainable"] for entry in index)
        shards.append({"name": name, "samples": len(index), "trainable": trainable})
    (folder / "shards.json").write_text(json.dumps(shards), encoding="utf-8")
    return {
        "samples": sum(shard["samples"] for shard in shards),
        "trainable": sum(shard["trainable"] for shard in shards),
        "shards": len(shards),
        "text_bytes": text_bytes,
    }


def _unrepeated(samples: Iterable[Sample]) -> Iterator[Sample]:
    keys: set[str] = set()
    for sample in samples:
        if sample.key in keys:
            raise ValueError(
                f"two samples have the key {sample.key}, the second is of {sample.document}: "
                "one would hide the other; rename the document"
            )
        keys.add(sample.key)
        yield sample


def _write_shard(path: Path, samples: Iterable[Sample]) -> list[dict]:
    """Write one tar and the index beside it; return the index."""
    import webdataset  # loads torch: a run whose documents are committed already need not wait for it

    index = []
    with webdataset.TarWriter(str(path), encoder=False, mtime=0, user="root", group="root") as writer:
        for sample in samples:
            fields = {name: value for name, value in vars(sample).items() if name != "png"}
            record = json.dumps(fields, ensure_ascii=False, sort_keys=True).encode()
            writer.write({"__key__": sample.key, "png": sample.png, "json": record})
            index.append(_entry(sample))
    with tarfile.open(path) as tar:
        places = {member.name: (member.offset_data, member.size) for member in tar}
    for entry in index:
        entry |= {kind: places[f"{entry['key']}.{kind}"] for kind in ("png", "json")}
    path.with_suffix(".index.json").write_text(json.dumps(index), encoding="utf-8")
    return index


def _entry(sample: Sample) -> dict:
    """Return what the index says of a sample; where its members lie is known when the tar is closed."""
    return {
        "key": sample.key,
        "png": None,
        "json": None,
        "characters": len(sample.text),
        "text_bytes": len(sample.text.encode()),
        "width": sample.width,
        "height": sample.height,
        "trainable": sample.trainable,
        "document_digest": _digest(sample.document.encode()),
        "text_digest": _digest(sample.text.encode()),
        "image_digest": _digest(sample.png),
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
