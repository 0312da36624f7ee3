"""What every model of a run is tested on: a corpus, its queries, and the candidates of the bound.

Everything is chosen by digests of names, so that all models, and all stages, see the same samples.
"""

import hashlib
import heapq
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data_prep.queries import Query, read_queries
from data_prep.samples import lot_of
from data_prep.shards import Sample, ShardSource
from stages.evaluate.config import SearchConfig

FEWEST_CANDIDATES = 2
"""Of the bound, which tells one page from others."""


@dataclass(frozen=True, kw_only=True)
class SearchTask:
    """The corpus and the queries that every model of a run is tested on."""

    corpus: list[Sample]
    queries: list[Query]

    @cached_property
    def corpus_ids(self) -> list[str]:
        return [sample.key for sample in self.corpus]

    @cached_property
    def relevant(self) -> list[set[str]]:
        """For each query the keys in the corpus that answer it."""
        keys = set(self.corpus_ids)
        return [set(query.relevant) & keys for query in self.queries]

    @cached_property
    def with_text(self) -> list[int]:
        """Positions of the samples that have text."""
        return [position for position, sample in enumerate(self.corpus) if sample.trainable]


class NoQueries(ValueError):
    """No query asks for any of the samples."""


def build_task(split: Path, queries: Path, config: SearchConfig) -> SearchTask:
    """Choose corpus and queries from a split by the digests of their names, one query a sample first.

    Args:
        split, queries: folders of the committed samples and of their queries.

    Raises NoQueries.
    """
    task = _task_of(choose(ShardSource(split), config.max_corpus), queries)
    turn: dict[str, int] = {}
    ranked = []
    for query in sorted(task.queries, key=lambda query: _digest(query.identity)):
        turn[query.relevant[0]] = turn.get(query.relevant[0], -1) + 1
        ranked.append((turn[query.relevant[0]], query))
    ranked.sort(key=lambda entry: entry[0])
    return SearchTask(corpus=task.corpus, queries=[query for _, query in ranked[: config.max_queries]])


def training_task(split: Path, queries: Path, samples: int) -> SearchTask:
    """What linear maps are fitted on: so many pages of the training split with all their queries."""
    return _task_of(choose(ShardSource(split, trainable_only=True), samples), queries)


def choose(source: ShardSource, count: int) -> list[Sample]:
    """Return `count` samples, chosen by the digest of their keys."""
    chosen = heapq.nsmallest(count, enumerate(source.keys()), key=lambda entry: _digest(entry[1]))
    return [source[position] for position, _ in chosen]


def _task_of(corpus: list[Sample], queries: Path) -> SearchTask:
    keys = {sample.key for sample in corpus}
    asked = [query for query in read_queries(queries) if keys & set(query.relevant)]
    if not asked:
        raise NoQueries(f"{queries}: no query for any of {len(keys)} samples; add documents with text")
    return SearchTask(corpus=corpus, queries=asked)


def _digest(name: str) -> str:
    return hashlib.sha256(lot_of(name).encode()).hexdigest()


def candidates_of(task: SearchTask, count: int) -> list[tuple[int, int]]:
    """Return the N candidates of the bound, up to `count`: (row of a query, row of a sample that answers it).

    In the order of the task's queries; the first n are the candidates for a smaller N. The bound is one of a
    positive among *negatives*: of the samples that answer a query only one takes part, and none answers two.
    """
    row_of = {task.corpus_ids[row]: row for row in task.with_text}
    chosen: list[tuple[int, int]] = []
    answering: set[str] = set()
    for number, relevant in enumerate(task.relevant):
        keys = sorted(relevant & row_of.keys())
        if keys and not relevant & answering and len(chosen) < count:
            chosen.append((number, row_of[keys[0]]))
            answering |= relevant
    return chosen
