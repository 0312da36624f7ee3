"""Hard negatives: samples that look like an answer to a query and are none.

    python -m stages.refine.mining JOB.json

BM25 and the base model each propose their best samples for every training query. Left out are the answers,
what has an answer's text or image, other samples of its document (unless the recipe counts them), and what
scores so near the answer that it may be one that nobody marked (positive-aware mining: NV-Retriever, arXiv
2407.15831). One file for all doses, so that they refine on the same data.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from data_prep.queries import Query
from data_prep.shards import ShardSource, read_queries
from infra.process import watch_parent
from stages.backbone import Backbone, load_backbone
from stages.recipes import RefineConfig
from stages.train.forward import encode
from stages.train.job import read_job
from stages.train.lexical import Bm25
from stages.train.sequences import SequenceBuilder

NEGATIVES = "negatives.jsonl"
ROWS_AT_ONCE = 256
DIGESTS = ("text_digest", "image_digest", "document_digest")


def main(job_path: Path) -> None:
    """Mine and commit the job's only cell."""
    watch_parent()
    job = read_job(job_path)
    [cell] = job.cells
    config = job.recipe.refine
    folder = job.inputs["target_train"].path
    backbone = load_backbone(cell["model"], job.recipe.backbone)
    source, queries = ShardSource(folder, trainable_only=True), read_queries(folder)

    def on_progress(done: int, label: str) -> None:
        job.metrics.write(cell=cell["fingerprint"], step=done, label=label, done=done, total=len(queries))

    mined = mine(backbone, source, queries, config, on_progress=on_progress)
    with job.store.attempt("mine", cell["fingerprint"]) as attempt:
        lines = [
            json.dumps({"query": identity, "negatives": list(keys)}) + "\n"
            for identity, keys in mined.items()
        ]
        (attempt.path / NEGATIVES).write_text("".join(lines), encoding="utf-8")
        attempt.commit(
            inputs=job.input_digests(),
            configuration=asdict(config.mining),
            counts={"queries": len(queries), "negatives": sum(map(len, mined.values()))},
        )


def read_negatives(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return {query identity: keys of its negatives} of a committed output."""
    lines = (Path(folder) / NEGATIVES).read_text(encoding="utf-8").splitlines()
    return {record["query"]: tuple(record["negatives"]) for record in map(json.loads, lines)}


def mine(
    backbone: Backbone,
    source: ShardSource,
    queries: Sequence[Query],
    config: RefineConfig,
    *,
    on_progress=lambda done, label: None,
) -> dict[str, tuple[str, ...]]:
    """Return up to `config.hard_negatives` keys, hardest first, of each query with an answer in `source`."""
    builder = SequenceBuilder(backbone)
    keys, texts = list(source.keys()), list(source.texts())
    entries = [source.entry(row) for row in range(len(source))]
    facts = {name: np.array([entry[name] for entry in entries]) for name in DIGESTS}
    column = {key: number for number, key in enumerate(keys)}
    usable = [query for query in queries if any(key in column for key in query.relevant)]
    parts = []
    for start in range(0, len(texts), ROWS_AT_ONCE):
        on_progress(0, f"embedding the training samples {start:,}/{len(texts):,}")
        some = [builder.summarize_text(text) for text in texts[start : start + ROWS_AT_ONCE]]
        parts.append(encode(backbone, some, config.engine).numpy())
    vectors_of_texts = np.concatenate(parts)
    lexical, mined = Bm25(texts), {}
    for start in range(0, len(usable), ROWS_AT_ONCE):
        some = usable[start : start + ROWS_AT_ONCE]
        vectors = encode(backbone, [builder.summarize_text(query.text) for query in some], config.engine)
        cosines = vectors.numpy() @ vectors_of_texts.T
        words = lexical.scores([query.text for query in some])
        for query, cosine, bm25 in zip(some, cosines, words, strict=True):
            answers = np.array([column[key] for key in query.relevant if key in column])
            excluded = _excluded(answers, facts, config)
            chosen = choose(cosine, bm25, answers, excluded, config)
            mined[query.identity] = tuple(keys[number] for number in chosen)
        on_progress(start + len(some), "mining hard negatives")
    return mined


def choose(
    cosine: np.ndarray, bm25: np.ndarray, answers: np.ndarray, excluded: np.ndarray, config: RefineConfig
) -> list[int]:
    """Return the columns of one query's hard negatives: BM25's and the model's best in turn.

    Args:
        cosine, bm25: [samples] scores of the query.
        answers: columns that answer it.
        excluded: [samples] bool, columns that must not be chosen.
    """
    positive = cosine[answers].max()
    limit = positive - config.mining.relative_margin * abs(positive)
    allowed = ~excluded & (cosine <= limit)
    proposals = []
    for scores in (bm25, cosine):
        best = np.argsort(-scores, kind="stable")[: config.mining.depth]
        proposals.append([int(number) for number in best if allowed[number]])
    proposals[0] = [number for number in proposals[0] if bm25[number] > 0]
    in_turn = [number for number in chain(*zip_longest(*proposals)) if number is not None]
    return list(dict.fromkeys(in_turn))[: config.hard_negatives]


def _excluded(answers: np.ndarray, facts: Mapping[str, np.ndarray], config: RefineConfig) -> np.ndarray:
    excluded = np.zeros(len(facts["text_digest"]), dtype=bool)
    excluded[answers] = True
    for name, values in facts.items():
        if name != "document_digest" or not config.same_document_negatives:
            excluded |= np.isin(values, values[answers])
    return excluded


if __name__ == "__main__":
    main(Path(sys.argv[1]))
