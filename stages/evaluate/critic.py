"""How well a checkpoint tells by likelihood which page a text belongs to: the generative critic.

    python -m stages.evaluate.critic JOB.json

N held-out pages, their N texts and a query for each: the matrices `log p(y_j | x_i)` of the texts, as the
model transcribes, and of the queries' words, as it summarises; and the bounds (candidate_matrix.py).
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data_prep.samples import Sample
from stages.backbones.adapters import open_model
from stages.backbones.backbone import Backbone
from stages.evaluate.candidate_matrix import first_candidates, image_losses, information, slack
from stages.evaluate.config import CriticSettings
from stages.evaluate.likelihood import blank_log_likelihoods, log_likelihoods, word_log_likelihoods
from stages.evaluate.score import score_retrieval
from stages.evaluate.search_task import FEWEST_CANDIDATES, build_task, candidates_of
from stages.program import read_job
from stages.train.sequences import SequenceBuilder


def main(job_path: Path) -> None:
    """Measure and commit this worker's cells of the job. Raises ValueError for less than two candidates."""
    job = read_job(job_path, CriticSettings)
    config, folder = job.settings.search, job.inputs["target_test"].path
    search = build_task(folder, job.inputs["target_test_queries"].path, config)
    rows = candidates_of(search, config.critic_candidates)
    if len(rows) < FEWEST_CANDIDATES:
        raise ValueError(f"{folder}: the bound needs two pages with text and a query, or more; add documents")
    pages = [search.corpus[row] for _, row in rows]
    queries = [search.queries[number].text for number, _ in rows]
    for task, progress in job.cells("scoring texts under pages", parts=len(pages)):
        backbone = open_model(task.inputs, job.settings.backbone)
        result = measure_critic(backbone, pages, queries, on_image=progress.report, on_rest=progress.alive)
        job.commit(task, {"critic.json": result}, counts={"candidates": len(pages)})


def measure_critic(
    backbone: Backbone,
    pages: Sequence[Sample],
    queries: Sequence[str],
    *,
    on_image: Callable[[int], None],
    on_rest: Callable[[], None],
) -> dict:
    """Return one model's entry of critic.json, of pages and a query for each.

    Args:
        on_image: called with the number of images under which all texts are scored, after each; they take
            nearly all of the time.
        on_rest: called after each page of the rest: blank pages, and the queries' words.
    """
    keys, texts = [page.key for page in pages], [page.text for page in pages]
    of_texts, of_queries = [], []
    for row in log_likelihoods(backbone, (page.image() for page in pages), texts):
        of_texts.append(row)
        on_image(len(of_texts))
    sizes = [(page.width, page.height) for page in pages]
    blank = blank_log_likelihoods(backbone, sizes, texts, on_rest)
    for row in word_log_likelihoods(backbone, (page.image() for page in pages), queries):
        of_queries.append(row)
        on_rest()
    matrix, builder = np.stack(of_texts), SequenceBuilder(backbone)
    of_text = {
        "nats": (-matrix.diagonal()).tolist(),
        "nats_blank": (-blank).tolist(),
        "bytes": [len(builder.kept_text(text).encode()) for text in texts],
    }
    return {
        "keys": keys,
        "query": summarise(np.stack(of_queries), keys),
        "text": summarise(matrix, keys) | of_text,
    }


def summarise(matrix: np.ndarray, keys: Sequence[str]) -> dict:
    """Return what critic.json says of one matrix `log p(y_j | x_i)` [images, texts] alone.

    `keys`: of the images; text j is answered by image j only.
    """
    return {
        "losses": image_losses(matrix).tolist(),
        "by_size": {
            size: {"loss": float(image_losses(first).mean()), "information": information(first)}
            for size, first in first_candidates(matrix).items()
        },
        "slack": slack(matrix),
        "scores": score_retrieval(matrix.T, corpus_ids=keys, relevant=[{key} for key in keys]),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
