"""Everything that the committed cells of a sweep measured, in one tidy table; every comparison filters it.

One row for each cell, quantity and metric, its `values` a float64 array over units:

| stage | quantity | metrics | units |
|---|---|---|---|
| retrieval | "query_to_image", ... (`DIRECTIONS`) | "ndcg@10", ... as in retrieval.json | queries |
| retrieval | "lexical", ... (stages/law/readings.py) | the same | queries |
| retrieval | "contrastive text", "contrastive query" | "loss", "ndcg@10", "loss@8", ... | candidates; one |
| retrieval | "geometry" | "layer", "cka", ...; NaN where not measured | layers |
| generation | "target", "base" | "nats", "bytes", "tokens", "correct" | blocks |
| generation | "target", "base" | "edits", "characters" | decoded blocks |
| critic | "critic text", "critic query" | "loss", "ndcg@10", ..., "loss@8", ..., "slack" | candidates; one |
| critic | "critic text" | "nats", "nats_blank", "bytes" | candidates |

Of a block: its teacher-forced loss, UTF-8 length, tokens, and those of them that were predicted; the distance
of its free transcription from its text, and the text's length.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from stages.cells import BEFORE_CL, PRIMARY_METRIC, Arm, Cell

TEXTS = ("text", "query")
"""What a critic and the embeddings discriminate: the pages' own texts, and queries."""
COMPARED_KINDS = ("refinement", "soup", "linear map")
"""Arms that stand in the dose-response, beside "none"."""

Content = Mapping[str, Any]
Entry = tuple[str, Cell, str, str, Any]
"""stage, cell, quantity, metric, values."""


class EvidenceError(ValueError):
    """The cells of a run do not belong together; the message names the cell and what to do."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What all cells of one split were searched with and on.

    Attributes:
        documents: ``[queries]``, the document of each query; None where they are too few to be resampled
            (one document would give an interval of width zero).
        query_documents: how many documents the queries come from.
        corpus_size, corpus_pages, corpus_documents: the samples that were searched, and where they are from.
        baselines: "random" and "bm25" -> metric -> ``[queries]``, for queries against images.
        chance_mutual_knn: common neighbours that chance gives; None where it was not measured.
    """

    queries: int
    documents: np.ndarray | None
    query_documents: int
    corpus_size: int
    corpus_pages: int
    corpus_documents: int
    baselines: Mapping[str, Mapping[str, np.ndarray]]
    chance_mutual_knn: float | None = None


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """All cells of a run or a sweep, with the CL that the law is judged on: `primary_arm`, after `steps`.

    Attributes:
        table: columns stage, cell, dose, pages, arm (its name), kind, seed, steps, split, quantity, metric,
            values; None where a cell has no seed, steps or split.
        searched: split -> what its cells share; "test" is the law's own.
        contents: (stage, cell) -> the JSON content as committed: settings, and examples for the report.
    """

    table: pd.DataFrame
    searched: Mapping[str, Searched]
    primary_arm: str
    steps: int
    contents: Mapping[tuple[str, Cell], Content]

    @cached_property
    def primary(self) -> Arm:
        """The arm that the law is judged on."""
        for cell in self.cells("retrieval"):
            if cell.arm.name == self.primary_arm:
                return cell.arm
        raise EvidenceError(
            f"no retrieval of {self.primary_arm} CL after {self.steps} steps; run these cells."
        )

    @cached_property
    def doses(self) -> tuple[int, ...]:
        """Doses of CGP on the own pages, ascending; the first is 0."""
        return tuple(sorted(cell.dose for cell in self.cells("generation", arm=BEFORE_CL, pages="target")))

    @property
    def top(self) -> int:
        """The highest dose."""
        return self.doses[-1]

    @property
    def test(self) -> Searched:
        """The law's own test split."""
        return self.searched["test"]

    @property
    def other_tests(self) -> tuple[str, ...]:
        """Further test sets by name."""
        return tuple(sorted(set(self.searched) - {"test", "validation"}))

    @cached_property
    def seeds(self) -> tuple[int | None, ...]:
        """Of the law's own CL."""
        return self.seeds_of(0, self.primary)

    @cached_property
    def is_sweep(self) -> bool:
        """Whether controls belong to it: a plain run has none."""
        searched = self.cells("retrieval")
        controls = any(cell.pages != "target" or cell.arm.kind == "equal compute" for cell in searched)
        return controls or bool(self.cells("critic"))

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """Arms of the dose-response but "before CL", by name from last to first (text-only, multimodal)."""
        arms = {cell.arm.name: cell.arm for cell in self.cells("retrieval") if self.is_own(cell)}
        return tuple(arm for _, arm in sorted(arms.items(), reverse=True) if arm.kind != "none")

    @cached_property
    def equal_compute(self) -> Cell:
        """One of the cells of dose 0 with so much more CL as CGP of the highest dose costs in FLOPs."""
        cells = [cell for cell in self.cells("retrieval", dose=0) if cell.arm.kind == "equal compute"]
        steps = sorted({cell.steps for cell in cells})
        if len(steps) != 1:
            raise EvidenceError(
                f"retrieval of 'equal compute' CL at dose 0 has {steps} steps; need one number."
            )
        return cells[0]

    def cells(self, stage: str, **fields: Any) -> list[Cell]:
        """Cells of a stage whose fields equal `fields`, in order of reading."""
        return [
            cell
            for of, cell in self.contents
            if of == stage and all(getattr(cell, name) == value for name, value in fields.items())
        ]

    def is_own(self, cell: Cell) -> bool:
        """Whether a cell stands in the dose-response: own pages and test split, no CL or the law's steps."""
        place = (cell.pages, cell.split or "test", cell.steps or self.steps)
        return place == ("target", "test", self.steps) and cell.arm.kind in ("none", *COMPARED_KINDS)

    def values(self, stage: str, quantity: str, metric: str, **place: Any) -> np.ndarray | None:
        """``[seeds, units]``, seeds ascending; None where this was not measured.

        `place`: fields of the cells, at their defaults where left out; an arm with CL after the law's steps.
        """
        found = self._by_seed(stage, quantity, metric, **place)
        return np.stack(list(found.values())) if found else None

    def scores(
        self,
        dose: int,
        arm: Arm,
        direction: str = "query_to_image",
        metric: str = PRIMARY_METRIC,
        **place: Any,
    ) -> np.ndarray | None:
        """What retrieval measured ``[seeds, queries]``, of the test split where `place` names no other."""
        place = {"dose": dose, "arm": arm, "split": "test"} | place
        return self.values("retrieval", direction, metric, **place)

    def paired(self, dose: int, arm: Arm, *names: str, **place: Any) -> np.ndarray:
        """`scores` that pair with the law's own. Raises EvidenceError for none, or for other seeds."""
        seeds, scores = self.seeds_of(dose, arm, **place), self.scores(dose, arm, *names, **place)
        if seeds != self.seeds:
            seed = next(iter(seeds), None)
            cell = Cell(**{"dose": dose, "arm": arm, "seed": seed, "steps": self.steps} | place)
            raise EvidenceError(
                f"retrieval, {cell.words} has seeds {seeds}, the law's own cells {self.seeds}; run the same."
            )
        return scores

    def seeds_of(self, dose: int, arm: Arm, **place: Any) -> tuple[int | None, ...]:
        """Seeds with which an arm was searched at a dose, ascending."""
        place = {"dose": dose, "arm": arm, "split": "test"} | place
        return tuple(self._by_seed("retrieval", "query_to_image", PRIMARY_METRIC, **place))

    def curve(self, arm: Arm, direction: str = "query_to_image") -> np.ndarray:
        """nDCG@10 of every dose ``[doses, seeds, queries]``. Raises EvidenceError where a dose has none."""
        scores = {dose: self.scores(dose, arm, direction) for dose in self.doses}
        missing = [dose for dose, found in scores.items() if found is None]
        if missing:
            raise EvidenceError(
                f"arm {arm.name!r} has no retrieval at doses {missing}; run these cells, then the law again."
            )
        return np.stack(list(scores.values()))

    def blocks(self, name: str, dose: int, corpus: str = "target") -> np.ndarray:
        """What reading a block of the "target" or "base" language measured before CL ``[blocks]``."""
        return self.values("generation", corpus, name, dose=dose)[0]

    def nats_per_byte(self, dose: int) -> float:
        """How badly a dose reads the target language before CL: total nats over total bytes."""
        return float(self.blocks("nats", dose).sum() / self.blocks("bytes", dose).sum())

    def character_error_rate(self, dose: int) -> float:
        """The same of its free transcriptions: total edits over total characters."""
        return float(self.blocks("edits", dose).sum() / self.blocks("characters", dose).sum())

    def _by_seed(self, stage: str, quantity: str, metric: str, **place: Any) -> dict[int | None, np.ndarray]:
        cell = Cell(**place)
        steps = None if cell.arm.kind in ("none", "linear map") else cell.steps or self.steps
        key = (stage, quantity, metric, cell.dose, cell.arm.name, cell.pages, steps, cell.split)
        return self._index.get(key, {})

    @cached_property
    def _index(self) -> dict[tuple, dict[int | None, np.ndarray]]:
        found: dict[tuple, dict[int | None, np.ndarray]] = {}
        columns = ("stage", "quantity", "metric", "dose", "arm", "pages", "steps", "split")
        places = zip(*(self.table[name] for name in columns), strict=True)
        for place, seed, values in zip(places, self.table.seed, self.table["values"], strict=True):
            found.setdefault(place, {})[seed] = values
        return found


def tidy(entries: Iterable[Entry]) -> pd.DataFrame:
    """The table of such entries; seeds ascend."""
    rows = [
        {"stage": stage, **vars(cell), "arm": cell.arm.name, "kind": cell.arm.kind, "quantity": quantity}
        | {"metric": metric, "values": np.atleast_1d(np.asarray(values, dtype=np.float64))}
        for stage, cell, quantity, metric, values in sorted(entries, key=lambda entry: entry[1].seed or 0)
    ]
    return pd.DataFrame(rows, dtype=object).astype({"dose": np.int64})
