"""The cells of a simulated sweep, as the stages write them: the law's own and those of the laboratory."""

import numpy as np

from stages.law.read_laboratory import read_laboratory
from tests.unit.stages.law.conftest import LAW, STEPS, Run, from_ranks, scores_json

BUDGETS = (5, 10, 30, 60)
CANDIDATES = 16
KEYS = [f"k{i}" for i in range(CANDIDATES)]


def read_sweep(sweep):
    """The laboratory of a simulated sweep, read as the stage reads it."""
    return read_laboratory(
        sweep.cells, primary_arm="text-only", steps=STEPS, minimum_documents=LAW.minimum_documents
    )


class Sweep(Run):
    """A run with controls of known strength: `shuffled` and `unrelated` at the highest dose and one below,
    `equal` compute at dose 0. Strengths are those of `Run`."""

    def __init__(self, *, strengths, shuffled=0.55, unrelated=0.5, equal=0.55, **settings):
        super().__init__(strengths=strengths, **settings)
        self.refine = []
        top, below = self.doses[-1], self.doses[-2]
        self.retrieval = [self.placed(cell, steps=STEPS if cell["arm"] else None) for cell in self.retrieval]
        for cell in self.retrieval:
            if cell["arm"] == "text-only":
                self.train(cell, 1e-3)
        for pages, strength in (("shuffled", shuffled), ("unrelated", unrelated)):
            for dose in (below, top):
                for seed in self.seeds:
                    self.add("text-only", dose, seed, strength, pages=pages)
        for seed in self.seeds:
            self.add("equal compute", 0, seed, equal, steps=400)
        for dose in self.doses:
            self.budgets(dose)
        self.critic = [
            self.critic_cell("target", dose, loss) for dose, loss in zip(self.doses, self.losses, strict=True)
        ]
        self.critic.append(self.critic_cell("shuffled", top, 3.0))
        self.adapters(top)
        for dose in (0, top):
            for seed in self.seeds:
                other = self.add("text-only", dose, seed, self.strengths[dose] - 1, split="Khmer")
                other["query_ids"] = [f"km{i}" for i in range(self.queries)]

    @property
    def cells(self):
        return {name: getattr(self, name) for name in ("generation", "retrieval", "critic", "refine")}

    def placed(self, cell, *, pages="target", split="test", steps=STEPS):
        losses = self.rng.gamma(4, 0.1, CANDIDATES)
        kind = {
            "losses": losses.tolist(),
            "by_size": {"8": losses[:8].mean(), "16": losses.mean()},
            "ndcg@10": self.rng.random(CANDIDATES).tolist(),
        }
        contrastive = {"keys": KEYS, "text": kind, "query": kind, "temperature": 0.05}
        return cell | {"pages": pages, "split": split, "steps": steps, "contrastive": contrastive}

    def add(self, arm, dose, seed, strength, **place):
        kept, self.strengths = self.strengths, {dose: strength}
        known = self.doses
        cell = self.placed(self.retrieval_cell(dose, seed, "text-only") | {"arm": arm}, **place)
        self.strengths, self.doses = kept, known
        self.retrieval.append(cell)
        return cell

    def train(self, cell, learning_rate, rank=16, alpha=4):
        self.refine.append(
            {name: cell[name] for name in ("dose", "pages", "seed", "arm", "steps")}
            | {"learning_rate": learning_rate, "lora_rank": rank, "lora_alpha": alpha, "weight_change": 1.5}
            | {"padding_share": 0.25, "trained": "adapter", "flops": 1.0e9}
        )

    def budgets(self, dose):
        """Validation chooses the rate 0.003; only it has every budget and seed on the test split."""
        for arm, rate, worse in (("text-only", 1e-3, 0.1), ("lr 0.003", 3e-3, 0.0)):
            for steps in BUDGETS:
                strength = self.strengths[dose] + 0.4 * (1 - np.exp(-steps / 8)) - worse
                cell = self.add(arm, dose, 0, strength, split="validation", steps=steps)
                cell["query_ids"] = [f"v{i}" for i in range(self.queries)]
                if (arm, steps) != ("text-only", STEPS):
                    self.train(cell, rate)
                if arm != "text-only":
                    for seed in self.seeds:
                        self.add(arm, dose, seed, strength, steps=steps)

    def critic_cell(self, pages, dose, loss):
        losses = self.rng.gamma(4, loss / 8, CANDIDATES)
        kind = {
            "losses": losses.tolist(),
            "by_size": {
                "8": {"loss": losses[:8].mean()},
                "16": {"loss": losses.mean()},
            },
            "slack": 0.02,
            "scores": scores_json(from_ranks(1 + self.rng.binomial(CANDIDATES - 1, 0.05, CANDIDATES))),
        }
        of_text = {
            "nats": [10.0] * CANDIDATES,
            "nats_blank": [10.0 + 30 / (1 + loss)] * CANDIDATES,
            "bytes": [20] * CANDIDATES,
        }
        return {"pages": pages, "dose": dose, "keys": KEYS, "text": kind | of_text, "query": kind}

    def adapters(self, top):
        """Two sizes beside the primary one, first seed; generation after each, and after the primary."""
        for rank, alpha in ((4, 1), (64, 16)):
            self.train(self.add(f"rank {rank}, alpha {alpha}", top, 0, 1.0), 1e-3, rank, alpha)
        before = next(cell for cell in self.generation if cell["dose"] == top)
        for arm in ("text-only", "rank 4, alpha 1", "rank 64, alpha 16"):
            self.generation.append(before | {"arm": arm, "seed": 0, "steps": STEPS, "pages": "target"})
