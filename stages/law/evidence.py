"""The evidence of one run: generation per dose and retrieval per (dose, arm, seed), checked and aligned."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.law.cells import (
    BEFORE_CL,
    METRICS,
    EvidenceError,
    check_same_queries,
    documents_of,
    is_laboratory_arm,
    name_of,
    per_query,
    select,
)

DIRECTIONS = ("query_to_image", "query_to_text", "text_to_image")
_PER_BLOCK = ("nats", "bytes", "tokens", "correct")
_PER_DECODED_BLOCK = ("edits", "characters")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How well one checkpoint generates held-out text from its images.

    ``nats``, ``bytes``, ``tokens`` and ``correct`` are ``[blocks]``: teacher-forced loss, UTF-8 length,
    tokens, and those of them that were predicted. ``edits`` and ``characters`` are ``[decoded blocks]``:
    distance of the free transcription from the text, and the text's length.
    """

    nats: np.ndarray
    bytes: np.ndarray
    tokens: np.ndarray
    correct: np.ndarray
    edits: np.ndarray
    characters: np.ndarray

    @property
    def nats_per_byte(self) -> float:
        """Total nats over total bytes."""
        return float(self.nats.sum() / self.bytes.sum())

    @property
    def character_error_rate(self) -> float:
        """Total edits over total characters."""
        return float(self.edits.sum() / self.characters.sum())


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that the verdict may look at.

    Attributes:
        doses: ascending, the first is 0.
        target, base: one ``Reading`` per dose.
        cells: (dose, arm) -> (direction, metric) -> ``[seeds, queries]``; the arm ``before CL`` has one seed.
        seeds: arm -> its seeds, in the order of the first axis.
        baselines: "random" and "bm25" -> metric -> ``[queries]``, for queries against images.
        corpus_size, corpus_pages, corpus_documents: the samples that were searched, and where they are from.
        item: what a sample is: "page", or "passage" where pages were cut up.
        query_documents: how many documents the queries come from.
        documents: ``[queries]``, the document of each query; None where they are too few to be resampled.
    """

    doses: tuple[int, ...]
    target: tuple[Reading, ...]
    base: tuple[Reading, ...]
    cells: dict[tuple[int, str], dict[tuple[str, str], np.ndarray]]
    seeds: dict[str, tuple[int, ...]]
    baselines: dict[str, dict[str, np.ndarray]]
    queries: int
    corpus_size: int
    corpus_pages: int
    corpus_documents: int
    query_documents: int
    item: str = "page"
    documents: np.ndarray | None = None

    @property
    def corpus(self) -> str:
        """What was searched: ``600 passages from 193 pages of 13 documents``."""
        of = f"{self.corpus_documents:,} document{'s' if self.corpus_documents != 1 else ''}"
        if self.item == "page":
            return f"{self.corpus_size:,} pages of {of}"
        return f"{self.corpus_size:,} {self.item}s from {self.corpus_pages:,} pages of {of}"

    @property
    def arms(self) -> tuple[str, ...]:
        """CL arms, in alphabetical order reversed so that text-only comes before multimodal."""
        return tuple(sorted((arm for arm in self.seeds if arm != BEFORE_CL), reverse=True))

    def scores(
        self, dose: int, arm: str, direction: str = "query_to_image", metric: str = "ndcg@10"
    ) -> np.ndarray | None:
        """Per-query scores ``[seeds, queries]``, or None where this arm was not run at this dose."""
        return self.cells.get((dose, arm), {}).get((direction, metric))

    def curve(self, arm: str, direction: str = "query_to_image", metric: str = "ndcg@10") -> np.ndarray:
        """Scores of every dose ``[doses, seeds, queries]``; the arm must have been run at all of them."""
        missing = [dose for dose in self.doses if (dose, arm) not in self.cells]
        if missing:
            raise EvidenceError(
                f"arm {arm!r} has no retrieval at doses {missing}; run these cells, then the law again."
            )
        return np.stack([self.cells[dose, arm][direction, metric] for dose in self.doses])


def cells_of_the_law(
    generation: Sequence[dict], retrieval: Sequence[dict], steps: int
) -> tuple[list[dict], list[dict]]:
    """What the law itself is judged on, of all cells: generation before CL, and retrieval.

    CGP on the target's pages, searched on the test split before CL or after `steps` CL steps;
    stages/law/read_laboratory.py reads the others.
    """
    searched = [
        cell
        for cell in select(retrieval, split="test")
        if cell["steps"] in (None, steps) and not is_laboratory_arm(cell["arm"])
    ]
    return select(generation, arm=None), searched


def read_evidence(
    generation: Sequence[dict], retrieval: Sequence[dict], *, minimum_documents: int, item: str = "page"
) -> Evidence:
    """Build evidence from the contents of generation.json and retrieval.json, the law's own cells alone.

    ``minimum_documents``: from how many on whole documents are resampled. ``item``: what a sample is
    called, "page" or "passage".

    Raises:
        EvidenceError: a dose is missing, repeated or without its other half; queries, corpora or the texts
            that were read differ between cells; seeds differ between doses of an arm.
    """
    if not retrieval:
        raise EvidenceError("no retrieval cells; run the retrieval stage first.")
    by_dose = {cell["dose"]: cell for cell in generation}
    doses = tuple(sorted(by_dose))
    if len(by_dose) != len(generation) or 0 not in by_dose:
        raise EvidenceError(
            f"generation cells have doses {[c['dose'] for c in generation]}; need each once, and 0."
        )
    _check_same_blocks([by_dose[dose] for dose in doses])
    check_same_queries(retrieval)
    grouped = _by_dose_and_arm(retrieval)
    unknown = sorted({dose for dose, _ in grouped} ^ set(doses))
    if unknown:
        raise EvidenceError(
            f"doses {unknown} have generation or retrieval but not both; run the missing cells."
        )
    first = retrieval[0]
    return Evidence(
        doses=doses,
        target=tuple(_reading(by_dose[dose]["corpora"]["target"]) for dose in doses),
        base=tuple(_reading(by_dose[dose]["corpora"]["base"]) for dose in doses),
        cells={key: _stack(cells) for key, cells in grouped.items()},
        seeds=_seeds(grouped),
        baselines={name: per_query(d) for name, d in first["baselines"].items()},
        queries=len(first["query_ids"]),
        corpus_size=first["corpus_size"],
        corpus_pages=first["corpus_pages"],
        corpus_documents=first["corpus_documents"],
        query_documents=len(set(first["query_documents"])),
        item=item,
        documents=documents_of(first, minimum_documents),
    )


def _check_same_blocks(generation: Sequence[dict]) -> None:
    """Losses are paired block by block, so every dose must have read the same blocks in one order."""
    for corpus in ("target", "base"):
        blocks = [[block["key"] for block in cell["corpora"][corpus]["per_block"]] for cell in generation]
        for cell, keys in zip(generation, blocks, strict=True):
            if keys != blocks[0]:
                raise EvidenceError(
                    f"generation at dose {cell['dose']} was measured on other {corpus} samples than at dose "
                    f"{generation[0]['dose']}; evaluate all doses on one test split."
                )


def _reading(corpus: dict) -> Reading:
    columns = {
        **{name: [block[name] for block in corpus["per_block"]] for name in _PER_BLOCK},
        **{name: [block[name] for block in corpus["per_decoded_block"]] for name in _PER_DECODED_BLOCK},
    }
    return Reading(**{name: np.array(values, dtype=np.float64) for name, values in columns.items()})


def _by_dose_and_arm(retrieval: Sequence[dict]) -> dict[tuple[int, str], list[dict]]:
    grouped: dict[tuple[int, str], list[dict]] = {}
    for cell in sorted(retrieval, key=lambda cell: (cell["dose"], cell["arm"] or "", cell["seed"] or 0)):
        grouped.setdefault((cell["dose"], cell["arm"] or BEFORE_CL), []).append(cell)
    return grouped


def _seeds(grouped: dict[tuple[int, str], list[dict]]) -> dict[str, tuple[int, ...]]:
    """Seeds per arm; doses are compared seed by seed, so every dose of an arm needs the same ones."""
    found: dict[str, tuple[int, ...]] = {}
    for (_, arm), cells in grouped.items():
        seeds = tuple(cell["seed"] or 0 for cell in cells)
        if len(set(seeds)) != len(seeds) or found.setdefault(arm, seeds) != seeds:
            raise EvidenceError(
                f"{name_of('retrieval', cells[0])} has seeds {seeds}, elsewhere {found[arm]}; run the same "
                "seeds."
            )
    return found


def _stack(cells: Sequence[dict]) -> dict[tuple[str, str], np.ndarray]:
    return {
        (direction, metric): np.stack([per_query(cell["directions"][direction])[metric] for cell in cells])
        for direction in DIRECTIONS
        for metric in METRICS
    }
