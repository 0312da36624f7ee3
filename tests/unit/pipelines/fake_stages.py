"""One stand-in for all stages: `python -m tests.unit.pipelines.fake_stages JOB.json`.

It commits what the real ones commit (same files, same fields), computed from nothing, in a blink. A dose of
666 fails, a dose of 777 ends well without committing, one of 8000 or more takes long.
"""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.stage_table import STAGES, Stage
from stages.program import Task, read_job

LONG = 8000
PROGRAM = "tests.unit.pipelines.fake_stages"
FAKE_STAGES: Mapping[str, Stage] = {
    name: replace(stage, program=PROGRAM, processes=lambda recipe: 1) for name, stage in STAGES.items()
}


@dataclass(frozen=True)
class AnySettings:
    """What a made-up stage takes of a recipe: nothing."""


def scores(mean: float) -> dict:
    return {"means": dict.fromkeys(("ndcg@10", "recall@1", "mrr"), mean)}


def estimate(value: float) -> dict:
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def pretrain(task: Task) -> dict:
    # An example of CGP costs 10 FLOPs, a step of CL 100.
    facts = {"flops": 10 * task.cell.dose, "padding_share": 0.25, "loss_made_up": 1 / (1 + task.cell.dose)}
    return {"model/weights.json": {"dose": task.cell.dose, "pages": task.cell.pages}, "training.json": facts}


def refine(task: Task) -> dict:
    facts = {"flops": 100 * task.cell.steps, "padding_share": 0.25, "learning_rate": 1e-3}
    return {"adapter.json": [task.cell.words, *sorted(task.inputs)], "training.json": facts}


def transcription(task: Task) -> dict:
    return {"transcription.json": {"target_test": {"k0": task.cell.words}}}


def generation(task: Task) -> dict:
    quality = 1.0 / (1 + task.cell.dose)
    corpus = {"nats_per_byte": quality, "token_accuracy": 1 - quality / 2, "character_error_rate": quality}
    return {"generation.json": {"corpora": {"target": corpus, "base": corpus}}}


def retrieval(task: Task) -> dict:
    dose, arm = task.cell.dose, task.cell.arm
    mean = 0.2 + dose / 1000 + (0.05 if arm.kind != "none" else 0.0)
    # On the validation documents a higher learning rate is better from dose 32 on.
    mean += {"lr 0.003": 0.01 if dose >= 32 else -0.01, "lr 0.0003": -0.02}.get(arm.name, 0.0)
    directions = {name: scores(mean) for name in ("query_to_image", "query_to_text", "text_to_image")}
    baselines = {"random": scores(0.01), "bm25": scores(0.4)}
    return {"retrieval.json": {"directions": directions, "baselines": baselines}}


def critic(task: Task) -> dict:
    kind = {"by_size": {"2": {"loss": 0.5, "information": 0.2}}, "scores": scores(0.3)}
    return {"critic.json": {"query": kind, "text": kind, "dose": task.cell.words}}


def mine(task: Task) -> dict:
    return {"negatives.jsonl": ""}


def law(task: Task) -> dict:
    def row(dose: int) -> dict:
        quality = dict.fromkeys(
            ("nats_per_byte", "base_nats_per_byte", "character_error_rate"), estimate(1 / (1 + dose))
        )
        found = {"before CL": 0.2 + dose / 1000, "text-only": 0.25 + dose / 1000}
        return {
            "dose": dose,
            **quality,
            "retrieval": {arm: {"ndcg@10": estimate(one)} for arm, one in found.items()},
        }

    measured = list(task.inputs.values())
    searched = sum(one.stage == "retrieval" for one in measured)
    verdict = {
        "verdict": "inconclusive",
        "reasons": [f"{searched} made-up scores prove nothing"],
        "decision": "run the real stages",
        "search_with": "",
        "table": [row(one.cell.dose) for one in measured if one.stage == "generation"],
        "baselines": {"bm25": 0.4, "random": 0.01},
        "paired": {"difference": 0.0, "low": -0.1, "high": 0.1, "p": 1.0},
        "comparisons": {name: estimate(1.0) for name in ("gain", "times_random", "forgetting", "spearman")},
    }
    return {"verdict.json": verdict, "report.html": "<p>made up</p>", "figures/curve.png": b"not a picture"}


OUTPUTS: Mapping[str, Any] = {
    one.__name__: one for one in (pretrain, refine, transcription, generation, retrieval, critic, mine, law)
}


def main(job_path: Path) -> None:
    job = read_job(job_path, AnySettings)
    rates = {"resources/tokens_per_second": 100.0} if job.stage in ("pretrain", "refine") else {}
    for task in job.own_tasks():
        if task.cell.dose == 666:
            sys.exit("the made-up loss became NaN")
        if job.stage == "pretrain" and task.cell.dose >= LONG:
            deadline = time.monotonic() + 120
            while not Path(os.environ["LCO_TEST_GO_ON"]).exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        for step in range(1, 4):
            metrics = {"loss/made_up": 1 / step} | rates
            job.tell(task, f"{job.stage}: {task.cell.words}", step=step, done=step, total=3, metrics=metrics)
        if task.cell.dose != 777:
            job.commit(task, OUTPUTS[job.stage](task), counts={"made up": 1})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
