"""Hard negatives: samples that look like an answer to a query and are none.

    python -m stages.refine.mining JOB.json

BM25 and the base model each propose their best samples for every training query. Left out are the answers,
what has an answer's text or image, other samples of its document (unless the recipe counts them), and what
scores so near the answer that it may be one that nobody marked (positive-aware mining: NV-Retriever, arXiv
2407.15831). One file for all doses, so that they refine on the same data.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from data_prep.queries import Query, read_queries
from data_prep.shards import ShardSource
from stages.backbones.backbone import Backbone, load_backbone
from stages.program import read_job
from stages.refine.config import NEGATIVES, MiningConfig, MiningSettings
from stages.train.bm25 import Bm25
from stages.train.forward import encode
from stages.train.sequences import SequenceBuilder

ROWS_AT_ONCE = 256
DIGESTS = ("text_digest", "image_digest", "document_digest")


def main(job_path: Path) -> None:
    """Mine and commit the job's only cell."""
    job = read_job(job_path, MiningSettings)
    source = ShardSource(job.inputs["target_train"].path, trainable_only=True)
    queries = read_queries(job.inputs["target_train_queries"].path)
    backbone = load_backbone(job.settings.backbone.location, job.settings.backbone)
    for task, progress in job.cells("mining hard negatives", parts=len(source) + len(queries)):
        mined = mine(backbone, source, queries, job.settings, on_rows=progress.report)
        lines = [
            json.dumps({"query": identity, "negatives": list(keys)}) + "\n"
            for identity, keys in mined.items()
        ]
        counts = {"queries": len(queries), "negatives": sum(map(len, mined.values()))}
        job.commit(task, {NEGATIVES: "".join(lines)}, counts=counts)


def mine(
    backbone: Backbone,
    source: ShardSource,
    queries: Sequence[Query],
    settings: MiningSettings,
    *,
    on_rows: Callable[[int], None] = lambda done: None,
) -> dict[str, tuple[str, ...]]:
    """Return up to `hard_negatives` keys, hardest first, of each query with an answer in `source`.

    `on_rows`: told how many samples and queries are embedded so far.
    """
    builder = SequenceBuilder(backbone)
    keys, texts = list(source.keys()), list(source.texts())
    entries = [source.entry(row) for row in range(len(source))]
    facts = {name: np.array([entry[name] for entry in entries]) for name in DIGESTS}
    column = {key: number for number, key in enumerate(keys)}
    usable = [query for query in queries if any(key in column for key in query.relevant)]

    def embedded(rows: Sequence[str], *, before: int) -> Iterator[tuple[int, np.ndarray]]:
        """Vectors of some rows at a time, with the number of their first."""
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = [builder.summarize_text(text) for text in rows[start : start + ROWS_AT_ONCE]]
            yield start, encode(backbone, some, settings.engine).numpy()
            on_rows(before + start + len(some))

    vectors_of_texts = np.concatenate([vectors for _, vectors in embedded(texts, before=0)])
    lexical, mined = Bm25(texts), {}
    for start, vectors in embedded([query.text for query in usable], before=len(texts)):
        some = usable[start : start + ROWS_AT_ONCE]
        cosines = vectors @ vectors_of_texts.T
        words = lexical.scores([query.text for query in some])
        for query, cosine, bm25 in zip(some, cosines, words, strict=True):
            answers = np.array([column[key] for key in query.relevant if key in column])
            excluded = _excluded(answers, facts, same_document_negatives=settings.same_document_negatives)
            chosen = choose(cosine, bm25, answers, excluded, settings.mining)
            mined[query.identity] = tuple(keys[number] for number in chosen)
    return mined


def choose(
    cosine: np.ndarray, bm25: np.ndarray, answers: np.ndarray, excluded: np.ndarray, config: MiningConfig
) -> list[int]:
    """Return the columns of one query's hard negatives: BM25's and the model's best in turn.

    Args:
        cosine, bm25: [samples] scores of the query.
        answers: columns that answer it.
        excluded: [samples] bool, columns that must not be chosen.
    """
    positive = cosine[answers].max()
    limit = positive - config.relative_margin * abs(positive)
    allowed = ~excluded & (cosine <= limit)
    proposals = []
    for scores in (bm25, cosine):
        best = np.argsort(-scores, kind="stable")[: config.depth]
        proposals.append([int(number) for number in best if allowed[number]])
    proposals[0] = [number for number in proposals[0] if bm25[number] > 0]
    in_turn = [number for number in chain(*zip_longest(*proposals)) if number is not None]
    return list(dict.fromkeys(in_turn))[: config.hard_negatives]


def _excluded(
    answers: np.ndarray, facts: Mapping[str, np.ndarray], *, same_document_negatives: bool
) -> np.ndarray:
    excluded = np.zeros(len(facts["text_digest"]), dtype=bool)
    excluded[answers] = True
    for name, values in facts.items():
        if name != "document_digest" or not same_document_negatives:
            excluded |= np.isin(values, values[answers])
    return excluded


if __name__ == "__main__":
    main(Path(sys.argv[1]))
