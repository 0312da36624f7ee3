"""What every model of a run is tested on: a corpus, its queries, and the candidates of the bound.

Everything is chosen by digests of names, so that all models, and all stages, see the same samples.
"""

import hashlib
import heapq
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data_prep.queries import Query
from data_prep.shards import Sample, ShardSource, read_queries
from stages.evaluate.config import EvaluateConfig


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


def build_task(folder: Path, config: EvaluateConfig) -> SearchTask:
    """Choose corpus and queries from a split by the digests of their names, one query a sample first."""
    task = _task_of(choose(ShardSource(folder), config.max_corpus), folder)
    turn: dict[str, int] = {}
    ranked = []
    for query in sorted(task.queries, key=lambda query: _digest(query.identity)):
        turn[query.relevant[0]] = turn.get(query.relevant[0], -1) + 1
        ranked.append((turn[query.relevant[0]], query))
    ranked.sort(key=lambda entry: entry[0])
    return SearchTask(corpus=task.corpus, queries=[query for _, query in ranked[: config.max_queries]])


def training_task(folder: Path, config: EvaluateConfig) -> SearchTask:
    """What linear maps are fitted on: pages of the training split, chosen alike, with all their queries."""
    return _task_of(choose(ShardSource(folder, trainable_only=True), config.fit_samples), folder)


def choose(source: ShardSource, count: int) -> list[Sample]:
    """Return `count` samples, chosen by the digest of their keys."""
    chosen = heapq.nsmallest(count, enumerate(source.keys()), key=lambda entry: _digest(entry[1]))
    return [source[position] for position, _ in chosen]


def _task_of(corpus: list[Sample], folder: Path) -> SearchTask:
    keys = {sample.key for sample in corpus}
    queries = [query for query in read_queries(folder) if keys & set(query.relevant)]
    if not queries:
        raise ValueError(f"{folder}: no query for any of {len(keys)} samples; add documents with text")
    return SearchTask(corpus=corpus, queries=queries)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One of the N pages among which the bound is measured: its sample and a query for it."""

    sample: Sample
    query: Query


def candidates_of(task: SearchTask, count: int) -> list[Candidate]:
    """Return up to `count` candidates in the order of the task's queries; no sample answers two of them.

    The bound is one of a positive among *negatives*: of the samples that answer a query only one takes part.
    The first n of them are the candidates for a smaller N.
    """
    samples = {sample.key: sample for sample in task.corpus if sample.trainable}
    chosen: list[Candidate] = []
    answering: set[str] = set()
    for query, relevant in zip(task.queries, task.relevant, strict=True):
        keys = sorted(relevant & samples.keys())
        if keys and not relevant & answering and len(chosen) < count:
            chosen.append(Candidate(sample=samples[keys[0]], query=query))
            answering |= relevant
    return chosen
