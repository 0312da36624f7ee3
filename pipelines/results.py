"""Numbers of a run, read from the committed outputs: for MLflow, the console and the Prefect artifacts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from pipelines.console import printable
from pipelines.stage_definition import Reference

DIRECTIONS = ("query_to_image", "query_to_text", "text_to_image")
MEASURES = ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr")
BEFORE_CL = "before CL"

DoseRow = dict[str, Any]
"""{"dose": int, "nats per byte": float, ..., "nDCG@10 <arm>": float}: one row of the dose-response table."""


def read_json(folder: str | Path, name: str) -> Any:
    return json.loads((Path(folder) / name).read_text(encoding="utf-8"))


def output_metrics(stage: str, folder: str | Path) -> dict[str, float]:
    """The headline numbers of one committed output, by metric name; empty for a stage without any."""
    if stage == "generation":
        return _generation_metrics(read_json(folder, "generation.json"))
    if stage == "retrieval":
        return _retrieval_metrics(read_json(folder, "retrieval.json"))
    if stage in ("pretrain", "refine"):
        training = read_json(folder, "training.json")
        return {f"final/{name}": float(value) for name, value in training.items() if _is_number(value)}
    return {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _generation_metrics(generation: dict) -> dict[str, float]:
    names = ("nats_per_byte", "token_accuracy", "character_error_rate")
    return {
        f"{corpus}/{name}": float(numbers[name])
        for corpus, numbers in generation["corpora"].items()
        for name in names
    }


def _retrieval_metrics(retrieval: dict) -> dict[str, float]:
    metrics = {}
    for direction in DIRECTIONS:
        for measure in MEASURES:
            metrics[f"{direction}/{measure}"] = float(retrieval["directions"][direction][measure]["mean"])
    for baseline, numbers in retrieval["baselines"].items():
        metrics[f"baseline/{baseline}/ndcg@10"] = float(numbers["ndcg@10"]["mean"])
    return metrics


def dose_table(generation: Iterable[Reference], retrieval: Iterable[Reference]) -> list[DoseRow]:
    """One row per dose: generative quality, and nDCG@10 of query -> page image, before CL and per arm.

    An arm's value is the mean over its seeds.
    """
    ndcg: dict[int, dict[str, list[float]]] = {}
    for reference in retrieval:
        result = read_json(reference["path"], "retrieval.json")
        arm = reference.get("arm") or BEFORE_CL
        score = result["directions"]["query_to_image"]["ndcg@10"]["mean"]
        ndcg.setdefault(reference["dose"], {}).setdefault(arm, []).append(score)
    rows = []
    for reference in sorted(generation, key=lambda reference: reference["dose"]):
        corpora = read_json(reference["path"], "generation.json")["corpora"]
        row = {
            "dose": reference["dose"],
            "nats per byte": corpora["target"]["nats_per_byte"],
            "base nats per byte": corpora["base"]["nats_per_byte"],
            "character error rate": corpora["target"]["character_error_rate"],
        }
        arms = ndcg.get(reference["dose"], {})
        row |= {f"nDCG@10 {arm}": fmean(scores) for arm, scores in arms.items()}
        rows.append(row)
    return rows


def format_table(rows: list[DoseRow]) -> tuple[list[str], list[list[str]]]:
    """Column titles and cells as text, for any printer."""
    titles = list(dict.fromkeys(title for row in rows for title in row))
    cells = [[_format(row.get(title)) for title in titles] for row in rows]
    return titles, cells


def _format(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def inventory_summary(folder: str | Path) -> tuple[int, int, list[str]]:
    """(documents used, documents quarantined, one line per quarantined document or warning)."""
    inventory = read_json(folder, "inventory.json")
    documents = inventory["documents"]
    quarantined = [document for document in documents if document["status"] == "quarantined"]
    lines = [f"{document['path']}: {document['reason']}" for document in quarantined]
    lines += inventory.get("warnings", [])
    return len(documents) - len(quarantined), len(quarantined), [printable(line) for line in lines]
