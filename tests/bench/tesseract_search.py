"""Tesseract + BM25 beside a run's own readings: the same test passages, the same queries.

    TESSDATA_PREFIX=... python -m tests.bench.tesseract_search --run ~/lco --documents ~/pdfs --language vie

Needs tesserocr and a language pack (Debian: tesseract-ocr-vie). Each passage's box is drawn at three
times the resolution and read as one block of text, as in tests/bench/typefaces.py."""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data_prep.source_files import find_documents
from infra.store import open_store
from stages.evaluate.generation import character_edits
from stages.evaluate.score import score_retrieval
from stages.evaluate.search_task import SearchTask, build_task
from stages.recipes import get_recipe
from stages.train.bm25 import Bm25
from tests.bench.typefaces import by_tesseract


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="output folder of `lco run`")
    parser.add_argument("--documents", type=Path, required=True, help="the folder that it was run on")
    parser.add_argument("--language", default="vie", help="Tesseract's name of it")
    parser.add_argument("--recipe", default="tiny")
    arguments = parser.parse_args()
    task = _task_of(arguments.run, arguments.recipe)
    files, _ = find_documents(arguments.documents)
    texts = by_tesseract(files, task.corpus, arguments.language)
    edits = character_edits([sample.text for sample in task.corpus], texts)
    wrong = sum(one for one, _ in edits) / sum(length for _, length in edits)
    scores = Bm25(texts).scores([query.text for query in task.queries])
    found = score_retrieval(scores, corpus_ids=task.corpus_ids, relevant=task.relevant)["means"]["ndcg@10"]
    table = Table("searched with", "model", "nDCG@10, highest dose")
    for one in _newest_verdict(arguments.run).get("readings", []):
        level = one["curve"][-1]
        table.add_row(
            one["reading"], one["arm"], f"{level['value']:.3f} [{level['low']:.3f}, {level['high']:.3f}]"
        )
    table.add_row("Tesseract + BM25", f"{wrong:.1%} wrong characters", f"{found:.3f}")
    Console(width=100).print(table)


def _task_of(run: Path, recipe: str) -> SearchTask:
    """What the newest verdict of the run was tested on."""
    store, newest = open_store(str(run / "store")), _newest(run)
    inputs = json.loads((newest / "manifest.json").read_text(encoding="utf-8"))["inputs"]
    test = next(
        folder
        for folder in (run / "store" / "documents-test").iterdir()
        if store.open(folder).manifest.content_digest == inputs["target_test"]
    )
    queries = next(
        folder
        for folder in (run / "store" / "documents-test-queries").iterdir()
        if inputs["target_test"] in store.open(folder).manifest.inputs.values()
    )
    return build_task(test, queries, get_recipe(recipe).evaluate.search)


def _newest(run: Path) -> Path:
    return max((run / "store" / "law").iterdir(), key=lambda folder: folder.stat().st_mtime)


def _newest_verdict(run: Path) -> dict:
    return json.loads((_newest(run) / "verdict.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
