"""Page retrieval from text queries, before and after contrastive refinement.

    python -m stages.evaluate.retrieval JOB.json

Directions: query -> page image (the score that counts), query -> page text (the text-side control), and page
text -> its own image (how far both modalities meet). Random ranking and BM25 stand beside them, and the
other readings of the same model (readings.py) where the cell names a transcription. With them,
for the law, the geometry by layer and the contrastive loss over the candidates of the bound.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stages.backbones.adapters import open_model
from stages.cells import DIRECTIONS, PRIMARY_METRIC
from stages.evaluate.candidate_matrix import first_candidates, image_losses
from stages.evaluate.checkpoint_readings import CheckpointReadings
from stages.evaluate.config import RetrievalSettings
from stages.evaluate.encoding import KINDS, Encoded, TaskEncoder
from stages.evaluate.geometry import chance_mutual_knn, geometry_by_layer
from stages.evaluate.linear_maps import LINEAR_MAPS
from stages.evaluate.score import random_scores, score_retrieval
from stages.evaluate.search_task import SearchTask, build_task, candidates_of, training_task
from stages.program import read_job
from stages.train.bm25 import Bm25

SHOWN_RESULTS = 5
BELOW_EVERY_COSINE = -2.0


def main(job_path: Path) -> None:
    """Measure and commit this worker's cells of the job."""
    job = read_job(job_path, RetrievalSettings)
    settings, batch_size = job.settings, job.settings.batch_size
    search = build_task(job.inputs["evaluated"].path, job.inputs["evaluated_queries"].path, settings.search)
    counts = {"queries": len(search.queries), "corpus": len(search.corpus)}
    baselines = score_baselines(search)
    geometry_samples = settings.retrieval.geometry_samples
    encoder = TaskEncoder(search, batch_size=batch_size, geometry_samples=geometry_samples)
    readings = CheckpointReadings(encoder, job.inputs, settings) if "validation" in job.inputs else None
    for task, progress in job.cells("searching", together="model"):
        backbone, arm = open_model(task.inputs, settings.backbone), task.cell.arm
        is_read = readings is not None and "transcription" in task.inputs
        asked = {"images": readings.asked(backbone)} if is_read else {}
        encoded = {
            kind: encoder.encode(backbone, kind, progress.alive, asked=asked.get(kind)) for kind in KINDS
        }
        if arm.kind == "linear map":
            folders = (task.inputs[name].path for name in ("fit_pages", "fit_queries"))
            training = training_task(*folders, settings.linear_map.config.samples)
            pages = TaskEncoder(training, batch_size=batch_size)
            fitted = LINEAR_MAPS[arm.changes["map"]](pages, backbone, settings, task.cell.seed)
            encoded = {kind: one.mapped(fitted.vectors) for kind, one in encoded.items()}
        result = measure_retrieval(encoded, search, settings)
        if is_read:
            transcription, refined = task.inputs["transcription"], "adapter" in task.inputs
            result |= readings.measure(
                backbone, encoded, transcription, refined=refined, on_batch=progress.alive
            )
        job.commit(task, {"retrieval.json": result | {"baselines": baselines}}, counts=counts)


def score_baselines(task: SearchTask) -> dict[str, dict]:
    """Random ranking (its exact expectation) and BM25 on the text layer."""
    lexical = Bm25([sample.text for sample in task.corpus]).scores([query.text for query in task.queries])
    answers = [len(keys) for keys in task.relevant]
    return {
        "random": random_scores(relevant_counts=answers, corpus_size=len(task.corpus)),
        "bm25": score_retrieval(lexical, corpus_ids=task.corpus_ids, relevant=task.relevant),
    }


def measure_retrieval(encoded: Mapping[str, Encoded], task: SearchTask, settings: RetrievalSettings) -> dict:
    """Return one model's entry of retrieval.json, without the baselines.

    The contrastive loss is at the recipe's temperature, also where refinement learns its own.
    """
    config = settings.retrieval
    images, texts, queries = (encoded[kind].vectors for kind in KINDS)
    to_images = queries @ images.T
    to_texts = np.full(to_images.shape, BELOW_EVERY_COSINE, dtype=np.float32)  # no text: found last
    to_texts[:, task.with_text] = queries @ texts.T
    text_ids = [task.corpus_ids[row] for row in task.with_text]
    matrices = (to_images, to_texts, texts @ images.T)
    answers = (task.relevant, task.relevant, [{key} for key in text_ids])
    directions = {
        direction: score_retrieval(scores, corpus_ids=task.corpus_ids, relevant=relevant)
        for direction, scores, relevant in zip(DIRECTIONS, matrices, answers, strict=True)
    }
    directions["text_to_image"]["ids"] = text_ids
    document_of = {sample.key: sample.document for sample in task.corpus}
    layers = (encoded["images"].layers, encoded["texts"].layers)
    compared = layers[0].shape[1]
    enough = compared > max(config.neighbours, 2) + 1  # CKA needs four
    return {
        "corpus_size": len(task.corpus),
        "corpus_pages": len({(sample.document, sample.page) for sample in task.corpus}),
        "corpus_documents": len(set(document_of.values())),
        "query_ids": [query.identity for query in task.queries],
        "query_documents": [document_of[min(keys)] for keys in task.relevant],
        "directions": directions,
        "contrastive": measure_contrastive(
            encoded, task, settings.search.critic_candidates, settings.temperature
        ),
        "geometry": geometry_by_layer(*layers, config.neighbours) if enough else [],
        "chance_mutual_knn": chance_mutual_knn(compared, config.neighbours) if enough else None,
        "examples": _examples(
            to_images, directions["query_to_image"]["per_query"]["mrr"], task, config.examples
        ),
    }


def measure_contrastive(
    encoded: Mapping[str, Encoded], task: SearchTask, count: int, temperature: float
) -> dict | None:
    """L_cl of texts and of queries over `count` candidates of the bound; None where no query has a text."""
    candidates = candidates_of(task, count)
    if not candidates:
        return None
    query_rows, image_rows = map(list, zip(*candidates, strict=True))
    text_rows = [task.with_text.index(row) for row in image_rows]
    keys = [task.corpus_ids[row] for row in image_rows]
    images = encoded["images"].vectors[image_rows].T
    return {
        "keys": keys,
        "temperature": temperature,
        "text": contrastive(encoded["texts"].vectors[text_rows] @ images, keys, temperature),
        "query": contrastive(encoded["queries"].vectors[query_rows] @ images, keys, temperature),
    }


def contrastive(cosines: np.ndarray, keys: list[str], temperature: float) -> dict:
    """Losses in nats of anchors against all images [N], means among the first n, and nDCG@10 [N].

    `cosines`: [N, N], anchors by images; anchor j belongs to image j.
    """
    logits = cosines.T.astype(np.float64) / temperature
    found = score_retrieval(cosines, corpus_ids=keys, relevant=[{key} for key in keys])
    return {
        "losses": image_losses(logits).tolist(),
        "by_size": {
            size: float(image_losses(first).mean()) for size, first in first_candidates(logits).items()
        },
        PRIMARY_METRIC: found["per_query"][PRIMARY_METRIC],
    }


def _examples(
    scores: np.ndarray, reciprocal_ranks: Sequence[float], task: SearchTask, count: int
) -> list[dict]:
    """The first `count` queries with their best samples and the rank, from 1, of the first right one."""
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
        for row in range(min(count, len(task.queries)))
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
