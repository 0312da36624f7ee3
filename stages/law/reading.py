"""From the JSON that the stages committed to `Measurements`; what does not belong together is refused."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from infra.store import Store
from stages.cells import Cell
from stages.law.config import LawSettings
from stages.law.measurements import TEXTS, Content, EvidenceError, Measurements, Searched, tidy
from stages.program import Input

FILES = {
    "pretrain": "training.json",
    "refine": "training.json",
    "generation": "generation.json",
    "retrieval": "retrieval.json",
    "critic": "critic.json",
}

Row = tuple[str, str, Any]
"""quantity, metric, values."""


def read_measurements(inputs: Iterable[Input], store: Store, settings: LawSettings) -> Measurements:
    """Read the measured outputs among a job's inputs; of each, its one small file is verified."""
    return measurements_of(
        (
            (one.stage, one.cell, store.open(one.path).json(FILES[one.stage]))
            for one in inputs
            if one.stage in FILES
        ),
        primary_arm=settings.law.primary_arm,
        steps=settings.refine_steps,
        minimum_documents=settings.law.minimum_documents,
    )


def measurements_of(
    outputs: Iterable[tuple[str, Cell, Content]], *, primary_arm: str, steps: int, minimum_documents: int
) -> Measurements:
    """Build the table from (stage, cell, JSON content).

    ``minimum_documents``: from how many on whole documents are resampled.

    Raises:
        EvidenceError: a dose is missing or without its other half; queries, corpora, candidates or the texts
            that were read differ between cells; seeds differ between doses of an arm.
    """
    contents = {(stage, cell): content for stage, cell, content in outputs}
    searched = {cell.split: content for (stage, cell), content in contents.items() if stage == "retrieval"}
    found = Measurements(
        table=tidy(
            (stage, cell, *row)
            for (stage, cell), content in contents.items()
            if stage in _ROWS
            for row in _ROWS[stage](content)
        ),
        searched={split: _searched(content, minimum_documents) for split, content in searched.items()},
        primary_arm=primary_arm,
        steps=steps,
        contents=contents,
    )
    _check_doses(found)
    _check_same_texts(found)
    _check_same_queries(found)
    _check_same_candidates(found)
    _check_same_seeds(found)
    return found


def _generation(content: Content) -> Iterator[Row]:
    for corpus, measured in content["corpora"].items():
        for blocks in (measured["per_block"], measured["per_decoded_block"]):
            for name in blocks[0]:
                if name != "key":
                    yield corpus, name, [block[name] for block in blocks]


def _retrieval(content: Content) -> Iterator[Row]:
    for direction, scores in content["directions"].items():
        for metric, values in scores["per_query"].items():
            yield direction, metric, values
    for reading, scores in content.get("readings", {}).items():
        for metric, values in scores["per_query"].items():
            yield reading, metric, values
    if content["contrastive"]:  # None where no query names a page with text
        for kind in TEXTS:
            yield from _losses(f"contrastive {kind}", content["contrastive"][kind])
    layers = content["geometry"]
    for metric in layers[0] if layers else ():
        yield "geometry", metric, [layer[metric] for layer in layers]


def _critic(content: Content) -> Iterator[Row]:
    for kind in TEXTS:
        yield from _losses(f"critic {kind}", content[kind])


def _losses(quantity: str, measured: Content) -> Iterator[Row]:
    """What a critic, or embeddings in its place, measured on one kind of text."""
    for name, values in measured.items():
        if name == "losses":
            yield quantity, "loss", values
        elif name == "by_size":
            for size, loss in values.items():
                yield quantity, f"loss@{size}", loss["loss"] if isinstance(loss, Mapping) else loss
        elif name == "scores":
            yield from ((quantity, metric, scores) for metric, scores in values["per_query"].items())
        else:
            yield quantity, name, values


_ROWS = {"generation": _generation, "retrieval": _retrieval, "critic": _critic}


def _searched(content: Content, minimum_documents: int) -> Searched:
    documents = np.array(content["query_documents"])
    count = len(np.unique(documents))
    return Searched(
        queries=len(documents),
        documents=documents if count >= minimum_documents else None,
        query_documents=count,
        corpus_size=content["corpus_size"],
        corpus_pages=content["corpus_pages"],
        corpus_documents=content["corpus_documents"],
        baselines={
            name: {
                metric: np.array(values, dtype=np.float64) for metric, values in scores["per_query"].items()
            }
            for name, scores in content["baselines"].items()
        },
        chance_mutual_knn=content["chance_mutual_knn"],
    )


def _check_doses(found: Measurements) -> None:
    searched = {cell.dose for cell in found.cells("retrieval") if found.is_own(cell)}
    if not searched:
        raise EvidenceError("no retrieval cells; run the retrieval stage first.")
    if 0 not in found.doses:
        raise EvidenceError(f"generation cells have doses {list(found.doses)}; need each once, and 0.")
    unknown = sorted(searched ^ set(found.doses))
    if unknown:
        raise EvidenceError(
            f"doses {unknown} have generation or retrieval but not both; run the missing cells."
        )


def _check_same_texts(found: Measurements) -> None:
    """Losses are paired block by block, so every dose must have read the same blocks in one order."""
    cells = sorted(found.cells("generation"), key=lambda cell: cell.dose)
    for corpus in ("target", "base"):
        blocks = {cell: found.contents["generation", cell]["corpora"][corpus]["per_block"] for cell in cells}
        for cell in _others({cell: [block["key"] for block in of] for cell, of in blocks.items()}):
            raise EvidenceError(
                f"generation at dose {cell.dose} was measured on other {corpus} samples than at dose "
                f"{cells[0].dose}; evaluate all doses on one test split."
            )


def _check_same_queries(found: Measurements) -> None:
    """All cells of a split were scored on the same queries and the same corpus."""
    for split in found.searched:
        cells = {cell: found.contents["retrieval", cell] for cell in found.cells("retrieval", split=split)}
        facts = {cell: (content["query_ids"], content["corpus_size"]) for cell, content in cells.items()}
        for cell in _others(facts):
            raise EvidenceError(
                f"retrieval, {cell.words} was scored on other queries or pages than retrieval, "
                f"{next(iter(cells)).words}; evaluate all cells on one split."
            )


def _check_same_candidates(found: Measurements) -> None:
    """A critic is compared with the embeddings that the primary CL made of the same checkpoint."""
    for critic in found.cells("critic"):
        place = {"dose": critic.dose, "pages": critic.pages, "arm": found.primary, "steps": found.steps}
        cells = found.cells("retrieval", split="test", **place)
        embeddings = {cell: found.contents["retrieval", cell]["contrastive"] for cell in cells}
        keys = {cell: measured and measured["keys"] for cell, measured in embeddings.items()}
        if _others({critic: found.contents["critic", critic]["keys"], **keys}):
            raise EvidenceError(
                f"the critic at dose {critic.dose}, {critic.pages} pages and the embeddings after "
                f"{found.primary_arm} CL have other candidates; evaluate both on one test split with one "
                "number of critic candidates."
            )


def _check_same_seeds(found: Measurements) -> None:
    """Doses are compared seed by seed, so every dose of an arm needs the same ones."""
    for arm in found.arms:
        seeds = {dose: of for dose in found.doses if (of := found.seeds_of(dose, arm))}
        for dose in _others(seeds):
            first = next(iter(seeds.values()))
            raise EvidenceError(
                f"retrieval, {Cell(dose=dose, arm=arm).words} has seeds {seeds[dose]}, elsewhere {first}; "
                "run the same seeds."
            )


def _others(facts: Mapping[Any, object]) -> list:
    """Keys whose fact is not that of the first."""
    first = next(iter(facts.values()), None)
    return [key for key, fact in facts.items() if fact != first]
