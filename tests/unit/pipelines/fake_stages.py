"""Stand-ins for every stage that needs torch: `python -m tests.unit.pipelines.fake_stages JOB.json`.

They commit what the real stages commit (same files, same fields), computed from nothing, in a blink. A dose
of 666 fails, a dose of 777 ends well without committing.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from infra.process import MetricsFile, watch_parent
from infra.store import LocalStore
from pipelines.stage_definition import STAGES, StageDefinition

MODULE = "tests.unit.pipelines.fake_stages"

FAKE_STAGES: Mapping[str, StageDefinition] = {
    name: dataclasses.replace(stage, module=MODULE, packages=(MODULE,), libraries=(), distributed=False)
    for name, stage in STAGES.items()
}


def scores(mean: float) -> dict:
    return {"means": dict.fromkeys(("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr"), mean)}


def training(cell: dict) -> dict:
    facts = {"dose": cell["dose"], "padding_share": 0.25, "loss_made_up": 1.0 / (1 + cell["dose"])}
    # An example of CGP costs 10 FLOPs, a step of CL 100.
    return facts | (
        {"steps": cell["steps"], "flops": 100 * cell["steps"]}
        if "steps" in cell
        else {"flops": 10 * cell["dose"]}
    )


def generation(cell: dict) -> dict:
    quality = 1.0 / (1 + cell["dose"])
    corpus = {"nats_per_byte": quality, "token_accuracy": 1 - quality / 2, "character_error_rate": quality}
    return {"dose": cell["dose"], "corpora": {"target": corpus, "base": corpus}}


def retrieval(cell: dict) -> dict:
    mean = 0.2 + cell["dose"] / 1000 + (0.05 if cell["arm"] else 0.0)
    # On the validation documents a higher learning rate is better from dose 32 on.
    mean += {"lr 0.003": 0.01 if cell["dose"] >= 32 else -0.01, "lr 0.0003": -0.02}.get(cell["arm"], 0.0)
    return {
        "dose": cell["dose"],
        "seed": cell["seed"],
        "arm": cell["arm"],
        "directions": {name: scores(mean) for name in ("query_to_image", "query_to_text", "text_to_image")},
        "baselines": {"random": scores(0.01), "bm25": scores(0.4)},
    }


def estimate(value: float) -> dict:
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def table_row(dose: int) -> dict:
    quality = estimate(1.0 / (1 + dose))
    return {
        "dose": dose,
        **dict.fromkeys(("nats_per_byte", "base_nats_per_byte", "character_error_rate"), quality),
        "retrieval": {
            "before CL": {"ndcg@10": estimate(0.2 + dose / 1000)},
            "text-only": {"ndcg@10": estimate(0.25 + dose / 1000)},
        },
    }


def verdict(cell: dict) -> dict:
    return {
        "verdict": "inconclusive",
        "reasons": [f"{len(cell['cells']['retrieval'])} made-up scores prove nothing"],
        "decision": "run the real stages",
        "thresholds": {},
        "table": [table_row(one["dose"]) for one in cell["cells"]["generation"]],
        "baselines": {"bm25": 0.4, "random": 0.01},
        "paired": {"difference": 0.0, "low": -0.1, "high": 0.1, "p": 1.0},
    }


def write_json(folder: Path, name: str, value: dict) -> None:
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


def write_output(stage: str, folder: Path, cell: dict) -> None:
    if stage in ("pretrain", "refine"):
        (folder / "model").mkdir()
        place = ("dose", "pages", "seed", "arm", "steps", "adapters")
        write_json(folder, "model/weights.json", {key: cell.get(key) for key in place})
        write_json(folder, "training.json", training(cell))
    elif stage == "generation":
        write_json(folder, "generation.json", generation(cell))
    elif stage == "retrieval":
        write_json(folder, "retrieval.json", retrieval(cell))
    elif stage == "critic":
        write_json(folder, "critic.json", {"dose": cell["dose"], "pages": cell["pages"]})
    elif stage == "mine":
        (folder / "negatives.jsonl").write_text("")
    else:
        write_json(folder, "verdict.json", verdict(cell))
        (folder / "report.html").write_text("<p>made up</p>")
        (folder / "figures").mkdir()
        (folder / "figures" / "curve.png").write_bytes(b"not a picture")


def main(job_path: str) -> None:
    watch_parent()
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    store, metrics = LocalStore(job["store"]), MetricsFile(Path(job["metrics"]))
    rates = {"tokens_per_second": 100.0} if job["stage"] in ("pretrain", "refine") else {}
    for cell in job["cells"]:
        if cell.get("dose") == 666:
            sys.exit("the made-up loss became NaN")
        for step in range(1, 4):
            label = f"{job['stage']} {cell.get('dose', '')} {cell.get('seed', '')} {cell.get('arm', '')}"
            metrics.write(
                cell=cell["fingerprint"],
                step=step,
                label=label,
                done=step,
                total=3,
                metrics={"loss": 1 / step} | rates,
            )
            time.sleep(0.001)
        if cell.get("dose") != 777:
            with store.attempt(job["stage"], cell["fingerprint"]) as attempt:
                write_output(job["stage"], attempt.path, cell)
                attempt.commit(inputs={}, configuration={}, counts={})


if __name__ == "__main__":
    main(sys.argv[1])
