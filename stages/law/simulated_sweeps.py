"""Simulated sweeps whose truth is known: what the verdict's error rates are measured on.

A query's page competes with pages of score N(0, 1); its own score is normal too, a sum of parts whose
standard deviations are in `Noise`. The rank follows from the score, nDCG@10 from the rank.

`Noise` was found by hand so that simulated sweeps have the moments of a real one, that of recipe `tiny`: 600
Vietnamese queries from 13 documents of 22 to 111, eight doses, three CL seeds, text-only CL. Per-query
nDCG@10, mean over the doses (documents by one-way analysis of variance; 40 simulated sweeps):

| moment | image, real | simulated | text, real | simulated |
|---|---|---|---|---|
| mean | 0.413 | 0.429 | 0.607 | 0.607 |
| share of 0; of 1 | 0.40; 0.26 | 0.39; 0.27 | 0.22; 0.45 | 0.22; 0.44 |
| variance between documents; within | 0.004; 0.155 | 0.003; 0.157 | 0.003; 0.158 | 0.004; 0.152 |
| the same of the difference of two doses | 0.000; 0.084 | 0.000; 0.086 | 0.000; 0.059 | 0.000; 0.059 |
| correlation of two doses | 0.74 | 0.73 | 0.82 | 0.81 |
| variance between CL seeds, one query | 0.003 | 0.003 | 0.002 | 0.003 |
| scatter of the doses around a line in log loss | 0.024 | 0.022 | 0.013 | 0.013 |

Image and text correlate with 0.61 (simulated 0.61), their gains with 0.24 (0.21). The last row of the table
is where the noise of checkpoints comes from: queries alone would scatter the doses by 0.008.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import norm

from stages.cells import PRIMARY_METRIC, Arm, Cell
from stages.law.measurements import Entry, Measurements, Searched, tidy

PRIMARY = Arm(name="text-only", kind="refinement")
EQUAL_COMPUTE = Arm(name="equal compute", kind="equal compute")
STEPS, MORE_STEPS = 30, 400
"""CL steps of the primary arm and of equal compute: names of cells, nothing depends on them."""

Scores = dict[str, np.ndarray]
"""Direction -> nDCG@10 ``[seeds, queries]``."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations of the parts of a score; of `checkpoint`, in nDCG@10.

    Attributes:
        query, document: how hard they are, for every model and for images and text alike.
        query_side: how hard a query is for images, and for text, beside that.
        query_checkpoint: what a checkpoint changes for a query, on both sides; `_image`, `_text`: on one.
        document_checkpoint: what it changes for a whole document.
        query_seed: what a CL seed changes for a query.
        checkpoint: what a pretrained checkpoint differs by from its dose, for all queries, on images.
        checkpoint_text: the share of that difference which shows on text.
    """

    query: float = 0.86
    document: float = 0.18
    query_side: float = 0.45
    query_checkpoint: float = 0.25
    query_checkpoint_image: float = 0.4
    query_checkpoint_text: float = 0.28
    document_checkpoint: float = 0.03
    query_seed: float = 0.06
    checkpoint: float = 0.022
    checkpoint_text: float = 0.5

    def total(self, own: float) -> float:
        """Standard deviation of a score over queries; `own`: what a checkpoint changes on its side."""
        shared = (self.query, self.document, self.query_side, self.query_checkpoint, self.document_checkpoint)
        return float(np.hypot.reduce((*shared, own)))


@dataclass(frozen=True, kw_only=True)
class World:
    """A truth to simulate: what nDCG@10 gains from dose 0 to the highest dose, by what is done.

    `image` and `text`: CGP on the own pages; `shuffled`, `unrelated`: on those, for images; `compute`: more
    CL at dose 0. Gains rise with the logarithm of the loss, as the law has it.
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
    image_start: float = 0.347
    text_start: float = 0.593
    nats_per_byte: tuple[float, ...] = (3.93, 1.77, 0.91, 0.73, 0.58, 0.38, 0.32, 0.21)
    shares_of_gain: tuple[float, ...] | None = None
    """By dose; None where retrieval follows the loss."""

    @property
    def shares(self) -> np.ndarray:
        """Share of the gain by dose: of the way that the logarithm of the loss goes, as the law has it."""
        if self.shares_of_gain is not None:
            return np.array(self.shares_of_gain)
        losses = np.log(self.nats_per_byte)
        return (losses[0] - losses) / (losses[0] - losses[-1])

    @property
    def documents(self) -> np.ndarray:
        """Document of each query."""
        return np.repeat(np.arange(len(self.queries_of_documents)), self.queries_of_documents)


def simulate(world: World, rng: np.random.Generator, design: Design | None = None) -> Measurements:
    """One sweep of this world: its doses, controls and equal compute, all after the primary CL."""
    design = design or Design()
    queries = Queries(world.noise, design, rng)
    shares = dict(zip(design.doses, design.shares, strict=True))
    entries: list[Entry] = []
    for dose, share in shares.items():
        scores = queries.scores(world.image * share, world.text * share, pretrained=dose > 0)
        entries += searched(Cell(dose=dose, arm=PRIMARY, steps=STEPS), scores)
    for corpus, losses in (("target", design.nats_per_byte), ("base", [1.0] * len(shares))):
        for dose, loss in zip(design.doses, losses, strict=True):
            entries += _read(Cell(dose=dose), corpus, loss, rng)
    for pages, gain in (("shuffled", world.shuffled), ("unrelated", world.unrelated)):
        for dose in design.control_doses:
            scores = queries.scores(gain * shares[dose], 0.0, pretrained=True)
            entries += searched(Cell(dose=dose, pages=pages, arm=PRIMARY, steps=STEPS), scores)
    scores = queries.scores(world.compute, 0.0, pretrained=False)
    entries += searched(Cell(arm=EQUAL_COMPUTE, steps=MORE_STEPS), scores)
    count = len(design.documents)
    baselines = {"random": np.full(count, _random_ndcg(design.corpus)), "bm25": np.ones(count)}
    test = Searched(
        queries=count,
        documents=design.documents,
        query_documents=len(design.queries_of_documents),
        corpus_size=design.corpus,
        corpus_pages=design.corpus,
        corpus_documents=len(design.queries_of_documents),
        baselines={name: {PRIMARY_METRIC: values} for name, values in baselines.items()},
    )
    return Measurements(
        table=tidy(entries),
        searched={"test": test},
        primary_arm=PRIMARY.name,
        steps=STEPS,
        contents={(stage, cell): {} for stage, cell, *_ in entries},
    )


def searched(cell: Cell, scores: Scores) -> Iterator[Entry]:
    """The rows of a cell's scores, one seed after the other."""
    for direction, by_seed in scores.items():
        for seed, values in enumerate(by_seed):
            yield "retrieval", replace(cell, seed=seed, split="test"), direction, PRIMARY_METRIC, values


class Queries:
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

    def scores(self, image_gain: float, text_gain: float, *, pretrained: bool) -> Scores:
        """nDCG@10 ``[seeds, queries]`` by direction, of a model with these gains over the base.

        The base is one model, the same in every arm: only what was pretrained differs from its dose.
        """
        noise, rng, count = self.noise, self.rng, len(self.design.documents)
        own = rng.normal(0, noise.checkpoint) if pretrained else 0.0
        shared = rng.normal(0, noise.query_checkpoint, count) + self.of_documents(noise.document_checkpoint)
        text = self.design.text_start + text_gain + own * noise.checkpoint_text
        sides = {
            "image": (self.design.image_start + image_gain + own, noise.query_checkpoint_image),
            "text": (text, noise.query_checkpoint_text),
        }
        found = {}
        for side, (mean, apart) in sides.items():
            score = _strength(mean, noise.total(apart), self.design.corpus) + self.difficulty[side] + shared
            score = score + rng.normal(0, apart, count)
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


def _read(cell: Cell, corpus: str, nats_per_byte: float, rng: np.random.Generator) -> Iterator[Entry]:
    """Blocks of 50 bytes that are read with this loss, more or less."""
    sizes, ones = np.full(200, 50.0), np.ones(1)
    nats = sizes * nats_per_byte * rng.gamma(20, 1 / 20, 200)
    blocks = {"nats": nats, "edits": ones, "characters": ones}
    for name, values in (blocks | dict.fromkeys(("bytes", "tokens", "correct"), sizes)).items():
        yield "generation", cell, corpus, name, values
