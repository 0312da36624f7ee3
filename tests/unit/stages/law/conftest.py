"""Simulated runs: generation.json and retrieval.json contents with a known truth."""

import numpy as np
import pytest
from scipy.stats import norm

DOSES = (0, 300, 900, 2400)
LOSSES = (4.1, 0.9, 0.42, 0.21)


def scores_json(values):
    def summary(name):
        return {"mean": float(values[name].mean()), "low": 0.0, "high": 1.0}

    per_query = {name: column.tolist() for name, column in values.items()}
    return {name: summary(name) for name in values} | {"per_query": per_query}


def from_ranks(ranks):
    """Every metric of a query with one relevant page at ``ranks`` (counted from 1)."""
    return {
        "ndcg@10": np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0),
        **{f"recall@{k}": (ranks <= k).astype(float) for k in (1, 5, 10)},
        "mrr": 1 / ranks,
    }


class Run:
    """A run whose retrieval strength per dose is known: a query's score exceeds the other pages' N(0, 1) scores."""

    def __init__(self, *, strengths, doses=DOSES, losses=LOSSES, queries=400, seeds=(0, 1), rng=0, corpus=400):
        self.rng = np.random.default_rng(rng)
        self.doses, self.losses, self.seeds, self.corpus, self.queries = doses, losses, seeds, corpus, queries
        self.difficulty = self.rng.normal(0, 1, queries)
        self.strengths = dict(zip(doses, strengths, strict=True))
        self.generation = [self.generation_cell(dose, loss) for dose, loss in zip(doses, losses, strict=True)]
        self.retrieval = [self.retrieval_cell(dose, None, None) for dose in doses]
        for arm in ("text-only", "multimodal-20"):
            self.retrieval += [self.retrieval_cell(dose, seed, arm) for dose in doses for seed in seeds]

    def generation_cell(self, dose, loss):
        def corpus(level, error):
            sizes = self.rng.integers(20, 80, 300)
            nats = sizes * level * self.rng.gamma(20, 1 / 20, 300)
            blocks = [
                {"key": f"b{i}", "nats": n, "bytes": int(b)} for i, (n, b) in enumerate(zip(nats, sizes, strict=True))
            ]
            return {
                "nats_per_byte": float(nats.sum() / sizes.sum()), "token_accuracy": float(np.exp(-level / 3)),
                "character_error_rate": error, "blocks": 300, "decoded_blocks": 64, "per_block": blocks, "examples": [],
            }  # fmt: skip

        base = 0.08 + 0.02 * self.doses.index(dose)
        return {
            "dose": dose, "corpora": {"target": corpus(loss, min(0.95, loss / 4)), "base": corpus(base, base / 3)}
        }  # fmt: skip

    def ranks(self, strength, noise=0.3):
        score = strength + self.difficulty + self.rng.normal(0, noise, self.queries)
        return 1 + self.rng.binomial(self.corpus - 1, norm.sf(score))

    def retrieval_cell(self, dose, seed, arm):
        after = {None: -0.1, "text-only": 0.0, "multimodal-20": 0.15}[arm]
        strength = self.strengths[dose] + after
        ids = [f"q{i}" for i in range(self.queries)]
        layers = [
            {"layer": layer, "anisotropy_image": 0.8 - 0.1 * layer, "anisotropy_text": 0.7 - 0.1 * layer,
             "mutual_knn": 0.03 + 0.02 * layer * (1 + self.doses.index(dose))}
            for layer in range(4)
        ]  # fmt: skip
        random = {
            name: np.full(self.queries, level)
            for name, level in zip(
                ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr"),
                (0.0114, 0.0025, 0.0125, 0.025, 0.0164),
                strict=True,
            )
        }
        return {
            "dose": dose, "seed": seed, "arm": arm, "corpus_size": self.corpus, "query_ids": ids,
            "query_documents": [f"document-{i // 4}" for i in range(self.queries)],
            "directions": {
                "query_to_image": scores_json(from_ranks(self.ranks(strength))),
                "query_to_text": scores_json(from_ranks(self.ranks(2.0))),
                "text_to_image": scores_json(from_ranks(self.ranks(strength + 1.5))) | {"ids": ids},
            },
            "baselines": {"random": scores_json(random), "bm25": scores_json(from_ranks(self.ranks(2.6)))},
            "geometry": layers, "chance_mutual_knn": 10 / (self.corpus - 1), "examples": [],
        }  # fmt: skip


@pytest.fixture(scope="session")
def simulate():
    return Run
