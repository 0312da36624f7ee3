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

from stages.cells import BEFORE_CL, CONTROLS, PRIMARY_METRIC, Arm, Cell
from stages.law.bound import critics
from stages.law.comparisons import control_doses
from stages.law.measurements import COMPARED_KINDS, EvidenceError, Measurements
from stages.law.statistics import Bootstrap, Estimate, mean_over_queries, means_over_queries, ratio_of_sums

Row = dict[str, Any]
BASELINE = "baseline"
"""Kind of the rows that are no arm: "bm25" and "random"."""
_LANGUAGE = {
    "nats_per_byte": ("nats", "bytes"),
    "character_error_rate": ("edits", "characters"),
    "token_accuracy": ("correct", "tokens"),
}


def estimate_all(found: Measurements, how: Bootstrap) -> pd.DataFrame:
    """The table of estimates.

    Raises:
        EvidenceError: a cell that belongs to an adapter is missing, or seeds of compared cells differ.
    """
    rows = [*_generation(found, how), *_dose_response(found, how), *_baselines(found, how)]
    if found.is_sweep:
        rows += [*_controls(found, how), *_adapters(found, how), *_critics(found, how)]
    return pd.DataFrame([*rows, *_other_tests(found, how)], dtype=object).astype(
        dict.fromkeys(("value", "low", "high"), np.float64)
    )


def estimate_of(row: Any) -> Estimate:
    """The estimate of a row of the table, as `itertuples` gives it."""
    return Estimate(value=row.value, low=row.low, high=row.high)


def in_dose_response(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the dose-response: both languages and every arm on the law's own test split, all seeds."""
    own = table.kind.isin(("none", *COMPARED_KINDS)) & (table.pages == "target") & table.seed.isna()
    return table[own & table.split.isin((None, "test")) & (table.quantity != "critic text")]


def adapters(found: Measurements) -> list[Cell]:
    """Trainings of the primary arm and of other adapters, highest dose, first seed: by rank and alpha.

    Raises:
        EvidenceError: training, retrieval, or generation after one of them is missing.
    """
    cells: dict[Arm, Cell | None] = {}
    for cell in found.cells("refine", dose=found.top, pages="target", steps=found.steps):
        if cell.arm == found.primary or cell.arm.kind == "adapter":
            # The first seed is the only one that every adapter has.
            cells[cell.arm] = cell if cell.seed == found.seeds[0] else cells.get(cell.arm)
    for arm, cell in cells.items():
        place = {"dose": found.top, "arm": arm, "seed": found.seeds[0], "steps": found.steps}
        after = found.cells("generation", **place), found.cells("retrieval", split="test", **place)
        if cell is None or not all(after):
            raise EvidenceError(
                f"{arm.name} CL at dose {found.top}, seed {found.seeds[0]}: needs training, retrieval, and "
                "generation before and after."
            )
    sizes = ("lora_rank", "lora_alpha")
    return sorted(
        cells.values(), key=lambda cell: [found.number("refine", cell, "training", name) for name in sizes]
    )


def _row(quantity: str, metric: str, cell: Cell, estimate: Estimate, **changes: Any) -> Row:
    """A row of the table: where `cell` stands, of all its seeds but where `changes` name one."""
    place = {"dose": cell.dose, "pages": cell.pages, "arm": cell.arm.name, "kind": cell.arm.kind}
    place |= {"seed": None, "steps": cell.steps, "split": cell.split} | changes
    return {"quantity": quantity, "metric": metric, **place, **vars(estimate)}


def _generation(found: Measurements, how: Bootstrap) -> Iterator[Row]:
    for dose in found.doses:
        for corpus in ("target", "base"):
            reading = found.reading(dose, corpus)
            for metric, (above, below) in _LANGUAGE.items():
                one = ratio_of_sums(getattr(reading, above), getattr(reading, below), how)
                yield _row(corpus, metric, Cell(dose=dose), one)


def _dose_response(found: Measurements, how: Bootstrap) -> Iterator[Row]:
    metrics = found.table[found.table.quantity == "query_to_image"].metric.unique()
    for dose in found.doses:
        for arm in (BEFORE_CL, *found.arms):
            cells = [cell for cell in found.cells("retrieval", dose=dose, arm=arm) if found.is_own(cell)]
            if not cells:
                continue
            measured = {
                ("query_to_image", metric): found.scores(dose, arm, metric=metric) for metric in metrics
            }
            measured["query_to_text", PRIMARY_METRIC] = found.scores(dose, arm, "query_to_text")
            estimates = means_over_queries(np.stack(list(measured.values())), how, found.test.documents)
            for (direction, metric), one in zip(measured, estimates, strict=True):
                yield _row(direction, metric, cells[0], one)
            # The queries of this direction are the pages' own texts, which `documents` does not describe.
            texts = found.scores(dose, arm, "text_to_image")
            yield _row("text_to_image", PRIMARY_METRIC, cells[0], mean_over_queries(texts, how))


def _baselines(found: Measurements, how: Bootstrap) -> Iterator[Row]:
    for name, metrics in found.test.baselines.items():
        for metric, values in metrics.items():
            one = mean_over_queries(values[None], how, found.test.documents)
            lexical = {"dose": None, "arm": name, "kind": BASELINE}
            yield _row("query_to_image", metric, Cell(split="test"), one, **lexical)


def _controls(found: Measurements, how: Bootstrap) -> Iterator[Row]:
    cells = [
        Cell(dose=dose, pages=pages, arm=found.primary, steps=found.steps, split="test")
        for pages in CONTROLS
        for dose in control_doses(found, pages)
    ]
    for direction in ("query_to_image", "query_to_text"):
        for cell in (*cells, found.equal_compute):
            scores = found.paired(cell.dose, cell.arm, direction, pages=cell.pages, steps=cell.steps)
            one = mean_over_queries(scores, how, found.test.documents)
            yield _row(direction, PRIMARY_METRIC, cell, one)


def _adapters(found: Measurements, how: Bootstrap) -> Iterator[Row]:
    for cell in adapters(found):
        one = mean_over_queries(found.scores(cell.dose, cell.arm)[:1], how, found.test.documents)
        yield _row("query_to_image", PRIMARY_METRIC, cell, one, seed=cell.seed, split="test")


def _critics(found: Measurements, how: Bootstrap) -> Iterator[Row]:
    for cell in critics(found):
        nats, blank, sizes = (
            found.values("critic", "critic text", name, dose=cell.dose, pages=cell.pages)[0]
            for name in ("nats", "nats_blank", "bytes")
        )
        yield _row("critic text", "nats_saved_per_byte", cell, ratio_of_sums(blank - nats, sizes, how))


def _other_tests(found: Measurements, how: Bootstrap) -> Iterator[Row]:
    for split in found.other_tests:
        cells = found.cells("retrieval", arm=found.primary, steps=found.steps, split=split)
        by_dose = {cell.dose: cell for cell in cells if cell.pages == "target"}
        if not by_dose:
            raise EvidenceError(
                f"test set {split!r} has no retrieval of {found.primary_arm} CL after {found.steps} steps."
            )
        for dose, cell in sorted(by_dose.items()):
            scores = found.paired(dose, found.primary, split=split)
            one = mean_over_queries(scores, how, found.searched[split].documents)
            yield _row("query_to_image", PRIMARY_METRIC, cell, one)
