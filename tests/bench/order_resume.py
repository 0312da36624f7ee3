"""How long a resumed training takes to find its place: the order of 10^9 samples, read at sample 10^7.

    python -m tests.bench.order_resume

Measures, in this fresh process and without imports, making the order and drawing one global batch.
"""

import resource
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


class Synthetic:
    """A source of 10^9 samples that exists only as sizes."""

    shard_sizes = np.full(SHARDS, SAMPLES_PER_SHARD)

    def length(self, position: int) -> int:
        return position * 2_654_435_761 % 997


def main() -> None:
    source = Synthetic()
    before = psutil.Process().memory_info().rss
    started = time.perf_counter()
    order = BatchOrder(sources=[source], weights=[1.0], batch_size=BATCH_SIZE, seed=0)
    order.batch(RESUMED_AT // BATCH_SIZE)
    milliseconds = 1000 * (time.perf_counter() - started)
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6
    table = Table("", "measured", "limit", title=f"{SHARDS * SAMPLES_PER_SHARD:,} samples, {SHARDS:,} shards")
    table.add_row("time to the first batch", f"{milliseconds:.1f} ms", f"{LIMIT_MILLISECONDS} ms")
    table.add_row("growth of peak memory", f"{megabytes:.1f} MB", f"{LIMIT_MEGABYTES} MB")
    Console().print(table)


if __name__ == "__main__":
    main()
