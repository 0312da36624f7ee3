"""The generative critic: its matrix against one full forward a pair, its program against its parts."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.backbones.config import WORD_TOKEN_PREFIX
from stages.cells import Cell
from stages.evaluate import critic
from stages.evaluate.candidate_matrix import first_candidates, image_losses
from stages.evaluate.config import CriticSettings
from stages.evaluate.generation import measure_generation, teacher_forced
from stages.evaluate.likelihood import blank_log_likelihoods, log_likelihoods, word_log_likelihoods
from stages.evaluate.search_task import build_task, candidates_of
from stages.recipes import get_recipe
from stages.train.sequences import SequenceBuilder
from tests.unit.stages.conftest import make_sample
from tests.unit.stages.evaluate.conftest import logits_of

TINY = get_recipe("tiny")
CONFIG = TINY.evaluate.search
SETTINGS = CriticSettings(backbone=TINY.backbone, search=CONFIG)


def scored(backbone, samples, texts, by=log_likelihoods) -> np.ndarray:
    return np.stack([*by(backbone, [sample.image() for sample in samples], texts)])


def log_chances(backbone, sequence) -> torch.Tensor:
    return logits_of(backbone, sequence).double().log_softmax(dim=-1)


def one_by_one(backbone, samples, texts) -> np.ndarray:
    """log p(text | image) [images, texts]: a forward for each pair, in float64 sums."""
    builder = SequenceBuilder(backbone)
    matrix = np.empty((len(samples), len(texts)))
    for row, sample in enumerate(samples):
        for column, text in enumerate(texts):
            pair = builder.transcribe_image(sample.image(), text)
            answer = torch.tensor(pair.ids[pair.label_start :])
            chances = log_chances(backbone, pair)[pair.label_start - 1 : -1]
            matrix[row, column] = float(chances.gather(1, answer[:, None]).sum())
    return matrix


def words_one_by_one(backbone, samples, queries) -> np.ndarray:
    """log p(words of the query | image) [images, queries]: chances at the end of each page's summary prompt,
    and the buckets of words by their definition."""
    builder = SequenceBuilder(backbone)
    added = backbone.tokenizer.get_added_vocab()
    buckets = [added[token] for token in sorted(added) if token.startswith(WORD_TOKEN_PREFIX)]
    matrix = np.zeros((len(samples), len(queries)))
    for row, sample in enumerate(samples):
        chances = log_chances(backbone, builder.summarize_image(sample.image()))[-1]
        for column, query in enumerate(queries):
            for word in query.lower().split():
                number = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
                matrix[row, column] += float(chances[buckets[number % len(buckets)]])
    return matrix


def test_words_are_scored_by_the_summary_of_the_page(backbone, samples):
    queries = ["Enter", "insert page insert", "a the A"]
    matrix = scored(backbone, samples, queries, by=word_log_likelihoods)
    assert np.abs(matrix - words_one_by_one(backbone, samples, queries)).max() < 1e-4
    assert scored(backbone, samples[:1], ["?!"], by=word_log_likelihoods) == [[0.0]]


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
    shown = [samples[0], replace(samples[1], text="")]
    matrix = scored(backbone, shown, [sample.text for sample in shown])
    read = teacher_forced(backbone, shown, batch_size=1)
    assert -matrix.diagonal() == pytest.approx([one["nats"] for one in read], abs=1e-4)
    assert read[1]["tokens"] == 1


def test_blank_pages_are_white_and_of_the_same_size(backbone, samples):
    white = [make_sample(number, "") for number in range(len(samples))]
    texts = [sample.text for sample in samples]
    sizes = [(sample.width, sample.height) for sample in samples]
    assert len(set(sizes)) > 1
    expected = one_by_one(backbone, white, texts).diagonal()
    assert blank_log_likelihoods(backbone, sizes, texts) == pytest.approx(expected, abs=1e-4)


def test_what_a_sequence_cuts_is_not_counted(backbone):
    text = " ".join(["Chèn trang"] * 40)
    short = replace(backbone, contract=replace(backbone.contract, max_text_tokens=11))
    builder = SequenceBuilder(short)
    kept, whole = builder.kept_text(text), builder.kept_text("Chèn")
    answer = builder.repeat_text(text)
    assert short.tokenizer.encode(kept, add_special_tokens=False) == answer.ids[answer.label_start : -1]
    assert text.startswith(kept) and 0 < len(kept) < len(text) and whole == "Chèn"
    sample = make_sample(0, text)
    entry = measure_generation(short, [sample], {sample.key: text}, batch_size=1)
    [block], [decoded] = entry["per_block"], entry["per_decoded_block"]
    assert (block["bytes"], decoded["characters"]) == (len(kept.encode()), len(kept))
    pages = [sample, make_sample(1, "Enter")]
    entry = critic.measure_critic(short, pages, ["Enter", "?"], on_image=print, on_rest=print)
    assert entry["text"]["bytes"] == [len(kept.encode()), len("Enter")]


def test_entry_by_its_definitions(backbone, samples):
    queries = ["Enter", "Insert page"]
    done, rest = [], []
    entry = critic.measure_critic(
        backbone, samples[:2], queries, on_image=done.append, on_rest=lambda: rest.append(len(done))
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


def test_smaller_sizes_are_the_first_candidates():
    matrix = np.random.default_rng(0).normal(-50, 3, (20, 20))
    by_size = critic.summarise(matrix, [f"page-{number:02d}" for number in range(20)])["by_size"]
    for size, first in first_candidates(matrix).items():
        loss, information = by_size[size]["loss"], by_size[size]["information"]
        assert loss == pytest.approx(image_losses(first).mean())
        assert np.log(int(size)) - information == pytest.approx(loss, abs=1e-6)


def test_the_program_commits_its_cells_and_tells_how_far_it_is(run_program, split_folder, queries_folder):
    cells = [Cell(), Cell(dose=32, pages="shuffled")]
    (first, second), events = run_program(critic, SETTINGS, cells)
    assert first == second  # of one model: a file says nothing of its cell
    task = build_task(split_folder, queries_folder, CONFIG)
    rows = candidates_of(task, CONFIG.critic_candidates)
    assert first["keys"] == [task.corpus_ids[row] for _, row in rows]
    count = len(rows)
    assert 3 < count <= 8
    assert {len(first["text"][name]) for name in ("nats", "nats_blank", "bytes")} == {count}
    for kind in ("text", "query"):
        assert len(first[kind]["losses"]) == count and list(first[kind]["by_size"]) == [str(count)]
    assert sorted({event["done"] for event in events}) == list(range(1, 2 * count + 1))
    assert {event["total"] for event in events} == {2 * count}


def test_one_candidate_is_refused(run_program):
    alone = replace(SETTINGS, search=replace(CONFIG, critic_candidates=1))
    with pytest.raises(ValueError, match="two pages with text and a query"):
        run_program(critic, alone, [Cell()])
