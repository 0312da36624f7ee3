"""The rows behind the figures that every run has: dose-response, law, generation, geometry by layer."""

from collections.abc import Sequence

import numpy as np

from stages.law.evidence import BEFORE_CL, Evidence
from stages.law.figure_style import Row, columns
from stages.law.verdict import Verdict
from stages.recipes import LINEAR_MAPS

BASELINES = {"bm25": "BM25 on the text layer", "random": "random ranking"}
PAGES = {"target": "own pages", "shuffled": "shuffled pairs", "unrelated": "unrelated pages"}
PREDICTED = "predicted from the lower doses"
GEOMETRY = ("anisotropy_image", "anisotropy_text", "mutual_knn", "cka")


def arm_name(arm: str) -> str:
    """An arm as the reader meets it: ``after text-only CL``; linear maps replace CL."""
    if arm in LINEAR_MAPS:
        return f"{arm} instead of CL"
    return {BEFORE_CL: arm, "adapter soup": "after CL, soup of the seeds"}.get(arm, f"after {arm} CL")


def drawn_arms(evidence: Evidence, primary: str) -> list[str]:
    """Before CL, the primary arm, then the others that were run at every dose."""
    arms = [BEFORE_CL, *sorted(evidence.arms, key=lambda arm: arm != primary)]
    return [arm for arm in arms if all((dose, arm) in evidence.cells for dose in evidence.doses)]


def dose_response_rows(verdict: Verdict, evidence: Evidence) -> list[Row]:
    """nDCG@10 of query -> image by arm and dose; the baselines, which have no dose, last."""
    measured = [
        {"series": arm_name(arm), "dose": row["dose"], **columns("ndcg@10", row["retrieval"][arm]["ndcg@10"])}
        for arm in drawn_arms(evidence, verdict.thresholds.primary_arm)
        for row in verdict.table
    ]
    levels = [
        {"series": name, "dose": None, **columns("ndcg@10", None), "ndcg@10": verdict.baselines[key]}
        for key, name in BASELINES.items()
    ]
    return [*measured, *levels]


def law_rows(verdict: Verdict, evidence: Evidence) -> list[Row]:
    """Held-out loss before CL and nDCG@10, by arm and dose; then what the lower doses predict."""
    measured = [
        {
            "series": arm_name(arm),
            "dose": row["dose"],
            **columns("nats_per_byte", row["nats_per_byte"]),
            **columns("ndcg@10", row["retrieval"][arm]["ndcg@10"]),
        }
        for arm in drawn_arms(evidence, verdict.thresholds.primary_arm)
        for row in verdict.table
    ]
    if verdict.prediction is None:
        return measured
    highest = {"series": PREDICTED, "dose": evidence.doses[-1]}
    highest |= columns("nats_per_byte", verdict.table[-1]["nats_per_byte"])
    return [*measured, highest | columns("ndcg@10", verdict.prediction.predicted)]


def generation_rows(verdict: Verdict) -> list[Row]:
    """Held-out loss and character error rate by language and dose."""
    return [
        {
            "series": name,
            "dose": row["dose"],
            **columns("nats_per_byte", row[f"{prefix}nats_per_byte"]),
            **columns("character_error_rate", row[f"{prefix}character_error_rate"]),
        }
        for name, prefix in (("target language", ""), ("base language", "base_"))
        for row in verdict.table
    ]


def geometry_rows(retrieval: Sequence[dict], primary_arm: str) -> list[Row]:
    """Geometry by layer of every dose, before CL and after the primary arm's; means over its seeds.

    A measure is None where it does not exist: a layer of identical vectors.
    Empty where the corpus is smaller than a neighbourhood, or every layer is of identical vectors.
    """
    if not all(cell["geometry"] for cell in retrieval):
        return []
    chance = retrieval[0]["chance_mutual_knn"]
    rows = [
        {"series": arm_name(arm), "dose": dose, "layer": layer["layer"], "seeds": layer["seeds"]}
        | {name: None if np.isnan(layer[name]) else layer[name] for name in GEOMETRY}
        | {"chance_mutual_knn": chance}
        for arm in (BEFORE_CL, primary_arm)
        for (dose, of_arm), layers in sorted(mean_geometry(retrieval).items())
        if of_arm == arm
        for layer in layers
    ]
    return rows if any(row["mutual_knn"] is not None for row in rows) else []


def mean_geometry(retrieval: Sequence[dict]) -> dict[tuple[int, str], list[dict]]:
    """(dose, arm) -> one dict per layer, averaged over seeds; NaN where not measured."""
    grouped: dict[tuple[int, str], list[list[dict]]] = {}
    for cell in retrieval:
        grouped.setdefault((cell["dose"], cell["arm"] or BEFORE_CL), []).append(cell["geometry"])
    return {
        key: [
            {
                name: float(np.mean(np.array([layer[name] for layer in layers], dtype=float)))
                for name in layers[0]
            }
            | {"seeds": len(runs)}
            for layers in zip(*runs, strict=True)
        ]
        for key, runs in grouped.items()
    }
