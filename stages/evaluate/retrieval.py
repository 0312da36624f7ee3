"""Page retrieval from text queries, before and after contrastive refinement.

    python -m stages.evaluate.retrieval JOB.json

Directions: query -> page image (the score that counts), query -> page text (the text-side control), and page
text -> its own image (how far both modalities meet). Random ranking and BM25 stand beside them.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infra.process import watch_parent
from stages.backbone import Backbone, load_backbone
from stages.evaluate.geometry import all_identical, anisotropy, chance_mutual_knn, mutual_knn
from stages.evaluate.score import RetrievalScores, random_scores, score_retrieval
from stages.evaluate.search_task import SearchTask, build_task
from stages.recipes import EvaluateConfig
from stages.train.batches import collate
from stages.train.job import Job, read_job
from stages.train.lexical import Bm25
from stages.train.sequences import SequenceBuilder, TokenSequence

SHOWN_RESULTS = 5
BELOW_EVERY_COSINE = -2.0


def main(job_path: Path) -> None:
    """Measure and commit this worker's cells of the job."""
    watch_parent()
    job = read_job(job_path)
    config = job.recipe.evaluate
    task = build_task(job.inputs["evaluated"].path, config)
    baselines = {name: scores.to_json() for name, scores in score_baselines(task, config).items()}
    cells = job.own_cells()
    for number, cell in enumerate(cells, start=1):
        backbone = load_backbone(cell["model"], job.recipe.backbone)
        result = measure_retrieval(backbone, task, config)
        job.metrics.write(
            cell=cell["fingerprint"],
            step=cell["dose"],
            label=f"searching with dose {cell['dose']}, {cell['arm'] or 'before CL'}",
            done=number,
            total=len(cells),
            metrics={},
        )
        _commit(job, cell, place_of(cell) | result | {"baselines": baselines})


def place_of(cell: Mapping[str, Any]) -> dict[str, Any]:
    """What names a model among those of a sweep; None where a field has no meaning (a seed before CL)."""
    names = ("dose", "seed", "arm", "pages", "steps", "split")
    defaults = {"pages": "target", "split": "test"}
    return {name: cell.get(name, defaults.get(name)) for name in names}


def _commit(job: Job, cell: dict, result: dict) -> None:
    with job.store.attempt("retrieval", cell["fingerprint"]) as attempt:
        text = json.dumps(result, ensure_ascii=False)
        (attempt.path / "retrieval.json").write_text(text, encoding="utf-8")
        attempt.commit(
            inputs=job.input_digests(),
            configuration=asdict(job.recipe.evaluate),
            counts={"queries": len(result["query_ids"]), "corpus": result["corpus_size"]},
        )


def score_baselines(task: SearchTask, config: EvaluateConfig) -> dict[str, RetrievalScores]:
    """Random ranking (its exact expectation) and BM25 on the text layer."""
    lexical = Bm25([sample.text for sample in task.corpus]).scores([query.text for query in task.queries])
    return {
        "random": random_scores(
            relevant_counts=[len(keys) for keys in task.relevant], corpus_size=len(task.corpus)
        ),
        "bm25": _score(lexical, task.corpus_ids, task.relevant, config),
    }


def measure_retrieval(backbone: Backbone, task: SearchTask, config: EvaluateConfig) -> dict:
    """Return one model's entry of retrieval.json, without the cell's place and the baselines."""
    builder = SequenceBuilder(backbone)
    images = encode(backbone, [builder.summarize_image(s.image()) for s in task.corpus], config.batch_size)
    with_text = [task.corpus[position] for position in task.with_text]
    texts = encode(backbone, [builder.summarize_text(s.text) for s in with_text], config.batch_size)
    queries = encode(backbone, [builder.summarize_text(q.text) for q in task.queries], config.batch_size)
    text_ids = [sample.key for sample in with_text]
    to_images = queries.vectors @ images.vectors.T
    to_texts = np.full(to_images.shape, BELOW_EVERY_COSINE, dtype=np.float32)  # no text: found last
    to_texts[:, task.with_text] = queries.vectors @ texts.vectors.T
    own_image = [{key} for key in text_ids]
    document_of = {sample.key: sample.document for sample in task.corpus}
    found_images = _score(to_images, task.corpus_ids, task.relevant, config)
    return {
        "corpus_size": len(task.corpus),
        "corpus_pages": len({(sample.document, sample.page) for sample in task.corpus}),
        "corpus_documents": len(set(document_of.values())),
        "query_ids": [query.identity for query in task.queries],
        "query_documents": [document_of[sorted(keys)[0]] for keys in task.relevant],
        "directions": {
            "query_to_image": found_images.to_json(),
            "query_to_text": _score(to_texts, task.corpus_ids, task.relevant, config).to_json(),
            "text_to_image": _score(
                texts.vectors @ images.vectors.T, task.corpus_ids, own_image, config
            ).to_json()
            | {"ids": text_ids},
        },
        "geometry": measure_geometry(images, texts, task, config),
        "chance_mutual_knn": _chance(len(with_text), config),
        "examples": _examples(to_images, found_images.per_query["mrr"], task, config),
    }


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Vectors of some rows."""

    vectors: np.ndarray
    """[rows, hidden] float32, L2-normalised: the embedding."""
    layers: np.ndarray
    """[layers + 1, rows, hidden] float32: the same position's hidden state after the embedding layer and
    after each decoder layer (the last one after the final norm)."""


@torch.no_grad()
def encode(backbone: Backbone, sequences: Sequence[TokenSequence], batch_size: int) -> Encoded:
    """Embed token sequences, in batches of similar length."""
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index].ids))
    layers: list[np.ndarray | None] = [None] * len(sequences)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = collate([sequences[index] for index in rows], pad_token=backbone.tokenizer.pad_token_id)
        output = backbone.model.model(**batch.model_inputs(), use_cache=False, output_hidden_states=True)
        states = [state[:, -1] for state in output.hidden_states[:-1]] + [output.last_hidden_state[:, -1]]
        for row, index in enumerate(rows):
            layers[index] = torch.stack([state[row] for state in states]).float().numpy()
    stacked = np.stack(layers, axis=1)
    vectors = stacked[-1] / np.linalg.norm(stacked[-1], axis=-1, keepdims=True)
    return Encoded(vectors=vectors, layers=stacked)


def measure_geometry(images: Encoded, texts: Encoded, task: SearchTask, config: EvaluateConfig) -> list[dict]:
    """Anisotropy and image-text mutual-kNN of every layer, on samples that have both.

    None where all vectors of a side are identical: their cosine is 1 and their neighbours are ties.
    """
    count = min(config.geometry_samples, len(task.with_text))
    if count <= config.neighbours + 1:
        return []
    rows = task.with_text[:count]
    measured = []
    for layer in range(len(images.layers)):
        image, text = images.layers[layer][rows], texts.layers[layer][:count]
        same_images, same_texts = all_identical(image), all_identical(text)
        measured.append(
            {
                "layer": layer,
                "anisotropy_image": None if same_images else anisotropy(image),
                "anisotropy_text": None if same_texts else anisotropy(text),
                "mutual_knn": None
                if same_images or same_texts
                else mutual_knn(image, text, k=config.neighbours),
            }
        )
    return measured


def _chance(samples: int, config: EvaluateConfig) -> float | None:
    count = min(config.geometry_samples, samples)
    return chance_mutual_knn(count, config.neighbours) if count > config.neighbours + 1 else None


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


def _score(
    scores: np.ndarray, ids: list[str], relevant: list[set[str]], config: EvaluateConfig
) -> RetrievalScores:
    return score_retrieval(
        scores.astype(np.float32),
        corpus_ids=ids,
        relevant=relevant,
        resamples=config.bootstrap_resamples,
        confidence=config.confidence,
        seed=config.seed,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
