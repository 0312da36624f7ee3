"""Samples as WebDataset tars, which `data_prep.shards` reads.

Written here and not with webdataset: for samples as small as blocks its writer, and reading the tar again for
the places of its members, took more time than all else. A tar of plain files is headers that differ in three
fields.
"""

import hashlib
import itertools
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from data_prep.samples import Sample, name_digest

_json = TypeAdapter(Any).dump_json  # a tenth of the time that json.dumps takes
_TAR_BLOCK = tarfile.BLOCKSIZE
_NAME_BYTES = 100
_DIGITS = 16  # of the digests in an index
_SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)  # of a header
_BLANKS = 8 * ord(" ")  # in place of the checksum when it is summed


def _empty_header() -> bytes:
    """The header of a file without a name, a size and a checksum."""
    file = tarfile.TarInfo()
    file.mode, file.uname, file.gname = 0o444, "root", "root"
    header = bytearray(file.tobuf(tarfile.USTAR_FORMAT))
    header[_SIZE], header[_CHECKSUM] = bytes(12), bytes(8)
    return bytes(header)


_HEADER = _empty_header()
_SUM_OF_HEADER = sum(_HEADER) + _BLANKS


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
    index, end = [], 0
    with path.open("wb") as tar:
        for sample in samples:
            fields = {name: value for name, value in sorted(vars(sample).items()) if name != "png"}
            places = {}
            for kind, content in (("png", sample.png), ("json", _json(fields))):
                places[kind] = end + _TAR_BLOCK, len(content)
                end += tar.write(_member(f"{sample.key}.{kind}", content))
            index.append(_entry(sample) | places)
        tar.write(bytes(2 * _TAR_BLOCK))
    path.with_suffix(".index.json").write_bytes(_json(index))
    return index


def _member(name: str, content: bytes) -> bytes:
    """Return a file as it stands in a tar: a header, the content, and zeros up to the next whole block."""
    return _header(name, len(content)) + content + bytes(-len(content) % _TAR_BLOCK)


def _header(name: str, size: int) -> bytes:
    """Return the header of a file in a tar: all is as in _HEADER but its name, size and checksum."""
    encoded = name.encode()
    if len(encoded) > _NAME_BYTES:
        raise ValueError(f"{name}: longer than the {_NAME_BYTES} bytes that a name in a tar may have")
    header = bytearray(_HEADER)
    header[: len(encoded)] = encoded
    header[_SIZE] = digits = b"%011o\0" % size
    header[_CHECKSUM] = b"%06o\0 " % (_SUM_OF_HEADER + sum(encoded) + sum(digits))
    return bytes(header)


def _entry(sample: Sample) -> dict:
    """Return what the index says of a sample, but where its members lie."""
    text = sample.text.encode()
    return {
        "key": sample.key,
        "characters": len(sample.text),
        "text_bytes": len(text),
        "width": sample.width,
        "height": sample.height,
        "trainable": sample.trainable,
        "document_digest": name_digest(sample.document)[:_DIGITS],
        "text_digest": _digest(text),
        "image_digest": _digest(sample.png),
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
