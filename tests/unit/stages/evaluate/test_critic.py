"""The generative critic: its matrix against one full forward a pair, its program against its parts."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
import torch

from data_prep.queries import Query
from infra.store import LocalStore
from stages.backbone import WORD_TOKEN_PREFIX
from stages.evaluate import critic
from stages.evaluate.bound import image_losses
from stages.evaluate.generation import measure_generation, teacher_forced
from stages.evaluate.likelihood import (
    blank_log_likelihoods,
    log_likelihoods,
    word_log_likelihoods,
)
from stages.evaluate.search_task import Candidate, SearchTask, build_task, candidates_of
from stages.recipes import get_recipe
from stages.train.sequences import SequenceBuilder
from tests.unit.stages.conftest import make_sample

CONFIG = get_recipe("tiny").evaluate


def scored(backbone, samples, texts) -> np.ndarray:
    return np.stack(list(log_likelihoods(backbone, [sample.image() for sample in samples], texts)))


@torch.no_grad()
def one_by_one(backbone, samples, texts) -> np.ndarray:
    """log p(text | image) [images, texts]: a forward of transformers' own for each pair, in float64 sums.

    transformers finds the M-RoPE positions itself.
    """
    builder = SequenceBuilder(backbone)
    image_token = backbone.model.config.image_token_id
    matrix = np.empty((len(samples), len(texts)))
    for row, sample in enumerate(samples):
        for column, text in enumerate(texts):
            pair = builder.transcribe_image(sample.image(), text)
            ids = torch.tensor([pair.ids])
            logits = backbone.model(
                input_ids=ids,
                pixel_values=torch.from_numpy(pair.patches),
                image_grid_thw=torch.tensor([pair.grid]),
                mm_token_type_ids=(ids == image_token).int(),
            ).logits[0, pair.label_start - 1 : -1]
            chosen = logits.double().log_softmax(dim=-1).gather(1, ids[0, pair.label_start :, None])
            matrix[row, column] = float(chosen.sum())
    return matrix


@torch.no_grad()
def words_one_by_one(backbone, samples, queries) -> np.ndarray:
    """log p(words of the query | image) [images, queries]: transformers' logits at the end of each page's
    summary prompt, and the buckets of words by their definition."""
    builder = SequenceBuilder(backbone)
    added = backbone.tokenizer.get_added_vocab()
    buckets = [added[token] for token in sorted(added) if token.startswith(WORD_TOKEN_PREFIX)]
    matrix = np.zeros((len(samples), len(queries)))
    for row, sample in enumerate(samples):
        page = builder.summarize_image(sample.image())
        ids = torch.tensor([page.ids])
        logits = backbone.model(
            input_ids=ids,
            pixel_values=torch.from_numpy(page.patches),
            image_grid_thw=torch.tensor([page.grid]),
            mm_token_type_ids=(ids == backbone.model.config.image_token_id).int(),
        ).logits[0, -1]
        chances = logits.double().log_softmax(dim=-1)
        for column, query in enumerate(queries):
            for word in query.lower().split():
                number = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
                matrix[row, column] += float(chances[buckets[number % len(buckets)]])
    return matrix


def test_words_are_scored_by_the_summary_of_the_page(backbone, samples):
    queries = ["Enter", "insert page insert", "a the A"]
    matrix = np.stack(list(word_log_likelihoods(backbone, [s.image() for s in samples], queries)))
    assert np.abs(matrix - words_one_by_one(backbone, samples, queries)).max() < 1e-4
    none = np.stack(list(word_log_likelihoods(backbone, [samples[0].image()], ["?!"])))
    assert none.tolist() == [[0.0]]


@pytest.mark.parametrize("positions", [8_192, 40])
def test_matrix_equals_one_forward_a_pair(backbone, samples, positions, monkeypatch):
    monkeypatch.setattr("stages.evaluate.likelihood.POSITIONS_AT_ONCE", positions)
    monkeypatch.setattr("stages.evaluate.likelihood.LABELS_AT_ONCE", 7)
    texts = [sample.text for sample in samples]
    matrix = scored(backbone, samples, texts)
    expected = one_by_one(backbone, samples, texts)
    assert np.abs(matrix - expected).max() < 1e-4
    # The images matter even to random weights: a matrix that forgot them would not pass.
    assert (np.ptp(expected, axis=0) > 0.01).all()


def test_diagonal_is_the_loss_of_generation_and_an_empty_text_is_its_end_token(backbone, samples):
    shown = [samples[0], dataclasses.replace(samples[1], text="")]
    matrix = scored(backbone, shown, [sample.text for sample in shown])
    read = teacher_forced(backbone, shown, batch_size=1)
    assert -matrix.diagonal() == pytest.approx([one.nats for one in read], abs=1e-4)
    assert read[1].tokens == 1


def test_blank_pages_are_white_and_of_the_same_size(backbone, samples):
    white = [make_sample(number, "") for number in range(len(samples))]
    texts = [sample.text for sample in samples]
    sizes = [(sample.width, sample.height) for sample in samples]
    assert len(set(sizes)) > 1
    expected = one_by_one(backbone, white, texts).diagonal()
    assert blank_log_likelihoods(backbone, sizes, texts) == pytest.approx(expected, abs=1e-4)


def test_what_a_sequence_cuts_is_not_counted(backbone):
    text = " ".join(["Chèn trang"] * 40)
    short = dataclasses.replace(backbone, contract=dataclasses.replace(backbone.contract, max_text_tokens=11))
    builder = SequenceBuilder(short)
    kept, whole = builder.kept_text(text), builder.kept_text("Chèn")
    answer = builder.repeat_text(text)
    assert short.tokenizer.encode(kept, add_special_tokens=False) == answer.ids[answer.label_start : -1]
    assert text.startswith(kept) and 0 < len(kept) < len(text) and whole == "Chèn"
    sample = make_sample(0, text)
    entry = measure_generation(short, [sample], dataclasses.replace(CONFIG, decoded_samples=1))
    [block], [decoded] = entry["per_block"], entry["per_decoded_block"]
    assert (block["bytes"], decoded["characters"]) == (len(kept.encode()), len(kept))
    candidates = [
        Candidate(sample=one, query=Query(identity=one.key, text="Enter", relevant=(one.key,)))
        for one in (sample, make_sample(1, "Enter"))
    ]
    entry = critic.measure_critic(short, candidates, on_image=lambda done: None, on_rest=lambda: None)
    assert entry["text"]["bytes"] == [len(kept.encode()), len("Enter")]


def test_entry_by_its_definitions(backbone, samples):
    queries = ["Enter", "Insert page"]
    candidates = [
        Candidate(sample=sample, query=Query(identity=text, text=text, relevant=(sample.key,)))
        for sample, text in zip(samples, queries, strict=False)
    ]
    done, rest = [], []
    entry = critic.measure_critic(
        backbone, candidates, on_image=done.append, on_rest=lambda: rest.append(len(done))
    )
    assert done == [1, 2] and len(rest) >= 3 and set(rest) == {2}  # blank pages, and the words under two
    assert entry["keys"] == [samples[0].key, samples[1].key]
    for kind, texts, naive in (
        ("text", [s.text for s in samples[:2]], one_by_one),
        ("query", queries, words_one_by_one),
    ):
        matrix = naive(backbone, samples[:2], texts)
        measured = entry[kind]
        assert measured["losses"] == pytest.approx(image_losses(matrix), abs=1e-4)
        assert measured["by_size"]["2"]["loss"] == pytest.approx(np.mean(measured["losses"]))
        own_first = [matrix[0, 0] > matrix[1, 0], matrix[1, 1] > matrix[0, 1]]
        assert measured["scores"]["per_query"]["recall@1"] == [float(first) for first in own_first]
        if kind == "text":
            assert measured["nats"] == pytest.approx(-matrix.diagonal(), abs=1e-4)
            assert measured["bytes"] == [len(text.encode()) for text in texts]


def test_no_candidate_answers_the_query_of_another(samples):
    first, second, third = (sample.key for sample in samples[:3])
    of = {"a": (first, second), "b": (second,), "c": (third, "not in the corpus"), "d": (third,)}
    task = SearchTask(
        corpus=list(samples),
        queries=[Query(identity=name, text=name, relevant=keys) for name, keys in of.items()],
    )
    chosen = candidates_of(task, 10)
    assert [(one.query.identity, one.sample.key) for one in chosen] == [("a", first), ("c", third)]
    assert candidates_of(task, 1) == chosen[:1]


def test_smaller_sizes_are_the_first_candidates():
    matrix = np.random.default_rng(0).normal(-50, 3, (20, 20))
    by_size = critic.summarise(matrix, [f"page-{number:02d}" for number in range(20)])["by_size"]
    assert list(by_size) == ["8", "16", "20"]
    for size, entry in by_size.items():
        first = matrix[: int(size), : int(size)]
        assert entry["loss"] == pytest.approx(image_losses(first).mean())
        assert np.log(int(size)) - entry["information"] == pytest.approx(entry["loss"], abs=1e-6)


@pytest.fixture
def job_file(backbone, split_folder, tmp_path):
    """A job of two cells of one model, over the split of the fixtures."""
    store = LocalStore(tmp_path / "store")
    with store.attempt("documents-test", "0" * 32) as attempt:
        shutil.copytree(split_folder, attempt.path, dirs_exist_ok=True)
        test = attempt.commit(inputs={}, configuration={}, counts={})
    backbone.save(tmp_path / "model")
    places = (("a" * 32, "target", 0), ("b" * 32, "shuffled", 32))
    job = {
        "recipe": dataclasses.asdict(dataclasses.replace(get_recipe("tiny"), evaluate=CONFIG)),
        "store": str(store.root),
        "metrics": str(tmp_path / "metrics.jsonl"),
        "inputs": {"target_test": str(test.path)},
        "cells": [
            {"fingerprint": name, "model": str(tmp_path / "model"), "pages": pages, "dose": dose}
            for name, pages, dose in places
        ],
        "processes_per_cell": 1,
        "provenance": {},
    }
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    return path


def test_the_program_commits_its_cells_and_tells_how_far_it_is(job_file, split_folder, monkeypatch):
    monkeypatch.setattr(critic, "watch_parent", lambda: None)
    monkeypatch.setattr(critic, "IMAGES_PER_REPORT", 3)
    critic.main(job_file)
    store = LocalStore(job_file.parent / "store")
    first, second = (
        json.loads((store.find("critic", name * 32).path / "critic.json").read_text()) for name in "ab"
    )
    assert (first.pop("pages"), first.pop("dose")) == ("target", 0)
    assert (second.pop("pages"), second.pop("dose")) == ("shuffled", 32)
    assert first == second
    candidates = candidates_of(build_task(split_folder, CONFIG), CONFIG.critic_candidates)
    assert first["keys"] == [candidate.sample.key for candidate in candidates]
    count = len(candidates)
    assert 3 < count <= 8
    assert {len(first["text"][name]) for name in ("nats", "nats_blank", "bytes")} == {count}
    for kind in ("text", "query"):
        assert len(first[kind]["losses"]) == count
        assert list(first[kind]["by_size"]) == [str(count)]
        assert first[kind]["by_size"][str(count)]["information"] <= np.log(count)
    events = [json.loads(line) for line in (job_file.parent / "metrics.jsonl").read_text().splitlines()]
    blocks = [*range(3, count, 3), count]
    assert [event["done"] for event in events] == blocks + [count + done for done in blocks]
    assert {event["total"] for event in events} == {2 * count}


def test_one_candidate_is_refused(job_file, monkeypatch):
    monkeypatch.setattr(critic, "watch_parent", lambda: None)
    job = json.loads(job_file.read_text())
    job["recipe"]["evaluate"]["critic_candidates"] = 1
    job_file.write_text(json.dumps(job))
    with pytest.raises(ValueError, match="two pages with text and a query"):
        critic.main(job_file)
