"""What is searched, and asked, is the same for every model; candidates of the bound do not overlap."""

import hashlib
from dataclasses import replace

from data_prep.queries import Query
from stages.evaluate.config import SearchConfig
from stages.evaluate.search_task import SearchTask, build_task, candidates_of

CONFIG = SearchConfig(max_corpus=8, max_queries=8)


def test_the_task_is_the_same_every_time_and_within_its_limits(split_folder, queries_folder):
    task = build_task(split_folder, queries_folder, CONFIG)
    assert task == build_task(split_folder, queries_folder, CONFIG)
    small = build_task(split_folder, queries_folder, replace(CONFIG, max_corpus=3))
    assert small.corpus_ids == task.corpus_ids[:3]
    assert all(relevant for relevant in small.relevant)


def test_the_lot_falls_on_what_it_fell_on_when_keys_were_short(split_folder, queries_folder, samples):
    def by_lot(name: str) -> str:
        return hashlib.sha256((name[:12] + name[32:]).encode()).hexdigest()

    task = build_task(split_folder, queries_folder, CONFIG)
    assert task.corpus_ids == sorted((sample.key for sample in samples), key=by_lot)
    names = [query.identity for query in task.queries]
    assert len(names) == 8 and names == sorted(names, key=by_lot)


def test_no_candidate_answers_the_query_of_another(samples):
    first, second, third = (sample.key for sample in samples[:3])
    of = {"a": (first, second), "b": (second,), "c": (third, "not in the corpus"), "d": (third,)}
    task = SearchTask(
        corpus=list(samples),
        queries=[Query(identity=name, text=name, relevant=keys) for name, keys in of.items()],
    )
    chosen = candidates_of(task, 10)
    named = [(task.queries[number].identity, task.corpus_ids[row]) for number, row in chosen]
    assert named == [("a", first), ("c", third)]
    assert candidates_of(task, 1) == chosen[:1]
