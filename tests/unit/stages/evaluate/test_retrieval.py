"""The retrieval program: a sweep's cells, linear maps fitted on training pages, the contrastive loss."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.metrics import ndcg_score

from data_prep.queries import words_of
from stages.cells import DIRECTIONS, Cell
from stages.evaluate import retrieval
from stages.evaluate.config import (
    LinearMapConfig,
    LinearMapSettings,
    ReadingsConfig,
    RetrievalConfig,
    RetrievalSettings,
    SearchConfig,
)
from stages.evaluate.encoding import KINDS, TaskEncoder
from stages.evaluate.search_task import build_task, candidates_of, training_task
from stages.recipes import ARMS, get_recipe
from stages.train.batches import collate
from stages.train.forward import embed
from stages.train.sequences import SequenceBuilder
from stages.train.words import SalientWords
from tests.unit.stages.evaluate.conftest import logits_of

TINY = get_recipe("tiny")
CONFIG = SearchConfig(max_corpus=8, max_queries=8)
MAPS = LinearMapConfig(samples=6, projection_steps=3)
SETTINGS = RetrievalSettings(
    backbone=TINY.backbone,
    search=CONFIG,
    retrieval=RetrievalConfig(neighbours=2),
    readings=ReadingsConfig(kept_words=64, validation_corpus=8, validation_queries=8),
    batch_size=3,
    temperature=0.05,
    linear_map=LinearMapSettings(config=MAPS, batch_size=64, same_document_negatives=True),
)
CELLS = {
    "before": Cell(split="test"),
    "whitened": Cell(arm=ARMS["whitening"], seed=0, split="test"),
    "projected": Cell(arm=ARMS["projection"], seed=0, split="test"),
    "other seed": Cell(arm=ARMS["projection"], seed=1, split="test"),
    "elsewhere": Cell(dose=32, pages="shuffled", arm=ARMS["text-only"], seed=2, steps=5, split="validation"),
}


@torch.no_grad()
def vectors(backbone, rows):
    builder = SequenceBuilder(backbone)
    sequences = [
        builder.summarize_text(row) if isinstance(row, str) else builder.summarize_image(row) for row in rows
    ]
    return np.stack([embed(backbone, collate([one], pad_token=0)).numpy()[0] for one in sequences])


def gains(truth, scores):
    return [ndcg_score([wanted], [row], k=10) for wanted, row in zip(truth, scores, strict=True)]


def test_the_program_commits_its_cells(run_program, backbone, split_folder, queries_folder):
    results, events = run_program(retrieval, SETTINGS, list(CELLS.values()))
    assert [event["done"] for event in events] == [1, 2, 3, 4, 5]
    committed = dict(zip(CELLS, results, strict=True))
    task = build_task(split_folder, queries_folder, CONFIG)
    found = committed["before"]
    # A file says nothing of its cell: all are of one model.
    assert found == committed["elsewhere"] and not found.keys() & vars(Cell()).keys()
    assert tuple(found["directions"]) == DIRECTIONS
    assert len(found["query_ids"]) == len(found["query_documents"]) == len(task.queries)
    assert found["corpus_documents"] <= found["corpus_pages"] <= found["corpus_size"] == len(task.corpus)
    for example in found["examples"]:
        right = [hit["key"] in example["relevant"] for hit in example["top"]]
        assert example["rank"] == right.index(True) + 1 if any(right) else example["rank"] > len(right)
    # Before the first layer all vectors are one, and are not compared.
    before, *layers = found["geometry"]
    assert [entry["layer"] for entry in layers] == [*range(1, backbone.shape.layers + 1)]
    measures = ("anisotropy_image", "anisotropy_text", "mutual_knn", "cka")
    assert [before[name] for name in measures] == [None] * 4
    assert all(layer[name] is not None for layer in layers for name in measures)
    # Of a linear map only the last layer and what is searched with it are its own.
    for name in ("whitened", "projected"):
        assert committed[name]["geometry"][:-1] == found["geometry"][:-1]
        assert committed[name]["geometry"][-1] != found["geometry"][-1]
        assert committed[name]["baselines"] == found["baselines"]
    assert set(found["baselines"]) == {"random", "bm25"}
    losses = [committed[name]["contrastive"]["query"]["losses"] for name in ("projected", "other seed")]
    assert losses[0] != losses[1]


@torch.no_grad()
def test_a_cell_with_a_transcription_is_read_in_every_way(
    run_program, backbone, split_folder, queries_folder
):
    task = build_task(split_folder, queries_folder, CONFIG)
    written = {sample.key: sample.text.upper() for sample in task.corpus}
    transcription = dict.fromkeys(("target_test", "target_validation"), written)
    ((found,), _) = run_program(retrieval, SETTINGS, [CELLS["before"]], transcription=transcription)
    parts = ("lexical", "transcribed", "trigrams")
    assert tuple(found["readings"]) == (*parts, "fused", "fused equally", "late interaction")
    # It writes what is there: BM25 finds what it finds on the text layer.
    assert found["readings"]["transcribed"] == found["baselines"]["bm25"]
    # Validation and test are one split here: the chosen weights are no worse than a part or the mean.
    means = {name: one["means"]["ndcg@10"] for name, one in found["readings"].items()}
    assert means["fused"] >= max(means[name] for name in (*parts, "fused equally"))
    assert found["fusion"]["validation"]["transcribed"] == means["transcribed"]
    assert sum(found["fusion"]["weights"].values()) == pytest.approx(1)

    builder, words = SequenceBuilder(backbone), SalientWords.fit([], backbone.tokenizer)
    logs = []
    for sample in task.corpus:
        prompt = builder.summarize_image(sample.image())
        logs.append(logits_of(backbone, prompt)[-1][list(words.tokens)].log_softmax(dim=-1).numpy())
    asked = [words_of(query.text.casefold()) for query in task.queries]
    likelihoods = [
        [sum(page[words.numbers_of(word)].mean() for word in of_query) for page in logs] for of_query in asked
    ]
    truth = np.array([[key in answers for key in task.corpus_ids] for answers in task.relevant])
    assert found["readings"]["lexical"]["per_query"]["ndcg@10"] == pytest.approx(gains(truth, likelihoods))


def test_whitening_is_that_of_scikit_learn_on_the_training_pages(
    run_program, backbone, split_folder, queries_folder
):
    ((whitened, before), _) = run_program(retrieval, SETTINGS, [CELLS["whitened"], CELLS["before"]])
    chosen = training_task(split_folder, queries_folder, MAPS.samples).corpus
    assert len(chosen) == MAPS.samples
    fitted = vectors(backbone, [s.image() for s in chosen] + [s.text for s in chosen])
    estimate = LedoitWolf().fit(fitted.astype(np.float64))
    task, root = build_task(split_folder, queries_folder, CONFIG), np.linalg.cholesky(estimate.precision_)
    queries, images = (
        (vectors(backbone, rows) - estimate.location_) @ root
        for rows in ([query.text for query in task.queries], [s.image() for s in task.corpus])
    )
    cosines = queries @ images.T
    cosines /= np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(images, axis=1)
    truth = np.array([[key in answers for key in task.corpus_ids] for answers in task.relevant])
    found = whitened["directions"]["query_to_image"]["per_query"]["ndcg@10"]
    assert found == pytest.approx(gains(truth, cosines))
    assert found != before["directions"]["query_to_image"]["per_query"]["ndcg@10"]


@torch.no_grad()
def test_contrastive_loss_of_the_candidates_by_hand(backbone, split_folder, queries_folder):
    task = build_task(split_folder, queries_folder, CONFIG)
    encoder = TaskEncoder(task, batch_size=3)
    encoded = {kind: encoder.encode(backbone, kind) for kind in KINDS}
    found = retrieval.measure_contrastive(encoded, task, CONFIG.critic_candidates, SETTINGS.temperature)
    rows = candidates_of(task, CONFIG.critic_candidates)
    pages, keys = [task.corpus[row] for _, row in rows], [task.corpus_ids[row] for _, row in rows]
    assert (found["keys"], found["temperature"]) == (keys, SETTINGS.temperature)
    images = vectors(backbone, [page.image() for page in pages])
    anchors = {
        "text": [page.text for page in pages],
        "query": [task.queries[number].text for number, _ in rows],
    }
    for kind, texts in anchors.items():
        cosines = torch.tensor(vectors(backbone, texts) @ images.T)
        expected = torch.nn.functional.cross_entropy(
            cosines / found["temperature"], torch.arange(len(keys)), reduction="none"
        )
        assert found[kind]["losses"] == pytest.approx(expected.tolist(), abs=1e-4)
        assert found[kind]["by_size"] == {str(len(keys)): pytest.approx(float(expected.mean()), abs=1e-4)}
        assert found[kind]["ndcg@10"] == pytest.approx(gains(np.eye(len(keys)), cosines))
    few = retrieval.measure_contrastive(encoded, task, 3, 0.05)
    assert few["keys"] == keys[:3]


def test_smaller_sizes_are_the_first_candidates():
    cosines = np.random.default_rng(0).uniform(-1, 1, (20, 20))
    found = retrieval.contrastive(cosines, [f"page-{number:02d}" for number in range(20)], 0.1)
    assert list(found["by_size"]) == ["8", "16", "20"]
    for size, loss in found["by_size"].items():
        logits = torch.tensor(cosines[: int(size), : int(size)] / 0.1)
        expected = torch.nn.functional.cross_entropy(logits, torch.arange(int(size)))
        assert loss == pytest.approx(float(expected), abs=1e-9)
