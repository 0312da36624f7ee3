"""The retrieval program: a sweep's cells, linear maps fitted on training pages, the contrastive loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.metrics import ndcg_score

from stages.cells import DIRECTIONS, Cell
from stages.evaluate import retrieval
from stages.evaluate.config import RetrievalSettings
from stages.evaluate.encoding import TaskEncoder
from stages.evaluate.retrieval import measure_contrastive
from stages.evaluate.search_task import build_task, candidates_of, training_task
from stages.recipes import ARMS, get_recipe
from stages.train.batches import collate
from stages.train.forward import embed
from stages.train.sequences import SequenceBuilder

TINY = get_recipe("tiny")
CONFIG = replace(TINY.evaluate, max_corpus=8, max_queries=8, neighbours=2, batch_size=3)
CONFIG = replace(CONFIG, fit_samples=6, projection_steps=3)
SETTINGS = RetrievalSettings(
    backbone=TINY.backbone, evaluate=CONFIG, temperature=0.05, batch_size=64, same_document_negatives=True
)
CELLS = {
    "before": Cell(split="test"),
    "whitened": Cell(arm=ARMS["whitening"], seed=0, split="test"),
    "projected": Cell(arm=ARMS["projection"], seed=0, split="test"),
    "other seed": Cell(arm=ARMS["projection"], seed=1, split="test"),
    "elsewhere": Cell(dose=32, pages="shuffled", arm=ARMS["text-only"], seed=2, steps=5, split="validation"),
}


@pytest.fixture
def committed(run_program):
    """What the program commits for `CELLS`, by their names here."""
    results, events = run_program(retrieval, SETTINGS, list(CELLS.values()))
    assert [event["done"] for event in events] == [1, 2, 3, 4, 5]
    return dict(zip(CELLS, results, strict=True))


@torch.no_grad()
def vectors(backbone, rows):
    builder = SequenceBuilder(backbone)
    sequences = [
        builder.summarize_text(row) if isinstance(row, str) else builder.summarize_image(row) for row in rows
    ]
    return np.stack([embed(backbone, collate([one], pad_token=0)).numpy()[0] for one in sequences])


def test_a_file_says_nothing_of_its_cell(committed):
    assert committed["before"] == committed["elsewhere"]  # of one model
    assert not committed["before"].keys() & vars(Cell()).keys()


def test_whitening_of_a_cell_is_that_of_scikit_learn_on_its_training_pages(committed, backbone, split_folder):
    chosen = training_task(split_folder, CONFIG).corpus
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
    found = committed["whitened"]["directions"]["query_to_image"]["per_query"]["ndcg@10"]
    assert found == pytest.approx(expected)
    assert found != committed["before"]["directions"]["query_to_image"]["per_query"]["ndcg@10"]
    assert committed["whitened"]["geometry"][:-1] == committed["before"]["geometry"][:-1]  # below the map
    for name in ("whitened", "projected"):
        assert committed[name]["geometry"][-1] != committed["before"]["geometry"][-1]
        assert committed[name]["baselines"] == committed["before"]["baselines"]


def test_another_seed_is_another_projection(committed):
    losses = [committed[name]["contrastive"]["query"]["losses"] for name in ("projected", "other seed")]
    assert losses[0] != losses[1]


def test_contrastive_loss_by_hand(committed, backbone, split_folder):
    task = build_task(split_folder, CONFIG)
    candidates = candidates_of(task, CONFIG.critic_candidates)
    found = committed["before"]["contrastive"]
    keys = [candidate.sample.key for candidate in candidates]
    assert found["keys"] == keys
    assert found["temperature"] == SETTINGS.temperature
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
    encoder = TaskEncoder(task, CONFIG)
    encoded = {kind: encoder.encode(backbone, kind) for kind in ("images", "texts", "queries")}
    everything = measure_contrastive(encoded, task, CONFIG, 0.05)
    first = replace(CONFIG, critic_candidates=3)
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


def test_a_file_has_every_direction_and_counts_what_was_searched(committed, backbone, split_folder):
    found, task = committed["before"], build_task(split_folder, CONFIG)
    assert tuple(found["directions"]) == DIRECTIONS
    assert len(found["query_ids"]) == len(found["query_documents"]) == len(task.queries)
    assert set(found["baselines"]) == {"random", "bm25"}
    assert found["corpus_documents"] <= found["corpus_pages"] <= found["corpus_size"] == len(task.corpus)
    for example in found["examples"]:
        right = [hit["key"] in example["relevant"] for hit in example["top"]]
        assert example["rank"] == right.index(True) + 1 if any(right) else example["rank"] > len(right)


def test_before_the_first_layer_all_vectors_are_one_and_are_not_compared(committed, backbone):
    before, *layers = committed["before"]["geometry"]
    assert [entry["layer"] for entry in layers] == [*range(1, backbone.shape.layers + 1)]
    measures = ("anisotropy_image", "anisotropy_text", "mutual_knn", "cka")
    assert [before[name] for name in measures] == [None] * 4
    assert all(layer[name] is not None for layer in layers for name in measures)
