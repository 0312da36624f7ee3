"""A simulated run with a laboratory: every part of a sweep, small, with a known truth."""

import numpy as np
from scipy.stats import norm

from stages.law.laboratory import AdapterReading, Bound, BudgetCurve, CriticReading, Laboratory, OtherTest
from tests.unit.stages.law.conftest import Run, from_ranks

DOSES = (0, 1600, 3200, 4800, 6400, 9600, 12800, 19200)
LOSSES = (4.1, 1.9, 1.2, 0.83, 0.6, 0.42, 0.31, 0.21)
RISING = (1.0, 1.05, 1.15, 1.25, 1.3, 1.45, 1.5, 1.7)
SEEDS = (0, 1, 2)
OTHER_ARMS = {
    "full fine-tuning": -0.1,
    "CLIP-style": -0.3,
    "adapter soup": 0.03,
    "whitening": -0.2,
    "projection": -0.15,
}
OTHER_TESTS = ("SeaHelp, English to Khmer", "SeaHelp, Vietnamese to Vietnamese")


class Sweep(Run):
    """`Run` with a sweep's arms, and what else it measures; how strong the controls are is the caller's."""

    def __init__(self, *, strengths=RISING, shuffled=0.0, budgets=(5, 10, 30, 60, 90, 120), queries=400):
        super().__init__(strengths=strengths, doses=DOSES, losses=LOSSES, seeds=SEEDS, queries=queries)
        self.shuffled, self.budgets = shuffled, budgets
        for arm, change in OTHER_ARMS.items():
            for dose in (DOSES[0], DOSES[-1]):
                seeds = SEEDS[:1] if arm in ("adapter soup", "whitening") else SEEDS
                self.retrieval += [self.arm_cell(dose, seed, arm, change) for seed in seeds]
        for cell in self.retrieval:
            self.shape_geometry(cell)

    def arm_cell(self, dose, seed, arm, change):
        kept, self.strengths = self.strengths, {dose: self.strengths[dose] + change}
        cell = self.retrieval_cell(dose, seed, "text-only") | {"arm": arm}
        self.strengths = kept
        return cell

    def shape_geometry(self, cell):
        """CKA as well; less of a cone with dose and after CL."""
        share = DOSES.index(cell["dose"]) / 7
        for number, layer in enumerate(cell["geometry"]):
            layer["cka"] = None if number == 0 else 0.2 + 0.15 * number * (0.5 + share)
            for name in ("anisotropy_image", "anisotropy_text"):
                if layer[name] is not None:
                    layer[name] *= (1 - 0.2 * share) * (0.7 if cell["arm"] else 1)

    def laboratory(self):
        rng, top = np.random.default_rng(5), DOSES[-1]
        first = self.strengths[0]
        return Laboratory(
            controls={
                "shuffled": {4800: self.scores(first), top: self.scores(first + self.shuffled)},
                "unrelated": {4800: self.scores(first), top: self.scores(first - 0.03)},
            },
            equal_compute=self.scores(first - 0.1, text=2.2),
            equal_compute_steps=4210,
            critics={("target", dose): critic(rng, share / 7) for share, dose in enumerate(DOSES)}
            | {("shuffled", top): critic(rng, 0.03), ("unrelated", top): critic(rng, 0.05)},
            ceilings={dose: self.budget_curve(strength) for dose, strength in self.strengths.items()},
            adapters=(
                adapter("rank 4, alpha 1", 4, 1, 0.412, rng.random((1, self.queries)) * 0.6, 0.215),
                adapter("text-only", 16, 4, 0.8421, rng.random((1, self.queries)) * 0.7, 0.231),
                adapter("rank 64, alpha 16", 64, 16, 1.936, rng.random((1, self.queries)) * 0.7, 0.287),
            ),
            other_tests=tuple(
                OtherTest(
                    name=name,
                    queries=300,
                    corpus_size=800,
                    scores={0: rng.random((3, 300)) * low, top: rng.random((3, 300)) * high},
                    random=0.0057,
                    bm25=bm25,
                    documents=np.arange(300) // 30,
                )
                for name, low, high, bm25 in zip(
                    OTHER_TESTS, (0.02, 0.3), (0.034, 0.8), (0.012, 0.71), strict=True
                )
            ),
        )

    def scores(self, strength, text=2.0):
        """nDCG@10 of three seeds, by direction."""
        return {
            direction: np.stack([from_ranks(self.ranks(level))["ndcg@10"] for _ in SEEDS])
            for direction, level in (("query_to_image", strength), ("query_to_text", text))
        }

    def budget_curve(self, strength):
        """Levels off after some 30 steps; seeds and budgets share their noise."""
        noise = np.random.default_rng(9).normal(0, 0.1, self.queries)

        def level(steps):
            score = strength + 0.4 * (1 - np.exp(-steps / 10)) + self.difficulty + noise
            return np.repeat(
                from_ranks(1 + np.round((self.corpus - 1) * norm.sf(score)))["ndcg@10"][None], 3, axis=0
            )

        scores = {steps: level(steps) for steps in self.budgets}
        return BudgetCurve(scores=scores, learning_rate=1e-3, validation={3e-4: 0.2, 1e-3: 0.24, 3e-3: 0.1})


def critic(rng, quality, count=128):
    """A critic from guessing (0) to good (1); CL reaches less on texts, as much on queries."""

    def bound(generative, contrastive):
        own, cl = rng.gamma(2, generative / 2, count), rng.gamma(2, contrastive / 2, (3, count))
        return Bound(
            generative=own,
            contrastive=cl,
            slack=0.21,
            by_size={
                n: tuple(
                    float(part * np.log(n) / np.log(count)) for part in (own[:n].mean(), cl[:, :n].mean())
                )
                for n in (8, 16, 32, 64, 128)
            },
        )

    def found(share, shape):
        return (rng.random(shape) < share * quality + 0.05).astype(float)

    sizes = rng.integers(20, 80, count).astype(float)
    return CriticReading(
        bounds={
            "text": bound(4.7 - 4.2 * quality, 4.8 - 3.6 * quality),
            "query": bound(4.7 - 2.6 * quality, 4.7 - 2.9 * quality),
        },
        nats_saved=(2.9 * quality + 0.01) * sizes * rng.uniform(0.5, 1.5, count),
        bytes=sizes,
        retrieval={"text": found(0.9, count), "query": found(0.6, count)},
        embedding_retrieval={"text": found(0.7, (3, count)), "query": found(0.6, (3, count))},
    )


def adapter(name, rank, alpha, weight_change, scores, nats_after):
    return AdapterReading(
        name=name, rank=rank, alpha=alpha, weight_change=weight_change, scores=scores, nats_before=0.2093,
        nats_after=nats_after,
    )  # fmt: skip
