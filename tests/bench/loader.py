"""Samples per second of our loader and of webdataset, from the same tars in the same run.

    python -m tests.bench.loader

Ours draws shuffled batches by position (order, reads, decoded PNG and JSON); webdataset reads the tars from
end to end and decodes the same. Both use one thread unless the row says otherwise. Runs alternate.
"""

import argparse
import random
import tempfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import webdataset
from PIL import Image, ImageDraw

from data_prep.order import BatchOrder, prefetched
from data_prep.samples import Sample, sample_key
from data_prep.shards import ShardSource, open_shard
from data_prep.write_shards import write_split
from tests.bench.measure import Moment, Run, in_turn, show

BATCH_SIZE = 32
RUNS = 5
OURS = "ours, shuffled"
WORDS = ("river", "stone", "market", "letter", "winter", "garden", "bridge", "carpet", "silver", "window")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--per-shard", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_split(Path(folder), make_samples(arguments.samples), per_shard=arguments.per_shard)
        readers: dict[str, Callable[[], int]] = {
            "webdataset, sequential": lambda: read_with_webdataset(Path(folder)),
            OURS: lambda: read_with_ours(Path(folder), threads=1),
            "ours, shuffled, 2 threads": lambda: read_with_ours(Path(folder), threads=2),
        }
        runs: dict[str, list[Run]] = {name: [] for name in readers}
        for _, name in in_turn(tuple(readers), RUNS):
            began = Moment.now()
            count = readers[name]()
            runs[name].append(Run(work=count, took=Moment.now() - began))
    show("Loader", "samples/s", runs, OURS)


def make_samples(count: int) -> Iterator[Sample]:
    """Text crops of the sizes that recipe `tiny` trains on: grey, up to 320 x 96 pixels."""
    generator = random.Random(0)
    for page in range(count):
        lines = [" ".join(generator.choices(WORDS, k=6)) for _ in range(generator.randint(1, 6))]
        width, height = 16 * generator.randint(8, 20), 16 * len(lines)
        image = Image.new("L", (width, height), 255)
        for line, text in enumerate(lines):
            ImageDraw.Draw(image).text((4, 16 * line + 2), text, fill=0)
        image.save(buffer := BytesIO(), "PNG")
        yield Sample(
            key=sample_key("bench.pdf", page, 0), document="bench.pdf", page=page, block=0,
            text=" ".join(lines), is_heading=False, width=width, height=height,
            box=(0, 0, width, height), ink=(0, 255), reason=None, png=buffer.getvalue(),
        )  # fmt: skip


def read_with_webdataset(folder: Path) -> int:
    urls = [str(path) for path in sorted((folder / "shards").glob("*.tar"))]
    pairs = webdataset.WebDataset(urls, shardshuffle=False).decode("pill").to_tuple("png", "json")
    return sum(1 for image, record in pairs if image.mode == "L" and record["text"])


def read_with_ours(folder: Path, *, threads: int) -> int:
    open_shard.cache_clear()  # every run opens its tars and reads their indexes anew
    source = ShardSource(folder, trainable_only=True)
    order = BatchOrder(sources=[source], weights=[1.0], batch_size=BATCH_SIZE, seed=0)

    def read(step: int) -> list[tuple[Image.Image, str]]:
        samples = [source[position] for _, position in order.batch(step)]
        return [(decoded(sample), sample.text) for sample in samples]

    batches = prefetched(read, range(len(source) // BATCH_SIZE), threads=threads)
    return sum(image.mode == "L" and bool(text) for batch in batches for image, text in batch)


def decoded(sample: Sample) -> Image.Image:
    image = sample.image()
    image.load()
    return image


if __name__ == "__main__":
    main()
