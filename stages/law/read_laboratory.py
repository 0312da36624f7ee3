"""From the cells of a sweep to the `Laboratory`: controls, critics, ceilings, adapters, other test sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.law.cells import (
    EvidenceError,
    check_same_queries,
    documents_of,
    name_of,
    per_query,
    select,
)
from stages.law.laboratory import (
    AdapterReading,
    Bound,
    BudgetCurve,
    CriticReading,
    Laboratory,
    OtherTest,
    Scores,
    best_learning_rate,
)
from stages.recipes import CONTROLS

EQUAL_COMPUTE = "equal compute"
KINDS = ("text", "query")
_DIRECTIONS = ("query_to_image", "query_to_text")

Cells = Mapping[str, Sequence[dict]]
"""Stage -> contents of its JSON files: generation, retrieval, critic, and refine (training.json)."""


def read_laboratory(cells: Cells, *, primary_arm: str, steps: int, minimum_documents: int) -> Laboratory:
    """Build the laboratory from every cell of a sweep.

    ``primary_arm`` and ``steps`` name the CL that the law is judged on; ``minimum_documents``: from how many
    on whole documents of another test set are resampled.

    Raises:
        EvidenceError: a control, the equal-compute arm, or the other half of a pair of cells is missing;
            seeds, queries or candidates differ between cells that are compared.
    """
    own = select(cells["retrieval"], split="test", arm=primary_arm, steps=steps)
    if not own:
        raise EvidenceError(f"no retrieval of {primary_arm} CL after {steps} steps; run these cells.")
    reader = _Reader(
        retrieval=cells["retrieval"],
        test=[cell for cell in cells["retrieval"] if cell["split"] == "test"],
        trainings=cells["refine"],
        generation=cells["generation"],
        arm=primary_arm,
        steps=steps,
        minimum_documents=minimum_documents,
        first=own[0],
        seeds=tuple(sorted(cell["seed"] for cell in _at(own, own[0]["dose"]))),
    )
    top = max(cell["dose"] for cell in own)
    equal, equal_steps = reader.equal_compute()
    return Laboratory(
        controls={pages: reader.control(pages, top) for pages in CONTROLS},
        equal_compute=equal,
        equal_compute_steps=equal_steps,
        critics={(cell["pages"], cell["dose"]): reader.critic(cell) for cell in cells["critic"]},
        ceilings={dose: reader.ceiling(dose) for dose in sorted({cell["dose"] for cell in own})},
        adapters=reader.adapters(top),
        other_tests=reader.other_tests(),
    )


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """The cells of a sweep, with the primary CL, its queries and its seeds: what every comparison shares.

    `test`: those of `retrieval` that searched the law's own test split.
    """

    retrieval: Sequence[dict]
    test: Sequence[dict]
    trainings: Sequence[dict]
    generation: Sequence[dict]
    arm: str
    steps: int
    minimum_documents: int
    first: dict
    seeds: tuple[int, ...]

    def control(self, pages: str, top: int) -> dict[int, Scores]:
        found = select(self.test, pages=pages, arm=self.arm, steps=self.steps)
        if top not in {cell["dose"] for cell in found}:
            raise EvidenceError(
                f"no retrieval after CGP on {pages} pages at dose {top}; run this control first."
            )
        return {dose: self.scores(_at(found, dose)) for dose in sorted({cell["dose"] for cell in found})}

    def equal_compute(self) -> tuple[Scores, int]:
        found = select(self.test, arm=EQUAL_COMPUTE, dose=0)
        steps = {cell["steps"] for cell in found}
        if len(steps) != 1:
            raise EvidenceError(
                f"retrieval of {EQUAL_COMPUTE!r} CL at dose 0 has {sorted(steps)} steps; need one number."
            )
        return self.scores(found), steps.pop()

    def scores(self, cells: Sequence[dict]) -> Scores:
        """Both directions, on the queries and seeds of the primary CL."""
        ordered = self.same_seeds(cells)
        check_same_queries([self.first, *ordered])
        return {direction: _ndcg(ordered, direction) for direction in _DIRECTIONS}

    def same_seeds(self, cells: Sequence[dict]) -> list[dict]:
        ordered = sorted(cells, key=lambda cell: cell["seed"])
        seeds = tuple(cell["seed"] for cell in ordered)
        if seeds != self.seeds:
            where = name_of("retrieval", ordered[0]) if ordered else "retrieval of the primary CL"
            raise EvidenceError(f"{where} has seeds {seeds}, the law's own cells {self.seeds}; run the same.")
        return ordered

    def critic(self, cell: dict) -> CriticReading:
        """A critic with the embeddings that the primary CL made of the same checkpoint."""
        pages, dose = cell["pages"], cell["dose"]
        found = select(self.test, pages=pages, dose=dose, arm=self.arm, steps=self.steps)
        embeddings = [retrieval["contrastive"] for retrieval in self.same_seeds(found)]
        if any(measured["keys"] != cell["keys"] for measured in embeddings):
            raise EvidenceError(
                f"the critic at dose {dose}, {pages} pages and the embeddings after {self.arm} CL have other "
                "candidates; evaluate both on one test split with one number of critic candidates."
            )
        text = cell["text"]
        return CriticReading(
            bounds={kind: _bound(cell[kind], [measured[kind] for measured in embeddings]) for kind in KINDS},
            nats_saved=np.subtract(text["nats_blank"], text["nats"]),
            bytes=np.array(text["bytes"], dtype=np.float64),
            retrieval={kind: np.array(cell[kind]["scores"]["per_query"]["ndcg@10"]) for kind in KINDS},
            embedding_retrieval={
                kind: np.array([measured[kind]["ndcg@10"] for measured in embeddings]) for kind in KINDS
            },
        )

    def ceiling(self, dose: int) -> BudgetCurve:
        """Every budget of the learning rate that is best on validation documents."""
        validation = self.validation(dose)
        chosen = best_learning_rate(validation)
        arms = {arm for arm in self.rate_arms(dose) if self.learning_rate(arm, dose) == chosen}
        of_rate = (cell for cell in select(self.test, dose=dose) if cell["arm"] in arms)
        # The recipe's own rate may have run under two names: the same training.
        found = list({(cell["steps"], cell["seed"]): cell for cell in of_rate}.values())
        if not found:
            raise EvidenceError(f"dose {dose}, learning rate {chosen:g}: no retrieval on the test documents.")
        check_same_queries([self.first, *found])
        budgets = sorted({cell["steps"] for cell in found})
        scores = {steps: _ndcg(self.same_seeds(select(found, steps=steps))) for steps in budgets}
        return BudgetCurve(scores=scores, learning_rate=chosen, validation=validation)

    def validation(self, dose: int) -> dict[float, float]:
        """Learning rate -> best mean nDCG@10 over the budgets, first seed."""
        means: dict[float, list[float]] = {}
        for arm in sorted(self.rate_arms(dose)):
            found = select(self.retrieval, split="validation", dose=dose, arm=arm, seed=self.seeds[0])
            if found:
                rate = self.learning_rate(arm, dose)
                means.setdefault(rate, []).extend(float(_ndcg([cell]).mean()) for cell in found)
        if not means:
            raise EvidenceError(f"dose {dose} has no retrieval on validation documents; run these cells.")
        return {rate: max(values) for rate, values in sorted(means.items())}

    def rate_arms(self, dose: int) -> set[str]:
        arms = {cell["arm"] for cell in select(self.trainings, dose=dose)}
        return {arm for arm in arms if arm == self.arm or arm.startswith("lr ")}

    def learning_rate(self, arm: str, dose: int) -> float:
        rates = {cell["learning_rate"] for cell in select(self.trainings, arm=arm, dose=dose)}
        if len(rates) != 1:
            raise EvidenceError(f"{arm} CL at dose {dose} has learning rates {sorted(rates)}; need one.")
        return rates.pop()

    def adapters(self, top: int) -> tuple[AdapterReading, ...]:
        """The primary CL and the adapter sweep, at the highest dose, by rank and alpha."""
        arms = {cell["arm"] for cell in select(self.trainings, dose=top, steps=self.steps)}
        arms = sorted(arm for arm in arms if arm == self.arm or arm.startswith("rank "))
        readings = [self.adapter(arm, top) for arm in arms]
        return tuple(sorted(readings, key=lambda reading: (reading.rank, reading.alpha)))

    def adapter(self, arm: str, top: int) -> AdapterReading:
        """One adapter with the first seed, the only one that every adapter has."""
        place = {"dose": top, "arm": arm, "steps": self.steps, "seed": self.seeds[0]}
        trained = select(self.trainings, **place)
        after = select(self.generation, **place)
        found = select(self.test, **place)
        before = select(self.generation, dose=top, arm=None)
        if not (trained and after and found and before):
            raise EvidenceError(
                f"{arm} CL at dose {top}, seed {self.seeds[0]}: needs training, retrieval, and generation "
                "before and after."
            )
        check_same_queries([self.first, *found])
        return AdapterReading(
            name=arm,
            rank=trained[0]["lora_rank"],
            alpha=trained[0]["lora_alpha"],
            weight_change=trained[0]["weight_change"],
            scores=_ndcg(found),
            nats_before=_nats_per_byte(before[0]),
            nats_after=_nats_per_byte(after[0]),
        )

    def other_tests(self) -> tuple[OtherTest, ...]:
        names = {cell["split"] for cell in self.retrieval} - {"test", "validation"}
        return tuple(self.other_test(name) for name in sorted(names))

    def other_test(self, name: str) -> OtherTest:
        found = select(self.retrieval, split=name, arm=self.arm, steps=self.steps)
        if not found:
            raise EvidenceError(
                f"test set {name!r} has no retrieval of {self.arm} CL after {self.steps} steps."
            )
        check_same_queries(found)
        baselines = found[0]["baselines"]
        return OtherTest(
            name=name,
            queries=len(found[0]["query_ids"]),
            corpus_size=found[0]["corpus_size"],
            scores={
                dose: _ndcg(self.same_seeds(_at(found, dose)))
                for dose in sorted({cell["dose"] for cell in found})
            },
            documents=documents_of(found[0], self.minimum_documents),
            **{kind: float(per_query(baselines[kind])["ndcg@10"].mean()) for kind in ("random", "bm25")},
        )


def _bound(critic: dict, embeddings: Sequence[dict]) -> Bound:
    return Bound(
        generative=np.array(critic["losses"]),
        contrastive=np.array([measured["losses"] for measured in embeddings]),
        slack=critic["slack"],
        by_size={
            int(size): (entry["loss"], float(np.mean([measured["by_size"][size] for measured in embeddings])))
            for size, entry in critic["by_size"].items()
        },
    )


def _ndcg(cells: Sequence[dict], direction: str = "query_to_image") -> np.ndarray:
    """nDCG@10 ``[seeds, queries]``, seeds ascending."""
    ordered = sorted(cells, key=lambda cell: cell["seed"] or 0)
    return np.stack([per_query(cell["directions"][direction])["ndcg@10"] for cell in ordered])


def _nats_per_byte(cell: dict) -> float:
    return cell["corpora"]["target"]["nats_per_byte"]


def _at(cells: Sequence[dict], dose: int) -> list[dict]:
    return [cell for cell in cells if cell["dose"] == dose]
