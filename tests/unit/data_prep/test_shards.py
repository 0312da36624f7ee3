"""Shards are plain WebDataset tars: its own reader gives back the same keys, bytes and JSON."""

import io
import json
from pathlib import Path

import pytest
import webdataset
from PIL import Image, UnidentifiedImageError

from data_prep.queries import Query
from data_prep.shards import Sample, ShardSource, read_queries, sample_key, write_split

QUERIES = [
    Query(identity="q0", text="sông\u2028cũ", relevant=("k",)),
    Query(identity="q1", text="b", relevant=("k", "l")),
]


def sample(number: int, **fields) -> Sample:
    image = Image.new("L", (32, 16), number * 20)
    image.save(buffer := io.BytesIO(), format="PNG")
    values = {
        "key": sample_key("tài liệu.pdf", number, None if number % 3 else 7), "document": "tài liệu.pdf",
        "page": number, "block": None if number % 3 else 7, "text": f"Trang số {number}", "is_heading": False,
        "width": 32, "height": 16, "trainable": bool(number % 2), "png": buffer.getvalue(),
    }  # fmt: skip
    return Sample(**values | fields)


SAMPLES = [sample(number) for number in range(7)]


@pytest.fixture
def split(tmp_path) -> Path:
    write_split(tmp_path, SAMPLES, QUERIES, per_shard=3)
    return tmp_path


def test_webdataset_reads_the_same_keys_bytes_and_records(split):
    urls = [str(path) for path in sorted((split / "shards").iterdir())]
    assert len(urls) == 3
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [item["__key__"] for item in read] == [s.key for s in SAMPLES]
    assert [item["png"] for item in read] == [s.png for s in SAMPLES]
    assert [Sample(**json.loads(item["json"]), png=item["png"]) for item in read] == SAMPLES


def test_random_access_equals_sequential_access(split):
    source = ShardSource(split)
    assert [source[n] for n in (6, 0, 3, 2, 5, 1, 4)] == [SAMPLES[n] for n in (6, 0, 3, 2, 5, 1, 4)]
    assert list(source.texts()) == [s.text for s in SAMPLES]
    assert [record["key"] for record in source.records()] == [s.key for s in SAMPLES]
    assert source.characters() == [len(s.text) for s in SAMPLES]
    assert all(source.by_key(s.key) == s for s in SAMPLES)
    with pytest.raises(KeyError):
        source.by_key("unknown")


def test_pages_without_text_can_be_left_out(split):
    source = ShardSource(split, trainable_only=True)
    assert [source[n] for n in range(len(source))] == [s for s in SAMPLES if s.trainable]


def test_counts_and_queries(tmp_path):
    assert write_split(tmp_path, SAMPLES, QUERIES, per_shard=3) == {
        "samples": 7, "trainable": 3, "shards": 3, "queries": 2,
        "text_bytes": sum(len(s.text.encode()) for s in SAMPLES),
    }  # fmt: skip
    assert read_queries(tmp_path) == QUERIES


def test_an_empty_split_is_readable(tmp_path):
    assert write_split(tmp_path, [], [], per_shard=3)["samples"] == 0
    assert (len(ShardSource(tmp_path)), read_queries(tmp_path)) == (0, [])


def test_the_same_samples_give_the_same_bytes(split, tmp_path_factory):
    again = tmp_path_factory.mktemp("again")
    write_split(again, SAMPLES, QUERIES, per_shard=3)
    files = [path.relative_to(split) for path in sorted(split.rglob("*")) if path.is_file()]
    assert len(files) == 5
    assert all((again / path).read_bytes() == (split / path).read_bytes() for path in files)


def test_only_png_is_decoded(scan):
    scan.save(jpeg := io.BytesIO(), format="JPEG")
    assert SAMPLES[3].image().getpixel((0, 0)) == 60
    with pytest.raises(UnidentifiedImageError):
        sample(1, png=jpeg.getvalue()).image()


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ([0, 2**40], "no member can have 1,099,511,627,776 bytes"),
        ([0, -1], "no member can have -1 bytes"),
        ([-5, 10], "no member can have 10 bytes at -5"),
        ([512, 2**20], "it ends inside a member"),
    ],
)
def test_a_hostile_index_is_refused(split, place, reason):
    index = json.loads((split / "index.json").read_text())
    index[0]["png"] = place
    (split / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=reason):
        ShardSource(split)[0]


@pytest.mark.parametrize("shard", ["../index.json", "/etc/passwd", "shards/000000.tar"])
def test_an_index_cannot_point_outside_its_split(split, shard):
    index = json.loads((split / "index.json").read_text())
    index[0]["shard"] = shard
    (split / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="lies outside the split"):
        ShardSource(split)[0]
