"""What an index of many pages costs, by reading: milliseconds a query, bytes a page, memory while it is made.

    python -m tests.bench.search_index [--pages 100000]

Pages are made up: 12 words drawn by Zipf's law from 50,000; of 2,048 words the model names 512 with made-up
log-probabilities; vectors have 128 numbers. Exact vector search stands beside the others in the same run. One
query at a time, one thread, medians of all queries."""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from stages.evaluate.readings import Lexical, Pooled, Reading, Transcribed, WordsOfPages
from stages.train.bm25 import trigrams, words

WORDS, COLUMNS, KEPT, WIDTH, LENGTH, ASKED = 50_000, 2_048, 512, 128, 12, 6
QUERIES = 200
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=100_000)
    pages = parser.parse_args().pages
    random = np.random.default_rng(0)
    ranks = np.minimum(random.zipf(1.2, size=(pages, LENGTH)), WORDS)
    texts = [" ".join(f"w{rank}" for rank in page) for page in ranks]
    queries = [
        " ".join(f"w{rank}" for rank in random.choice(ranks[number], ASKED)) for number in range(QUERIES)
    ]
    table = Table("reading", "ms a query", "bytes a page", "s to make", "memory in making, MiB")
    vectors, asked = _vectors(random, pages)
    named = _named(random, pages)
    made: dict[str, Callable[[], Reading]] = {
        "pooled (exact)": lambda: Pooled(pages=vectors, embed=lambda _: asked),
        "lexical": lambda: Lexical(named, columns_of=lambda word: [int(word[1:]) % COLUMNS]),
        "transcribed": lambda: Transcribed(texts, words),
        "trigrams": lambda: Transcribed(texts, trigrams),
    }
    for name, make in made.items():
        began = time.perf_counter()
        reading = make()
        took = time.perf_counter() - began
        size = vectors.nbytes / pages if isinstance(reading, Pooled) else reading.bytes_a_page
        seconds = []
        for query in queries:
            began = time.perf_counter()
            np.argpartition(-reading.scores([query])[0], 10)[:10]
            seconds.append(time.perf_counter() - began)
        milliseconds = 1000 * statistics.median(seconds)
        most = _most_memory(make)
        table.add_row(name, f"{milliseconds:.2f}", f"{size:,.0f}", f"{took:.1f}", f"{most / MIB:,.0f}")
    Console(width=100).print(table)


def _vectors(random: np.random.Generator, pages: int) -> tuple[np.ndarray, np.ndarray]:
    """Of pages, and of a query."""
    vectors, asked = (random.standard_normal((rows, WIDTH), dtype=np.float32) for rows in (pages, 1))
    return vectors, asked


def _named(random: np.random.Generator, pages: int) -> WordsOfPages:
    # Any columns do, as long as each page has every one at most once.
    starts = random.integers(COLUMNS, size=(pages, 1), dtype=np.int32)
    columns = (starts + 7 * np.arange(KEPT, dtype=np.int32)) % COLUMNS
    shares = random.standard_exponential((pages, KEPT), dtype=np.float32) + 1e-6
    logs = np.log(0.9 * shares / shares.sum(axis=1, keepdims=True))
    return WordsOfPages(columns=columns, log_probabilities=logs, size=COLUMNS)


def _most_memory(make: Callable[[], Reading]) -> int:
    """Bytes that making takes at most, beside what it is made of."""
    tracemalloc.start()
    try:
        make()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    main()
