"""How long a resumed training takes to find its place: the order of 10^9 samples, read at sample 10^7.

    python -m tests.bench.order_resume

Measures, in fresh processes and without imports, making the order and drawing one global batch.
"""

import multiprocessing
import resource
import statistics
import time

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from data_prep.order import BatchOrder

SHARDS, SAMPLES_PER_SHARD = 10**5, 10**4
RESUMED_AT = 10**7  # samples
BATCH_SIZE = 256
LIMIT_MILLISECONDS, LIMIT_MEGABYTES = 50, 200
PROCESSES = 5


class Synthetic:
    """A source of 10^9 samples that exists only as sizes."""

    shard_sizes = np.full(SHARDS, SAMPLES_PER_SHARD)

    def length(self, position: int) -> int:
        return position * 2_654_435_761 % 997


def main() -> None:
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as fresh:
        milliseconds, megabytes = zip(*fresh.map(measure, range(PROCESSES), chunksize=1), strict=True)
    table = Table(
        "", "median", "worst", "limit", title=f"{SHARDS * SAMPLES_PER_SHARD:,} samples, {SHARDS:,} shards"
    )
    for name, values, limit, unit in (
        ("time to the first batch", milliseconds, LIMIT_MILLISECONDS, "ms"),
        ("growth of peak memory", megabytes, LIMIT_MEGABYTES, "MB"),
    ):
        table.add_row(
            name, f"{statistics.median(values):.1f} {unit}", f"{max(values):.1f} {unit}", f"{limit} {unit}"
        )
    Console().print(table)


def measure(_: int) -> tuple[float, float]:
    """Return milliseconds to the first batch, and by how many megabytes the peak memory grew."""
    source = Synthetic()
    before = psutil.Process().memory_info().rss
    started = time.perf_counter()
    order = BatchOrder(sources=[source], weights=[1.0], batch_size=BATCH_SIZE, seed=0)
    order.batch(RESUMED_AT // BATCH_SIZE)
    milliseconds = 1000 * (time.perf_counter() - started)
    return milliseconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6


if __name__ == "__main__":
    main()
