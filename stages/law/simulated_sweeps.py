"""Simulated sweeps whose truth is known: what the verdict's error rates are measured on.

A query's page competes with pages of score N(0, 1); its own score is normal too, a sum of parts whose
standard deviations are in `Noise`. The rank follows from the score, nDCG@10 from the rank.

`Noise` was found by hand so that simulated runs have the moments of a real one, recipe `tiny`: 600
Vietnamese queries from 13 documents of 22 to 111, doses 0, 4,800, 9,600 and 19,200, CL seeds 0 and 1,
text-only CL. Per-query nDCG@10, mean over the doses (variances between documents by one-way analysis of
variance):

| moment | image, real | simulated | text, real | simulated |
|---|---|---|---|---|
| mean | 0.413 | 0.422 | 0.603 | 0.607 |
| share of 0; of 1 | 0.40; 0.26 | 0.40; 0.26 | 0.23; 0.45 | 0.22; 0.44 |
| variance between documents; within | 0.005; 0.154 | 0.004; 0.157 | 0.003; 0.160 | 0.004; 0.153 |
| the same of the difference of two doses | 0.000; 0.096 | 0.000; 0.093 | 0.000; 0.067 | 0.000; 0.066 |
| correlation of two doses | 0.70 | 0.71 | 0.80 | 0.79 |
| variance between CL seeds, one query | 0.003 | 0.003 | 0.002 | 0.003 |

Image and text correlate with 0.72 at the highest dose (simulated 0.73), their gains with 0.24 (0.23). The
checkpoint's own noise shows where doses are out of order: dose 9,600 lay below 4,800 by 0.029 on images and
by 0.024 on text, of which 0.011 are the queries'. Two such differences give about 0.017 for one checkpoint.
"""

import functools
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import norm

from stages.law.evidence import Evidence, Reading
from stages.law.laboratory import Laboratory, Scores


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations of the parts of a score; of `checkpoint`, in nDCG@10.

    Attributes:
        query, document: how hard they are, for every model and for images and text alike.
        query_side: how hard a query is for images, and for text, beside that.
        query_checkpoint: what a checkpoint changes for a query, on both sides; `_image`, `_text`: on one.
        document_checkpoint: what it changes for a whole document.
        query_seed: what a CL seed changes for a query.
        checkpoint: what a checkpoint differs by from its dose, for all queries and both sides.
    """

    query: float = 0.95
    document: float = 0.18
    query_side: float = 0.2
    query_checkpoint: float = 0.25
    query_checkpoint_image: float = 0.43
    query_checkpoint_text: float = 0.31
    document_checkpoint: float = 0.04
    query_seed: float = 0.065
    checkpoint: float = 0.017

    @property
    def total(self) -> float:
        """Standard deviation of an image's score over queries."""
        parts = (self.query, self.document, self.query_side, self.query_checkpoint)
        return float(np.hypot.reduce((*parts, self.query_checkpoint_image, self.document_checkpoint)))


@dataclass(frozen=True, kw_only=True)
class World:
    """A truth to simulate: what nDCG@10 gains from dose 0 to the highest dose, by what is done.

    `image` and `text`: CGP on the own pages; `shuffled`, `unrelated`: on those, for images; `compute`: more
    CL at dose 0. The gain of a dose is its share of the way to the highest one, in order of doses.
    """

    image: float = 0.0
    text: float = 0.0
    shuffled: float = 0.0
    unrelated: float = 0.0
    compute: float = 0.0
    noise: Noise = field(default_factory=Noise)


@dataclass(frozen=True, kw_only=True)
class Design:
    """The size of the sweep: that of recipe `tiny`."""

    doses: tuple[int, ...] = (0, 1_600, 3_200, 4_800, 6_400, 9_600, 12_800, 19_200)
    control_doses: tuple[int, ...] = (4_800, 19_200)
    seeds: int = 3
    queries_of_documents: tuple[int, ...] = (22, 23, 23, 26, 36, 40, 42, 44, 48, 54, 55, 76, 111)
    corpus: int = 600
    image_start: float = 0.35
    text_start: float = 0.59
    first_nats_per_byte: float = 4.0
    last_nats_per_byte: float = 0.2

    @property
    def documents(self) -> np.ndarray:
        """Document of each query."""
        return np.repeat(np.arange(len(self.queries_of_documents)), self.queries_of_documents)


def simulate(
    world: World, rng: np.random.Generator, design: Design | None = None
) -> tuple[Evidence, Laboratory]:
    """One sweep of this world: its doses, controls and equal compute, all after the primary CL."""
    design = design or Design()
    queries = _Queries(world.noise, design, rng)
    shares = np.linspace(0, 1, len(design.doses))
    cells = {
        (dose, "text-only"): {
            (direction, "ndcg@10"): scores
            for direction, scores in queries.checkpoint(world.image * share, world.text * share).items()
        }
        for dose, share in zip(design.doses, shares, strict=True)
    }

    def control(gain: float) -> dict[int, Scores]:
        return {
            dose: queries.checkpoint(gain * shares[design.doses.index(dose)], 0.0)
            for dose in design.control_doses
        }

    evidence = Evidence(
        doses=design.doses,
        target=tuple(_reading(design, share, rng) for share in shares),
        base=tuple(_reading(design, 1.0, rng) for _ in shares),
        cells=cells,
        seeds={"text-only": tuple(range(design.seeds))},
        baselines={
            "random": {"ndcg@10": np.full(len(design.documents), _random_ndcg(design.corpus))},
            "bm25": {"ndcg@10": np.ones(len(design.documents))},
        },
        queries=len(design.documents),
        corpus_size=design.corpus,
        corpus_pages=design.corpus,
        corpus_documents=len(design.queries_of_documents),
        documents=design.documents,
    )
    laboratory = Laboratory(
        controls={"shuffled": control(world.shuffled), "unrelated": control(world.unrelated)},
        equal_compute=queries.checkpoint(world.compute, 0.0),
        equal_compute_steps=1,
        critics={},
        ceilings={},
        adapters=(),
    )
    return evidence, laboratory


class _Queries:
    """The queries of one simulated test set, and what a checkpoint makes of them."""

    def __init__(self, noise: Noise, design: Design, rng: np.random.Generator) -> None:
        self.noise, self.design, self.rng = noise, design, rng
        count = len(design.documents)
        shared = rng.normal(0, noise.query, count) + self.of_documents(noise.document)
        self.difficulty = {
            side: shared + rng.normal(0, noise.query_side, count) for side in ("image", "text")
        }

    def of_documents(self, deviation: float) -> np.ndarray:
        """One draw for each document, by query."""
        return self.rng.normal(0, deviation, self.design.documents[-1] + 1)[self.design.documents]

    def checkpoint(self, image_gain: float, text_gain: float) -> Scores:
        """nDCG@10 ``[seeds, queries]`` by direction, of a checkpoint whose dose has these gains."""
        noise, rng, count = self.noise, self.rng, len(self.design.documents)
        own = rng.normal(0, noise.checkpoint)
        shared = rng.normal(0, noise.query_checkpoint, count) + self.of_documents(noise.document_checkpoint)
        starts = {"image": self.design.image_start + image_gain, "text": self.design.text_start + text_gain}
        apart = {"image": noise.query_checkpoint_image, "text": noise.query_checkpoint_text}
        found = {}
        for side, start in starts.items():
            score = _strength(start + own, noise.total, self.design.corpus) + self.difficulty[side] + shared
            score = score + rng.normal(0, apart[side], count)
            score = score + rng.normal(0, noise.query_seed, (self.design.seeds, count))
            found[f"query_to_{side}"] = _ndcg(score, self.design.corpus)
        return found


def _ndcg(scores: np.ndarray, corpus: int) -> np.ndarray:
    """nDCG@10 of pages with these scores among `corpus` - 1 others of N(0, 1), at their expected rank."""
    ranks = 1 + np.round((corpus - 1) * norm.sf(scores))
    return np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0)


def _strength(ndcg: float, deviation: float, corpus: int) -> float:
    """Mean score with which queries of this standard deviation have the mean nDCG@10."""
    return float(np.interp(ndcg, *_mean_ndcg(deviation, corpus)))


@functools.cache
def _mean_ndcg(deviation: float, corpus: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean nDCG@10 by mean score, and those scores."""
    strengths = np.linspace(0, 6, 121)
    spread = deviation * norm.ppf((np.arange(2_000) + 0.5) / 2_000)
    return _ndcg(strengths[:, None] + spread, corpus).mean(axis=1), strengths


def _random_ndcg(corpus: int) -> float:
    return float((1 / np.log2(np.arange(2, 12))).sum() / corpus)


def _reading(design: Design, share: float, rng: np.random.Generator) -> Reading:
    """Blocks read with a loss on the way, on a logarithmic scale, from the first to the last."""
    level = design.first_nats_per_byte * (design.last_nats_per_byte / design.first_nats_per_byte) ** share
    sizes = np.full(200, 50.0)
    ones = np.ones(1)
    return Reading(
        nats=sizes * level * rng.gamma(20, 1 / 20, 200), bytes=sizes, tokens=sizes, correct=sizes, edits=ones,
        characters=ones,
    )  # fmt: skip
