"""Which tokens stand for a word where the vocabulary has no word tokens: what a search could find at best.

    python -m tests.bench.word_tokens --run OUTPUT --tokenizer FOLDER

No model: each validation passage of a run names its own true words, with a tenth of the probability for all
other tokens, and queries are scored by query likelihood. FOLDER is a tokenizer as transformers saves it."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from data_prep.queries import words_of
from stages.cells import PRIMARY_METRIC
from stages.evaluate.config import SearchConfig
from stages.evaluate.score import score_retrieval
from stages.evaluate.search_task import SearchTask, build_task
from stages.train.words import SalientWords

Tokens = Callable[[str], list]
MISSED = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    arguments = parser.parse_args()
    [job] = arguments.run.glob("runs/*/retrieval/job.json")
    inputs = json.loads(job.read_text())["inputs"]
    folders = (Path(inputs[name]["path"]) for name in ("validation", "validation_queries"))
    task = build_task(*folders, SearchConfig(max_corpus=600, max_queries=600))
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    words = SalientWords(document_frequency={}, documents=0, tokenizer=tokenizer, buckets=())
    ways: dict[str, Tokens] = {
        "first token": lambda word: words.numbers_of(word)[:1],
        "all tokens": words.numbers_of,
        "whole words": lambda word: [word],
    }
    table = Table(
        "a word is", PRIMARY_METRIC, title=f"{len(task.corpus)} passages, {len(task.queries)} queries"
    )
    for name, tokens_of in ways.items():
        table.add_row(name, f"{found_at_best(task, tokens_of):.3f}")
    Console().print(table)


def found_at_best(task: SearchTask, tokens_of: Tokens) -> float:
    """Mean nDCG@10 where every passage names its true words."""
    texts = [[words_of(one.text.casefold()) for one in rows] for rows in (task.corpus, task.queries)]
    column_of: dict = {}
    for word in sorted({word for rows in texts for row in rows for word in row}):
        for token in tokens_of(word):
            column_of.setdefault(token, len(column_of))
    pages, asked = (np.zeros((len(rows), len(column_of))) for rows in texts)
    for counts, rows in ((pages, texts[0]), (asked, texts[1])):
        for number, row in enumerate(rows):
            for tokens in map(tokens_of, row):
                for token in tokens:
                    counts[number, column_of[token]] += 1 / len(tokens)
    shares = pages / pages.sum(axis=1, keepdims=True).clip(min=1)
    scores = asked @ np.log((1 - MISSED) * shares + MISSED / len(column_of)).T
    found = score_retrieval(scores, corpus_ids=task.corpus_ids, relevant=task.relevant)
    return found["means"][PRIMARY_METRIC]


if __name__ == "__main__":
    main()
