"""How well a checkpoint tells by likelihood which page a text belongs to: the generative critic.

    python -m stages.evaluate.critic JOB.json

N held-out pages, their N texts and a query for each: the matrices `log p(y_j | x_i)` of the texts, as the
model transcribes, and of the queries' words, as it summarises; and the bounds (stages/evaluate/bound.py).
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from infra.process import watch_parent
from stages.backbone import Backbone, load_backbone
from stages.evaluate.bound import candidate_sizes, image_losses, information, slack
from stages.evaluate.likelihood import blank_log_likelihoods, log_likelihoods, word_log_likelihoods
from stages.evaluate.score import score_retrieval
from stages.evaluate.search_task import Candidate, build_task, candidates_of
from stages.train.job import Job, Rhythm, read_job
from stages.train.sequences import SequenceBuilder

IMAGES_PER_REPORT = 8


def main(job_path: Path) -> None:
    """Measure and commit this worker's cells of the job. Raises ValueError for less than two candidates."""
    watch_parent()
    job = read_job(job_path)
    config = job.recipe.evaluate
    folder = job.inputs["target_test"].path
    candidates = candidates_of(build_task(folder, config), config.critic_candidates)
    if len(candidates) < 2:
        raise ValueError(f"{folder}: the bound needs two pages with text and a query, or more; add documents")
    cells = job.own_cells()
    for number, cell in enumerate(cells):
        measured = _measure_cell(
            job, cell, candidates, before=number * len(candidates), total=len(cells) * len(candidates)
        )
        _commit(job, cell, {"pages": cell["pages"], "dose": cell["dose"]} | measured)


def _measure_cell(job: Job, cell: dict, candidates: Sequence[Candidate], *, before: int, total: int) -> dict:
    """`measure_critic` of a cell's model; `before` of `total` images were scored with other models."""
    rhythm = Rhythm(IMAGES_PER_REPORT)

    def report(done: int) -> None:
        job.metrics.write(
            cell=cell["fingerprint"],
            step=cell["dose"],
            label=f"scoring texts under pages with dose {cell['dose']}",
            done=before + done,
            total=total,
        )

    measured = measure_critic(
        load_backbone(cell["model"], job.recipe.backbone),
        candidates,
        on_image=lambda done: report(done) if rhythm.due(done) else None,
        on_rest=lambda: report(len(candidates)) if rhythm.late() else None,
    )
    report(len(candidates))
    return measured


def _commit(job: Job, cell: dict, result: dict) -> None:
    with job.store.attempt("critic", cell["fingerprint"]) as attempt:
        (attempt.path / "critic.json").write_text(json.dumps(result), encoding="utf-8")
        attempt.commit(
            inputs=job.input_digests(),
            configuration=asdict(job.recipe.evaluate),
            counts={"dose": cell["dose"], "candidates": len(result["keys"])},
        )


def measure_critic(
    backbone: Backbone,
    candidates: Sequence[Candidate],
    *,
    on_image: Callable[[int], None],
    on_rest: Callable[[], None],
) -> dict:
    """Return one model's entry of critic.json, without the cell's place.

    Args:
        on_image: called with the number of images under which all texts are scored, after each; they take
            nearly all of the time.
        on_rest: called after each page of the rest: blank pages, and the queries' words.
    """
    samples = [candidate.sample for candidate in candidates]
    keys = [sample.key for sample in samples]
    texts = [sample.text for sample in samples]
    queries = [candidate.query.text for candidate in candidates]
    of_words = word_log_likelihoods(backbone, (sample.image() for sample in samples), queries)
    of_texts = log_likelihoods(backbone, (sample.image() for sample in samples), texts)
    matrix = np.stack(_rows(of_texts, on_image))
    builder = SequenceBuilder(backbone)
    sizes = [(sample.width, sample.height) for sample in samples]
    of_text = {
        "nats": (-matrix.diagonal()).tolist(),
        "nats_blank": (-blank_log_likelihoods(backbone, sizes, texts, on_rest)).tolist(),
        "bytes": [len(builder.kept_text(text).encode()) for text in texts],
    }
    return {
        "keys": keys,
        "query": summarise(np.stack(_rows(of_words, lambda done: on_rest())), keys),
        "text": summarise(matrix, keys) | of_text,
    }


def _rows(rows: Iterable[np.ndarray], on_row: Callable[[int], None]) -> list[np.ndarray]:
    """The rows, as they are made; after each, `on_row` is told how many there are."""
    made = []
    for row in rows:
        made.append(row)
        on_row(len(made))
    return made


def summarise(matrix: np.ndarray, keys: Sequence[str]) -> dict:
    """Return what critic.json says of one matrix `log p(y_j | x_i)` [images, texts] alone.

    `keys`: of the images; text j is answered by image j only.
    """
    return {
        "losses": image_losses(matrix).tolist(),
        "by_size": {
            str(size): {
                "loss": float(image_losses(matrix[:size, :size]).mean()),
                "information": information(matrix[:size, :size]),
            }
            for size in candidate_sizes(len(matrix))
        },
        "slack": slack(matrix),
        "scores": score_retrieval(matrix.T, corpus_ids=keys, relevant=[{key} for key in keys]).to_json(),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
