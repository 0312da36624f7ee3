"""What keys are called where a reader meets them: in figures and tables. Nothing is looked up by a label."""

from collections.abc import Mapping
from typing import Any

BASELINES = {"bm25": "BM25 on the text layer", "random": "random ranking"}
PAGES = {"target": "own pages", "shuffled": "shuffled pairs", "unrelated": "unrelated pages"}
CONTROLS = {**PAGES, "compute": "CL alone, {steps:,} steps", "grounding": "own pages on texts"}
GROUPS = {
    "gain": "gain over dose 0",
    "ahead": "own pages minus control",
    "unexplained": "share of the gain, minus",
}
COMPARISONS = {
    "gain": "{control}, searching {searched}s",
    "ahead": "minus {control}",
    "unexplained": "{share:.0%}, minus the gain of {control}",
}
BEYOND_TEXT = "gain on images minus gain on texts"
SEARCHED = {"query_to_image": "image", "query_to_text": "text"}
LANGUAGES = {"target": "target language", "base": "base language"}
GIVEN = {"text": "its own text", "query": "a query"}
ARMS = {
    "none": "{arm}",
    "linear map": "{arm} instead of CL",
    "soup": "after CL, soup of the seeds",
    "prediction": "predicted from the lower doses",
}
READINGS = {
    "pooled": "the vector (pooled)",
    "lexical": "words that the model names (lexical)",
    "transcribed": "what the model writes (BM25 of words)",
    "trigrams": "what the model writes (BM25 of trigrams)",
    "fused": "all together (weights by validation)",
    "fused equally": "all together (equal weights)",
    "late interaction": "token by token, untrained (late interaction)",
}
_AFTER_CL = "after {arm} CL"
_METRICS = {"ndcg": "nDCG", "mrr": "MRR", "map": "MAP"}
_DIRECTIONS = {"query_to_text": "Query → text", "text_to_image": "Own text → image"}


def arm_label(arm: str, kind: str) -> str:
    """A model: ``after text-only CL``; linear maps replace CL, and baselines have none."""
    return BASELINES[arm] if kind == "baseline" else ARMS.get(kind, _AFTER_CL).format(arm=arm)


def control_label(row: Mapping[str, Any]) -> str:
    """A control by its key; that of equal compute with its steps."""
    return CONTROLS[row["control"]].format(steps=row["steps"])


def comparison_label(row: Mapping[str, Any]) -> str:
    """One row of the table of controls."""
    if (row["group"], row["control"]) == ("ahead", "grounding"):
        return BEYOND_TEXT
    words = {"control": control_label(row), "searched": SEARCHED.get(row["direction"]), "share": row["share"]}
    return COMPARISONS[row["group"]].format(**words)


def metric_label(metric: str, direction: str = "query_to_image") -> tuple[str, ...]:
    """A metric of any name: ``nDCG@10``, ``Recall@5``; with its direction where that is not the usual one."""
    name, at, cutoff = metric.partition("@")
    label = _METRICS.get(name, name.capitalize()) + at + cutoff
    return (label,) if direction not in _DIRECTIONS else (_DIRECTIONS[direction], label)
