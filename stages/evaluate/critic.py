"""How well a checkpoint tells by likelihood which page a text belongs to: the generative critic.

    python -m stages.evaluate.critic JOB.json

N held-out pages, their N texts and a query for each: the matrices `log p(y_j | x_i)` of the texts, as the
model transcribes, and of the queries' words, as it summarises; and the bounds (stages/evaluate/bound.py).
"""

import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from infra.process import watch_parent
from stages.backbone import Backbone, load_backbone
from stages.evaluate.bound import candidate_sizes, image_losses, information, log_ratios, slack
from stages.evaluate.likelihood import blank_log_likelihoods, log_likelihoods, word_log_likelihoods
from stages.evaluate.score import score_retrieval
from stages.evaluate.search_task import Candidate, build_task, candidates_of
from stages.recipes import EvaluateConfig
from stages.train.job import Job, read_job

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
        backbone = load_backbone(cell["model"], job.recipe.backbone)
        report = functools.partial(
            _report, job, cell, before=number * len(candidates), total=len(cells) * len(candidates)
        )
        measured = measure_critic(backbone, candidates, config, report)
        _commit(job, cell, {"pages": cell["pages"], "dose": cell["dose"]} | measured)


def _report(job: Job, cell: dict, done: int, *, before: int, total: int) -> None:
    job.metrics.write(
        cell=cell["fingerprint"],
        step=cell["dose"],
        label=f"scoring texts under pages with dose {cell['dose']}",
        done=before + done,
        total=total,
    )


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
    config: EvaluateConfig,
    report: Callable[[int], None],
) -> dict:
    """Return one model's entry of critic.json, without the cell's place.

    Args:
        report: called with the number of images done, several times.
    """
    samples = [candidate.sample for candidate in candidates]
    queries = [candidate.query for candidate in candidates]
    keys = [sample.key for sample in samples]
    relevant = {
        "text": [{key} for key in keys],
        "query": [set(query.relevant) & set(keys) for query in queries],
    }
    sizes = [(sample.width, sample.height) for sample in samples]
    texts = {
        "text": [sample.text for sample in samples],
        "query": [query.text for query in queries],
    }
    measured: dict = {"keys": keys, "sizes": candidate_sizes(len(keys))}
    for kind, score in (("query", word_log_likelihoods), ("text", log_likelihoods)):
        rows = score(backbone, (sample.image() for sample in samples), texts[kind])
        matrix = np.stack(list(_reported(rows, len(samples), report) if kind == "text" else rows))
        measured[kind] = summarise(matrix) | {
            "nats_blank": (-blank_log_likelihoods(backbone, sizes, texts[kind], score)).tolist(),
            "bytes": [len(text.encode()) for text in texts[kind]],
            "scores": score_retrieval(
                log_ratios(matrix).T,
                corpus_ids=keys,
                relevant=relevant[kind],
                resamples=config.bootstrap_resamples,
                confidence=config.confidence,
                seed=config.seed,
            ).to_json(),
        }
    return measured


def _reported(rows: Iterable[np.ndarray], count: int, report: Callable[[int], None]) -> Iterator[np.ndarray]:
    """The rows; every few of them it is reported how many there were. Texts take nearly all of the time."""
    for done, row in enumerate(rows, start=1):
        if done % IMAGES_PER_REPORT == 0 or done == count:
            report(done)
        yield row


def summarise(matrix: np.ndarray) -> dict:
    """Return what critic.json says of one matrix `log p(y_j | x_i)` [images, texts] alone."""
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
        "nats": (-matrix.diagonal()).tolist(),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
