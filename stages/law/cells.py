"""Cells: the contents of the JSON files that the stages committed, chosen by where they stand in a sweep.

A cell's place is what tells it apart: dose and `pages` of its CGP ("target", "shuffled" or "unrelated"),
seed, arm and steps of its CL, and, where it was searched, the split.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

BEFORE_CL = "before CL"
PLACE = ("dose", "pages", "seed", "arm", "steps", "split")
METRICS = ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr")
_LABORATORY_ARMS = ("equal compute", "lr ", "rank ")


class EvidenceError(ValueError):
    """The cells of a run do not belong together; the message names the cell and what to do."""


def select(cells: Iterable[dict], *, pages: str = "target", **place: object) -> list[dict]:
    """Cells of these pages whose other fields equal `place`."""
    return [
        cell
        for cell in cells
        if cell["pages"] == pages and all(cell[name] == value for name, value in place.items())
    ]


def is_laboratory_arm(arm: str | None) -> bool:
    """Whether an arm exists for the laboratory alone: equal compute, learning rates, adapters."""
    return arm is not None and arm.startswith(_LABORATORY_ARMS)


def per_query(scores: dict) -> dict[str, np.ndarray]:
    """Metric -> ``[queries]`` of one direction of a retrieval.json."""
    return {metric: np.array(scores["per_query"][metric], dtype=np.float64) for metric in METRICS}


def documents_of(cell: dict, minimum: int) -> np.ndarray | None:
    """``[queries]``, the document of each query of a retrieval.json; None for fewer documents than `minimum`.

    So few cannot be resampled: one document would give an interval of width zero.
    """
    documents = np.array(cell["query_documents"])
    return documents if len(np.unique(documents)) >= minimum else None


def check_same_queries(retrieval: Sequence[dict]) -> None:
    """Raise EvidenceError where a cell was scored on other queries or another corpus than the first."""
    first = retrieval[0]
    for cell in retrieval:
        if cell["query_ids"] != first["query_ids"] or cell["corpus_size"] != first["corpus_size"]:
            raise EvidenceError(
                f"{name_of('retrieval', cell)} was scored on other queries or pages than "
                f"{name_of('retrieval', first)}; evaluate all cells on one split."
            )


def name_of(stage: str, cell: Mapping) -> str:
    """A cell in words: ``retrieval, dose 300, seed 0, text-only, 30 steps``."""
    return ", ".join(filter(None, (stage, place_in_words(cell))))


def place_in_words(cell: Mapping) -> str:
    """Where a cell stands, unusual pages and splits too; empty for a stage of one cell."""
    usual = {"pages": "target", "split": "test"}
    words = ("dose {:,}", "{} pages", "seed {}", "{}", "{:,} steps", "{} split")
    told = {name: text for name, text in zip(PLACE, words, strict=True) if cell.get(name) is not None}
    return ", ".join(text.format(cell[name]) for name, text in told.items() if cell[name] != usual.get(name))
