"""The retrieval program: a sweep's cells, linear maps fitted on training pages, the contrastive loss."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.metrics import ndcg_score

from data_prep.shards import ShardSource
from infra.store import LocalStore
from stages.evaluate import retrieval
from stages.evaluate.encoding import TaskEncoder
from stages.evaluate.retrieval import measure_contrastive
from stages.evaluate.search_task import build_task, candidates_of
from stages.recipes import get_recipe
from stages.train.batches import collate
from stages.train.forward import embed
from stages.train.sequences import SequenceBuilder

TINY = get_recipe("tiny")
CONFIG = dataclasses.replace(
    TINY.evaluate,
    max_corpus=8,
    max_queries=8,
    neighbours=2,
    batch_size=3,
    fit_samples=6,
    projection_steps=3,
)
RECIPE = dataclasses.replace(TINY, evaluate=CONFIG)
CELLS = {
    "a": {"dose": 0, "seed": None, "arm": None, "steps": None, "split": "test", "pages": "target"},
    "b": {"dose": 0, "seed": 0, "arm": "whitening", "steps": None, "split": "test", "pages": "target"},
    "c": {"dose": 0, "seed": 0, "arm": "projection", "steps": None, "split": "test", "pages": "target"},
    "e": {"dose": 0, "seed": 1, "arm": "projection", "steps": None, "split": "test", "pages": "target"},
    "d": {"dose": 32, "seed": 2, "arm": "lr 0.003", "steps": 5, "split": "validation", "pages": "shuffled"},
}


@pytest.fixture
def committed(backbone, split_folder, tmp_path, monkeypatch):
    """What the program commits for `CELLS`, by their letter."""
    monkeypatch.setattr(retrieval, "watch_parent", lambda: None)
    store = LocalStore(tmp_path / "store")
    with store.attempt("documents-test", "0" * 32) as attempt:
        shutil.copytree(split_folder, attempt.path, dirs_exist_ok=True)
        split = attempt.commit(inputs={}, configuration={}, counts={})
    backbone.save(tmp_path / "model")
    common = {"model": str(tmp_path / "model"), "fit_pages": str(split.path)}
    job = {
        "recipe": dataclasses.asdict(RECIPE),
        "store": str(store.root),
        "metrics": str(tmp_path / "metrics.jsonl"),
        "inputs": {"evaluated": str(split.path)},
        "cells": [{"fingerprint": letter * 32, **common, **cell} for letter, cell in CELLS.items()],
        "processes_per_cell": 1,
        "provenance": {},
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    retrieval.main(tmp_path / "job.json")
    return {
        letter: json.loads((store.find("retrieval", letter * 32).path / "retrieval.json").read_text())
        for letter in CELLS
    }


@torch.no_grad()
def vectors(backbone, rows):
    builder = SequenceBuilder(backbone)
    sequences = [
        builder.summarize_text(row) if isinstance(row, str) else builder.summarize_image(row) for row in rows
    ]
    return np.stack([embed(backbone, collate([one], pad_token=0)).numpy()[0] for one in sequences])


def test_every_cell_says_where_it_belongs(committed):
    place = ("dose", "seed", "arm", "pages", "steps", "split")
    assert [tuple(cell[name] for name in place) for cell in committed.values()] == [
        (0, None, None, "target", None, "test"),
        (0, 0, "whitening", "target", None, "test"),
        (0, 0, "projection", "target", None, "test"),
        (0, 1, "projection", "target", None, "test"),
        (32, 2, "lr 0.003", "shuffled", 5, "validation"),
    ]
    before, again = ({k: v for k, v in committed[c].items() if k not in place} for c in "ad")
    assert before == again  # one model


def test_whitening_of_a_cell_is_that_of_scikit_learn_on_its_training_pages(committed, backbone, split_folder):
    training = retrieval.TrainingPages(split_folder, backbone, CONFIG)
    chosen = [sample for sample in ShardSource(split_folder) if sample.key in training.keys]
    assert len(chosen) == CONFIG.fit_samples
    fitted = vectors(backbone, [s.image() for s in chosen] + [s.text for s in chosen])
    estimate = LedoitWolf().fit(fitted.astype(np.float64))
    root = np.linalg.cholesky(estimate.precision_)
    task = build_task(split_folder, CONFIG)
    queries, images = (
        (vectors(backbone, rows) - estimate.location_) @ root
        for rows in ([query.text for query in task.queries], [s.image() for s in task.corpus])
    )
    cosines = queries @ images.T
    cosines /= np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(images, axis=1)
    relevant = np.array([[key in answers for key in task.corpus_ids] for answers in task.relevant])
    expected = [ndcg_score([truth], [row], k=10) for truth, row in zip(relevant, cosines, strict=True)]
    found = committed["b"]["directions"]["query_to_image"]["per_query"]["ndcg@10"]
    assert found == pytest.approx(expected)
    assert found != committed["a"]["directions"]["query_to_image"]["per_query"]["ndcg@10"]
    assert committed["b"]["geometry"][:-1] == committed["a"]["geometry"][:-1]  # below the map
    for letter in "bc":
        assert committed[letter]["geometry"][-1] != committed["a"]["geometry"][-1]
        assert committed[letter]["baselines"] == committed["a"]["baselines"]


def test_another_seed_is_another_projection(committed):
    losses = [committed[letter]["contrastive"]["query"]["losses"] for letter in "ce"]
    assert losses[0] != losses[1]


def test_contrastive_loss_by_hand(committed, backbone, split_folder):
    task = build_task(split_folder, CONFIG)
    candidates = candidates_of(task, CONFIG.critic_candidates)
    found = committed["a"]["contrastive"]
    keys = [candidate.sample.key for candidate in candidates]
    assert found["keys"] == keys
    assert found["temperature"] == TINY.refine.temperature
    images = vectors(backbone, [candidate.sample.image() for candidate in candidates])
    anchors = {
        "text": [candidate.sample.text for candidate in candidates],
        "query": [candidate.query.text for candidate in candidates],
    }
    for kind, texts in anchors.items():
        cosines = torch.tensor(vectors(backbone, texts) @ images.T)
        expected = torch.nn.functional.cross_entropy(
            cosines / found["temperature"], torch.arange(len(keys)), reduction="none"
        )
        assert found[kind]["losses"] == pytest.approx(expected.tolist(), abs=1e-4)
        assert found[kind]["by_size"] == {str(len(keys)): pytest.approx(float(expected.mean()), abs=1e-4)}
        gains = [
            ndcg_score([truth], [row], k=10) for truth, row in zip(np.eye(len(keys)), cosines, strict=True)
        ]
        assert found[kind]["ndcg@10"] == pytest.approx(gains)


def test_smaller_sizes_are_the_first_candidates(backbone, split_folder):
    task = build_task(split_folder, CONFIG)
    encoded = TaskEncoder(task, CONFIG).encode(backbone)
    everything = measure_contrastive(encoded, task, CONFIG, 0.05)
    first = dataclasses.replace(CONFIG, critic_candidates=3)
    few = measure_contrastive(encoded, task, first, 0.05)
    assert few["keys"] == everything["keys"][:3]
    rng = np.random.default_rng(0)
    cosines, names = rng.uniform(-1, 1, (20, 20)), [f"page-{number:02d}" for number in range(20)]
    found = retrieval._contrastive(cosines, names, 0.1)
    assert list(found["by_size"]) == ["8", "16", "20"]
    for size, loss in found["by_size"].items():
        logits = torch.tensor(cosines[: int(size), : int(size)] / 0.1)
        assert loss == pytest.approx(
            float(torch.nn.functional.cross_entropy(logits, torch.arange(int(size)))), abs=1e-9
        )
