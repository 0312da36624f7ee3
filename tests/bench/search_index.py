"""What an index of many pages costs, by reading: milliseconds a query, bytes a page, memory while it is made.

    python -m tests.bench.search_index [--pages 100000]

Pages are made up: 12 words drawn by Zipf's law from 50,000; of 2,048 words the model names 256 with made-up
log-probabilities; vectors have 128 numbers. Exact vector search stands beside the others in the same run. One
query at a time, one thread, medians of all queries."""

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from stages.evaluate.readings import Lexical, Pooled, Transcribed, WordsOfPages
from stages.train.bm25 import trigrams, words

WORDS, COLUMNS, KEPT, WIDTH, LENGTH, ASKED = 50_000, 2_048, 256, 128, 12, 6
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
    made: dict[str, Callable[[], tuple[object, float]]] = {
        "pooled (exact)": lambda: _pooled(random, pages),
        "lexical": lambda: _lexical(random, pages),
        "transcribed": lambda: _transcribed(texts, words),
        "trigrams": lambda: _transcribed(texts, trigrams),
    }
    for name, make in made.items():
        before, began = _memory(), time.perf_counter()
        reading, size = make()
        took, grown = time.perf_counter() - began, _memory() - before
        seconds = []
        for query in queries:
            began = time.perf_counter()
            np.argpartition(-reading.scores([query])[0], 10)[:10]
            seconds.append(time.perf_counter() - began)
        milliseconds = 1000 * statistics.median(seconds)
        table.add_row(name, f"{milliseconds:.2f}", f"{size / pages:,.0f}", f"{took:.1f}", f"{grown:,.0f}")
    Console(width=100).print(table)


def _pooled(random: np.random.Generator, pages: int) -> tuple[Pooled, float]:
    vectors = random.standard_normal((pages, WIDTH), dtype=np.float32)
    asked = random.standard_normal((1, WIDTH), dtype=np.float32)
    return Pooled(pages=vectors, embed=lambda _: asked), vectors.nbytes


def _lexical(random: np.random.Generator, pages: int) -> tuple[Lexical, float]:
    # Any columns do, as long as each page has every one at most once.
    starts = random.integers(COLUMNS, size=(pages, 1))
    columns = ((starts + 7 * np.arange(KEPT)) % COLUMNS).astype(np.int32)
    shares = random.exponential(size=(pages, KEPT)).astype(np.float32)
    logs = np.log(0.9 * shares / shares.sum(axis=1, keepdims=True))
    index = Lexical(
        WordsOfPages(columns=columns, log_probabilities=logs, size=COLUMNS),
        column_of=lambda word: int(word[1:]) % COLUMNS,
        idf=lambda word: 1.0,
    )
    return index, index.bytes_a_page * pages


def _transcribed(texts: list[str], terms: Callable[[str], list[str]]) -> tuple[Transcribed, float]:
    index = Transcribed(texts, terms)
    return index, index.bytes_a_page * len(texts)


def _memory() -> float:
    """The most that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


if __name__ == "__main__":
    main()
