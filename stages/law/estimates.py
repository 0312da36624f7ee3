"""Every mean that stands beside the verdict, with its interval, in one tidy table.

| quantity | metric | rows |
|---|---|---|
| "target", "base" | "nats_per_byte", "character_error_rate", "token_accuracy" | every dose, before CL |
| "query_to_image" | every metric | every dose and arm of the dose-response (`Measurements.is_own`) |
| "query_to_text", "text_to_image" | "ndcg@10" | the same |
| "query_to_image", "query_to_text" | "ndcg@10" | controls (`pages`); kind "equal compute" |
| "query_to_image" | every metric | kind "baseline": arms "bm25" and "random", dose None |
| "query_to_image" | "ndcg@10" | adapters at the highest dose, the primary one too: `seed` given |
| "query_to_image" | "ndcg@10" | other test sets (`split`): the primary arm by dose |
| "critic text" | "nats_saved_per_byte" | what the image tells of a page's text, by pages and dose |

Columns: quantity, metric, dose, pages, arm, kind, seed, steps, split, value, low, high. `seed` is None but
for rows of one seed alone; an adapter is measured with the first.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from stages.cells import BEFORE_CL, CONTROLS, PRIMARY_METRIC, Cell
from stages.law.bound import critics
from stages.law.measurements import COMPARED_KINDS, EvidenceError, Measurements
from stages.law.statistics import Bootstrap, Estimate, mean_over_queries, means_over_queries, ratio_of_sums

BASELINE = "baseline"
"""Kind of the rows that are no arm: "bm25" and "random"."""
COLUMNS = ("quantity", "metric", "dose", "pages", "arm", "kind", "seed", "steps", "split")
_LANGUAGE = {
    "nats_per_byte": ("nats", "bytes"),
    "character_error_rate": ("edits", "characters"),
    "token_accuracy": ("correct", "tokens"),
}
Row = tuple[str, str, Cell, Estimate]
"""quantity, metric, place, estimate."""


def estimate_all(found: Measurements, how: Bootstrap) -> pd.DataFrame:
    """The table of estimates.

    Raises:
        EvidenceError: a cell that belongs to an adapter is missing, or seeds of compared cells differ.
    """
    rows = [*_generation(found, how), *_dose_response(found, how)]
    if found.is_sweep:
        rows += [*_controls(found, how), *_adapters(found, how), *_critics(found, how)]
    rows += _other_tests(found, how)
    table = [
        (quantity, metric, cell.dose, cell.pages, cell.arm.name, cell.arm.kind, cell.seed, cell.steps,
         cell.split, one.value, one.low, one.high) for quantity, metric, cell, one in rows
    ]  # fmt: skip
    for name, metrics in found.test.baselines.items():
        for metric, values in metrics.items():
            place = ("query_to_image", metric, None, "target", name, BASELINE, None, None, "test")
            one = mean_over_queries(values[None], how, found.test.documents)
            table.append((*place, one.value, one.low, one.high))
    frame = pd.DataFrame(table, columns=(*COLUMNS, "value", "low", "high"), dtype=object)
    return frame.astype(dict.fromkeys(("value", "low", "high"), np.float64))


def estimate_of(row: Any) -> Estimate:
    """The estimate of a row of the table, as `itertuples` gives it."""
    return Estimate(value=row.value, low=row.low, high=row.high)


def in_dose_response(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the dose-response: both languages and every arm on the law's own test split, all seeds."""
    own = table.kind.isin(("none", *COMPARED_KINDS)) & (table.pages == "target") & table.seed.isna()
    return table[own & table.split.isin((None, "test")) & (table.quantity != "critic text")]


def adapters(found: Measurements) -> list[Cell]:
    """The primary CL and other adapters, trained at the highest dose, with the first seed: by rank and alpha.

    Raises:
        EvidenceError: training, retrieval, or generation before or after of one of them is missing.
    """
    cells = [
        cell
        for cell in found.cells("refine", dose=found.top, pages="target", steps=found.steps)
        if cell.arm == found.primary or cell.arm.kind == "adapter"
    ]
    # The first seed is the only one that every adapter has.
    first = {cell.arm: cell for cell in cells if cell.seed == found.seeds[0]}
    for arm in dict.fromkeys(cell.arm for cell in cells):
        place = {
            "dose": found.top,
            "pages": "target",
            "arm": arm,
            "seed": found.seeds[0],
            "steps": found.steps,
        }
        if not (
            arm in first
            and found.cells("generation", **place)
            and found.cells("retrieval", **place, split="test")
        ):
            raise EvidenceError(
                f"{arm.name} CL at dose {found.top}, seed {found.seeds[0]}: needs training, retrieval, and "
                "generation before and after."
            )

    def size(cell: Cell) -> tuple[float, float]:
        rank, alpha = (found.number("refine", cell, "training", f"lora_{name}") for name in ("rank", "alpha"))
        return rank, alpha

    return sorted(first.values(), key=size)


def _generation(found: Measurements, how: Bootstrap) -> Iterator[Row]:
    for dose in found.doses:
        for corpus in ("target", "base"):
            reading = found.reading(dose, corpus)
            for metric, (above, below) in _LANGUAGE.items():
                estimate = ratio_of_sums(getattr(reading, above), getattr(reading, below), how)
                yield corpus, metric, Cell(dose=dose), estimate


def _dose_response(found: Measurements, how: Bootstrap) -> Iterator[Row]:
    documents = found.test.documents
    for dose in found.doses:
        for arm in (BEFORE_CL, *found.arms):
            if found.scores(dose, arm) is None:
                continue
            place = found.place(dose, arm)
            measured = {
                ("query_to_image", metric): found.scores(dose, arm, metric=metric) for metric in found.metrics
            }
            measured["query_to_text", PRIMARY_METRIC] = found.scores(dose, arm, "query_to_text")
            estimates = means_over_queries(np.stack(list(measured.values())), how, documents)
            for (direction, metric), estimate in zip(measured, estimates, strict=True):
                yield direction, metric, place, estimate
            # The queries of this direction are the pages' own texts, which `documents` does not describe.
            texts = found.scores(dose, arm, "text_to_image")
            if texts is not None:
                yield "text_to_image", PRIMARY_METRIC, place, mean_over_queries(texts, how)


def _controls(found: Measurements, how: Bootstrap) -> Iterator[Row]:
    equal = found.equal_compute
    places = [
        *(
            found.place(dose, found.primary, pages=pages)
            for pages in CONTROLS
            for dose in found.control_doses(pages)
        ),
        found.place(0, equal.arm, steps=equal.steps),
    ]
    for direction in ("query_to_image", "query_to_text"):
        for place in places:
            scores = found.paired(place.dose, place.arm, direction, pages=place.pages, steps=place.steps)
            yield direction, PRIMARY_METRIC, place, mean_over_queries(scores, how, found.test.documents)


def _adapters(found: Measurements, how: Bootstrap) -> Iterator[Row]:
    for cell in adapters(found):
        scores = found.scores(cell.dose, cell.arm)[:1]
        place = found.place(cell.dose, cell.arm, seed=cell.seed)
        yield "query_to_image", PRIMARY_METRIC, place, mean_over_queries(scores, how, found.test.documents)


def _critics(found: Measurements, how: Bootstrap) -> Iterator[Row]:
    for cell in critics(found):
        nats, blank, sizes = (
            found.values("critic", "critic text", name, dose=cell.dose, pages=cell.pages)[0]
            for name in ("nats", "nats_blank", "bytes")
        )
        yield "critic text", "nats_saved_per_byte", cell, ratio_of_sums(blank - nats, sizes, how)


def _other_tests(found: Measurements, how: Bootstrap) -> Iterator[Row]:
    for split in found.other_tests:
        place = {"arm": found.primary, "pages": "target", "steps": found.steps, "split": split}
        doses = sorted({cell.dose for cell in found.cells("retrieval", **place)})
        if not doses:
            raise EvidenceError(
                f"test set {split!r} has no retrieval of {found.primary_arm} CL after {found.steps} steps."
            )
        for dose in doses:
            scores = found.paired(dose, found.primary, split=split)
            estimate = mean_over_queries(scores, how, found.searched[split].documents)
            yield "query_to_image", PRIMARY_METRIC, found.place(dose, found.primary, split=split), estimate
