"""Shards are plain WebDataset tars: its own reader gives back the same keys, bytes and JSON."""

import io
import json
import os
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import webdataset
from PIL import Image, UnidentifiedImageError

from data_prep.queries import Query, read_queries, write_queries
from data_prep.samples import Sample, sample_key, sample_of
from data_prep.shards import ShardSource, open_shard
from data_prep.write_shards import write_split

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
        "width": 32, "height": 16, "box": (0, 0, 32, 16), "ink": (number, 255),
        "reason": None if number % 2 else "short", "png": buffer.getvalue(),
    }  # fmt: skip
    return Sample(**values | fields)


SAMPLES = [sample(number) for number in range(7)]


@pytest.fixture
def split(tmp_path) -> Path:
    write_split(tmp_path, SAMPLES, per_shard=3)
    return tmp_path


def test_webdataset_reads_the_same_keys_bytes_and_records(split):
    urls = [str(path) for path in sorted((split / "shards").glob("*.tar"))]
    assert len(urls) == 3
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [item["__key__"] for item in read] == [s.key for s in SAMPLES]
    assert [item["png"] for item in read] == [s.png for s in SAMPLES]
    assert [sample_of(json.loads(item["json"]), item["png"]) for item in read] == SAMPLES


def test_a_key_that_comes_twice_is_refused_also_in_another_shard(tmp_path):
    for per_shard in (2, 100):
        folder = tmp_path / str(per_shard)
        folder.mkdir()
        with pytest.raises(ValueError, match=f"two samples have the key {SAMPLES[0].key}"):
            write_split(folder, [*SAMPLES, replace(SAMPLES[0], page=9)], per_shard=per_shard)


def test_a_split_is_written_as_its_samples_come(tmp_path):
    """However many there are, one is in memory."""
    made, alive = weakref.WeakSet(), []

    def samples():
        for number in range(50):
            one = sample(number)
            made.add(one)
            alive.append(len(made))
            yield one
            del one

    write_split(tmp_path, samples(), per_shard=20)
    assert max(alive) <= 3


def test_a_key_that_no_tar_can_name_is_refused(tmp_path):
    for length in (95, 96):  # and ".json"
        folder = tmp_path / str(length)
        folder.mkdir()
        samples = [replace(SAMPLES[0], key="k" * length)]
        if length == 95:
            write_split(folder, samples, per_shard=1)
            assert read_all(ShardSource(folder)) == samples
        else:
            with pytest.raises(ValueError, match="longer than the 100 bytes"):
                write_split(folder, samples, per_shard=1)


def read_all(source: ShardSource) -> list[Sample]:
    return [source[position] for position in range(len(source))]


def test_a_sample_is_one_read_away_and_facts_need_none(split):
    source = ShardSource(split)
    assert [source[n] for n in (6, 0, 3, 2, 5, 1, 4)] == [SAMPLES[n] for n in (6, 0, 3, 2, 5, 1, 4)]
    assert [record["key"] for record in source.records()] == [s.key for s in SAMPLES]
    for outside in (-1, 7):
        with pytest.raises(IndexError, match="no sample"):
            source[outside]
    for path in split.glob("shards/*.tar"):
        path.write_bytes(b"")
    assert [source.length(n) for n in range(7)] == [len(s.text) for s in SAMPLES]
    assert list(source.keys()) == [s.key for s in SAMPLES]
    wanted = {SAMPLES[1].key: 1, SAMPLES[4].key: 4}
    assert source.positions_of(["absent", *wanted]) == wanted
    entries = [source.entry(n) for n in range(7)]
    assert [entry["key"] for entry in entries] == [s.key for s in SAMPLES]
    assert {(entry["width"], entry["height"], type(entry["width"])) for entry in entries} == {(32, 16, int)}
    assert [len({entry[f"{fact}_digest"] for entry in entries}) for fact in ("document", "text")] == [1, 7]
    assert len({entry["image_digest"] for entry in entries}) == len({s.png for s in SAMPLES})
    shutil.rmtree(split / "shards")  # shards.json tells their number
    assert [len(ShardSource(split, trainable_only=only)) for only in (False, True)] == [7, 3]


@pytest.mark.parametrize("per_shard", [1, 2, 3, 10])
@pytest.mark.parametrize("characters", [None, range(len(SAMPLES[0].text) + 1), range(9, 1000), range(0)])
@pytest.mark.parametrize("trainable_only", [False, True])
def test_samples_can_be_left_out(tmp_path, per_shard, characters, trainable_only):
    samples = [replace(s, text=s.text + "!" * (s.page > 3)) for s in SAMPLES]
    write_split(tmp_path, samples, per_shard=per_shard)
    source = ShardSource(tmp_path, trainable_only=trainable_only, characters=characters)
    wanted = range(1000) if characters is None else characters
    expected = [s for s in samples if (s.trainable or not trainable_only) and len(s.text) in wanted]
    assert read_all(source) == expected
    assert list(source.texts()) == [s.text for s in expected]
    assert source.positions_of(s.key for s in samples) == {s.key: n for n, s in enumerate(expected)}
    assert source.shard_sizes.sum() == len(source) == len(expected)
    assert len(source.shard_sizes) == -(-len(SAMPLES) // per_shard)


def open_files(folder: Path) -> int:
    links = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return sum(link.startswith(str(folder)) for link in links)


def test_open_tars_are_few_and_are_closed(tmp_path):
    """However many shards and sources there are, such as one for each of thousands of documents."""
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        write_split(tmp_path / str(number), SAMPLES, per_shard=1)
    sources = [ShardSource(tmp_path / str(number)) for number in range(20)]
    assert all(read_all(source) == SAMPLES for source in sources)
    assert open_shard.cache_info().maxsize == 64
    assert 0 < open_files(tmp_path) <= 64
    open_shard.cache_clear()
    assert open_files(tmp_path) == 0


def test_a_new_source_reads_what_is_there_now(split):
    assert read_all(ShardSource(split)) == SAMPLES
    shutil.rmtree(split)
    split.mkdir()
    write_split(split, SAMPLES[::-1], per_shard=3)
    assert read_all(ShardSource(split)) == SAMPLES[::-1]


@pytest.mark.parametrize("per_shard", [2, 200])
def test_threads_share_a_source(tmp_path, per_shard):
    """Also when a shard leaves the cache while another thread reads it."""
    samples = [replace(SAMPLES[0], key=f"key-{n:03d}", text=f"text {n}") for n in range(200)]
    write_split(tmp_path, samples, per_shard=per_shard)
    source = ShardSource(tmp_path)
    positions = [n * 37 % 200 for n in range(1000)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(source.__getitem__, positions)) == [samples[n] for n in positions]


def test_the_same_samples_give_the_same_bytes_and_counts(split, tmp_path_factory):
    again = tmp_path_factory.mktemp("again")
    assert write_split(again, SAMPLES, per_shard=3) == {
        "samples": 7, "trainable": 3, "shards": 3,
        "text_bytes": sum(len(s.text.encode()) for s in SAMPLES),
    }  # fmt: skip
    files = [path.relative_to(split) for path in sorted(split.rglob("*")) if path.is_file()]
    assert len(files) == 7
    assert all((again / path).read_bytes() == (split / path).read_bytes() for path in files)


def test_a_split_may_be_empty(tmp_path):
    assert write_split(tmp_path, [], per_shard=3)["samples"] == 0
    assert len(ShardSource(tmp_path)) == 0


@pytest.mark.parametrize("queries", [QUERIES, []])
def test_queries_are_read_as_they_were_written(tmp_path, queries):
    write_queries(tmp_path, queries)
    assert read_queries(tmp_path) == queries


def test_only_png_is_decoded(scan):
    scan.save(jpeg := io.BytesIO(), format="JPEG")
    assert SAMPLES[3].image().getpixel((0, 0)) == 60
    with pytest.raises(UnidentifiedImageError):
        sample(1, png=jpeg.getvalue()).image()


def with_png_at(*place: int):
    return lambda index: [{**index[0], "png": place}, *index[1:]]


@pytest.mark.parametrize(
    ("file", "edit", "reason"),
    [
        ("shards/000000.index.json", with_png_at(0, 2**40), "no member can have 1,099,511,627,776 bytes"),
        ("shards/000000.index.json", with_png_at(0, -1), "no member can have -1 bytes"),
        ("shards/000000.index.json", with_png_at(-5, 10), "no member can have 10 bytes at -5"),
        ("shards/000000.index.json", with_png_at(512, 2**20), "it ends inside a member"),
        ("shards/000000.index.json", lambda index: [], "has 0 samples where shards.json says 3"),
        ("shards/000000.index.json", lambda index: index[:2], "has 2 samples where shards.json says 3"),
        *(
            ("shards.json", lambda shards, name=name: [{**shards[0], "name": name}], "lies outside the split")
            for name in ("../index.json", "/etc/passwd", "shards/000000.tar")
        ),
    ],
)
def test_a_hostile_or_damaged_index_is_refused(split, file, edit, reason):
    (split / file).write_text(json.dumps(edit(json.loads((split / file).read_text()))))
    with pytest.raises(ValueError, match=reason):
        ShardSource(split)[0]
