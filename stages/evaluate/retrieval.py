"""Page retrieval from text queries, before and after contrastive refinement.

    python -m stages.evaluate.retrieval JOB.json

Directions: query -> page image (the score that counts), query -> page text (the text-side control), and page
text -> its own image (how far both modalities meet). Random ranking and BM25 stand beside them. With them,
for the law, the geometry by layer and the contrastive loss over the candidates of the bound.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from infra.process import watch_parent
from stages.backbone import load_backbone
from stages.evaluate.bound import candidate_sizes, image_losses
from stages.evaluate.encoding import EncodedTask, TaskEncoder
from stages.evaluate.geometry import chance_mutual_knn, geometry_by_layer
from stages.evaluate.linear_maps import TrainingPages, fit_linear_map
from stages.evaluate.score import RetrievalScores, random_scores, score_retrieval
from stages.evaluate.search_task import SearchTask, build_task, candidates_of
from stages.recipes import LINEAR_MAPS, EvaluateConfig
from stages.train.job import Job, Rhythm, read_job
from stages.train.lexical import Bm25

SHOWN_RESULTS = 5
BELOW_EVERY_COSINE = -2.0


def main(job_path: Path) -> None:
    """Measure and commit this worker's cells of the job."""
    watch_parent()
    job = read_job(job_path)
    config = job.recipe.evaluate
    task = build_task(job.inputs["evaluated"].path, config)
    baselines = {name: scores.to_json() for name, scores in score_baselines(task).items()}
    encoder, cells = TaskEncoder(task, config), job.own_cells()
    for number, cell in enumerate(cells):
        encoded = encode_cell(encoder, job, cell, report=partial(_report, job, cell, number, len(cells)))
        result = measure_retrieval(encoded, task, config, temperature=job.recipe.refine.temperature)
        _report(job, cell, number + 1, len(cells))
        _commit(job, cell, place_of(cell) | result | {"baselines": baselines})


def _report(job: Job, cell: Mapping[str, Any], done: int, total: int) -> None:
    job.metrics.write(
        cell=cell["fingerprint"],
        step=cell["dose"],
        label=f"searching with dose {cell['dose']}, {cell['arm'] or 'before CL'}",
        done=done,
        total=total,
        metrics={},
    )


def encode_cell(
    encoder: TaskEncoder, job: Job, cell: Mapping[str, Any], report: Callable[[], None]
) -> EncodedTask:
    """The task's vectors by a cell's model, linearly mapped where the cell's arm is a linear map.

    `report` is called now and then: a large corpus takes a large model long.
    """
    backbone, rhythm = load_backbone(cell["model"], job.recipe.backbone), Rhythm(every=1)
    encoded = encoder.encode(backbone, on_batch=lambda: report() if rhythm.late() else None)
    if cell["arm"] not in LINEAR_MAPS:
        return encoded
    pages = TrainingPages(job.store.open(cell["fit_pages"]).path, backbone, job.recipe.evaluate)
    return encoded.mapped(fit_linear_map(cell["arm"], backbone, pages, job.recipe, cell["seed"]).vectors)


def place_of(cell: Mapping[str, Any]) -> dict[str, Any]:
    """What names a model among those of a sweep; None where a field has no meaning (a seed before CL)."""
    return {name: cell[name] for name in ("dose", "pages", "seed", "arm", "steps", "split")}


def _commit(job: Job, cell: dict, result: dict) -> None:
    with job.store.attempt("retrieval", cell["fingerprint"]) as attempt:
        text = json.dumps(result, ensure_ascii=False)
        (attempt.path / "retrieval.json").write_text(text, encoding="utf-8")
        attempt.commit(
            inputs=job.input_digests(),
            configuration=asdict(job.recipe.evaluate),
            counts={"queries": len(result["query_ids"]), "corpus": result["corpus_size"]},
        )


def score_baselines(task: SearchTask) -> dict[str, RetrievalScores]:
    """Random ranking (its exact expectation) and BM25 on the text layer."""
    lexical = Bm25([sample.text for sample in task.corpus]).scores([query.text for query in task.queries])
    return {
        "random": random_scores(
            relevant_counts=[len(keys) for keys in task.relevant], corpus_size=len(task.corpus)
        ),
        "bm25": score_retrieval(lexical, corpus_ids=task.corpus_ids, relevant=task.relevant),
    }


def measure_retrieval(
    encoded: EncodedTask, task: SearchTask, config: EvaluateConfig, *, temperature: float
) -> dict:
    """Return one model's entry of retrieval.json, without the cell's place and the baselines.

    `temperature`: of the contrastive loss; the recipe's, also where refinement learns its own.
    """
    images, texts, queries = (one.vectors for one in (encoded.images, encoded.texts, encoded.queries))
    text_ids = [task.corpus_ids[position] for position in task.with_text]
    to_images = queries @ images.T
    to_texts = np.full(to_images.shape, BELOW_EVERY_COSINE, dtype=np.float32)  # no text: found last
    to_texts[:, task.with_text] = queries @ texts.T
    own_image = [{key} for key in text_ids]
    document_of = {sample.key: sample.document for sample in task.corpus}
    found_images = score_retrieval(to_images, corpus_ids=task.corpus_ids, relevant=task.relevant)
    compared = encoded.images.layers.shape[1]
    enough = compared > config.neighbours + 1
    return {
        "corpus_size": len(task.corpus),
        "corpus_pages": len({(sample.document, sample.page) for sample in task.corpus}),
        "corpus_documents": len(set(document_of.values())),
        "query_ids": [query.identity for query in task.queries],
        "query_documents": [document_of[sorted(keys)[0]] for keys in task.relevant],
        "directions": {
            "query_to_image": found_images.to_json(),
            "query_to_text": score_retrieval(
                to_texts, corpus_ids=task.corpus_ids, relevant=task.relevant
            ).to_json(),
            "text_to_image": score_retrieval(
                texts @ images.T, corpus_ids=task.corpus_ids, relevant=own_image
            ).to_json()
            | {"ids": text_ids},
        },
        "contrastive": measure_contrastive(encoded, task, config, temperature),
        "geometry": geometry_by_layer(encoded.images.layers, encoded.texts.layers, config.neighbours)
        if enough
        else [],
        "chance_mutual_knn": chance_mutual_knn(compared, config.neighbours) if enough else None,
        "examples": _examples(to_images, found_images.per_query["mrr"], task, config),
    }


def measure_contrastive(
    encoded: EncodedTask, task: SearchTask, config: EvaluateConfig, temperature: float
) -> dict | None:
    """L_cl of texts and of queries over the candidates of the bound; None where no query has a text."""
    candidates = candidates_of(task, config.critic_candidates)
    if not candidates:
        return None
    keys = [candidate.sample.key for candidate in candidates]
    row_of = {key: row for row, key in enumerate(task.corpus_ids)}
    text_row = {row: number for number, row in enumerate(task.with_text)}
    query_row = {query.identity: row for row, query in enumerate(task.queries)}
    image_rows = [row_of[key] for key in keys]
    anchors = {
        "text": encoded.texts.vectors[[text_row[row] for row in image_rows]],
        "query": encoded.queries.vectors[[query_row[candidate.query.identity] for candidate in candidates]],
    }
    images = encoded.images.vectors[image_rows]
    return {"keys": keys, "temperature": temperature} | {
        kind: _contrastive(rows @ images.T, keys, temperature) for kind, rows in anchors.items()
    }


def _contrastive(cosines: np.ndarray, keys: list[str], temperature: float) -> dict[str, Any]:
    """Losses in nats of anchors against all images [N], means among the first n, and nDCG@10 [N].

    `cosines`: [N, N], anchors by images; anchor j belongs to image j.
    """
    logits = cosines.T.astype(np.float64) / temperature
    found = score_retrieval(cosines, corpus_ids=keys, relevant=[{key} for key in keys])
    return {
        "losses": image_losses(logits).tolist(),
        "by_size": {
            str(size): float(image_losses(logits[:size, :size]).mean()) for size in candidate_sizes(len(keys))
        },
        "ndcg@10": list(found.per_query["ndcg@10"]),
    }


def _examples(
    scores: np.ndarray, reciprocal_ranks: Sequence[float], task: SearchTask, config: EvaluateConfig
) -> list[dict]:
    """The first queries with their best samples and the rank, from 1, of the first right one."""
    return [
        {
            "query": task.queries[row].text,
            "relevant": sorted(task.relevant[row]),
            "rank": round(1 / reciprocal_ranks[row]),
            "top": [
                {"key": task.corpus_ids[column], "score": float(scores[row, column])}
                for column in np.argsort(-scores[row], kind="stable")[:SHOWN_RESULTS]
            ],
        }
        for row in range(min(config.examples, len(task.queries)))
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
