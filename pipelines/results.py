"""Numbers of a run, read from the committed outputs: for MLflow, the console and the Prefect artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.console import printable
from stages.law.evidence import DIRECTIONS, METRICS

DoseRow = dict[str, Any]
"""{"dose": int, "target nats per byte": {"value", "low", "high"}, ..., "nDCG@10 <arm>": {...}}"""

SETTINGS = ("dose", "seed", "steps", "temperature", "learning_rate", "lora_rank", "lora_alpha")
"""Fields of training.json that are settings."""


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
        return {
            f"summary/{name}": float(value)
            for name, value in training.items()
            if name not in SETTINGS and _is_number(value)
        }
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
        for measure in METRICS:
            metrics[f"{direction}/{measure}"] = float(retrieval["directions"][direction]["means"][measure])
    for baseline, numbers in retrieval["baselines"].items():
        metrics[f"baseline/{baseline}/ndcg@10"] = float(numbers["means"]["ndcg@10"])
    return metrics


def dose_table(finding: Mapping[str, Any]) -> list[DoseRow]:
    """One row per dose from verdict.json: generative quality, and nDCG@10 before CL and per arm."""
    return [
        {
            "dose": row["dose"],
            "target nats per byte": row["nats_per_byte"],
            "base nats per byte": row["base_nats_per_byte"],
            "character error rate": row["character_error_rate"],
            **{f"nDCG@10 {arm}": scores["ndcg@10"] for arm, scores in row["retrieval"].items()},
        }
        for row in finding["table"]
    ]


def values(rows: Sequence[DoseRow], digits: int | None = None) -> list[dict[str, float]]:
    """The rows without intervals."""
    return [{"dose": row["dose"], **{name: _value(row[name], digits) for name in [*row][1:]}} for row in rows]


def _value(estimate: Mapping[str, float], digits: int | None) -> float:
    return estimate["value"] if digits is None else round(estimate["value"], digits)


def format_table(rows: Sequence[DoseRow], *, intervals: bool = False) -> tuple[list[str], list[list[str]]]:
    """Column titles and cells as text, for any printer: what every dose has, others are in the report."""
    titles = [title for title in rows[0] if all(title in row for row in rows)]
    return titles, [[_format(row[title], intervals) for title in titles] for row in rows]


def _format(value: Any, intervals: bool) -> str:
    if not isinstance(value, Mapping):
        return f"{value:,}"
    text = f"{value['value']:.3f}"
    return f"{text} [{value['low']:.3f}, {value['high']:.3f}]" if intervals else text


def inventory_summary(folder: str | Path) -> tuple[int, int, list[str]]:
    """(documents used, documents quarantined, one line per quarantined document or warning)."""
    inventory = read_json(folder, "inventory.json")
    documents = inventory["documents"]
    quarantined = [document for document in documents if document["status"] == "quarantined"]
    lines = [f"{document['path']}: {document['reason']}" for document in quarantined]
    lines += inventory.get("warnings", [])
    return len(documents) - len(quarantined), len(quarantined), [printable(line) for line in lines]
