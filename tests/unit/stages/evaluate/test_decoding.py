"""Greedy decoding against transformers' own `generate`, and what the program commits."""

import pytest

from data_prep.shards import ShardSource
from stages.backbones.backbone import load_backbone
from stages.cells import Cell
from stages.evaluate import decoding, transcription
from stages.evaluate.config import TranscriptionSettings
from stages.evaluate.decoding import greedy_answers, greedy_transcriptions
from stages.evaluate.search_task import choose
from stages.recipes import get_recipe
from stages.train.sequences import SequenceBuilder
from tests.unit.stages.evaluate.transformers_decoding import answers_of_transformers

TINY = get_recipe("tiny")
LIMIT = 24


def by_transformers(backbone, prompts):
    """Tokens of each row up to the end token."""
    end = backbone.tokenizer.eos_token_id
    rows = answers_of_transformers(backbone, prompts, LIMIT).tolist()
    return [row[: row.index(end)] if end in row else row for row in rows]


@pytest.mark.parametrize("base", ["random", "committed"])
def test_answers_are_those_of_transformers_with_and_without_padding(backbone, samples, base):
    if base == "committed":  # reads, and so ends
        backbone = decoding_backbone()
    builder = SequenceBuilder(backbone)
    prompts = [builder.transcribe_image(sample.image(), None) for sample in samples]
    assert len({len(prompt) for prompt in prompts}) > 1
    alike = [prompt for prompt in prompts if len(prompt) == len(prompts[0])]
    for rows in (prompts, alike):
        assert greedy_answers(backbone, rows, [LIMIT] * len(rows)) == by_transformers(backbone, rows)


def decoding_backbone():
    return load_backbone(TINY.backbone.location, TINY.backbone)


def test_rows_that_have_ended_are_taken_out_and_the_others_go_on(backbone, samples, monkeypatch):
    """Whatever the share of rows at which they are."""
    backbone = decoding_backbone()
    builder = SequenceBuilder(backbone)
    prompts = [builder.transcribe_image(sample.image(), None) for sample in samples]
    answers = []
    for share in (0.0, 0.25, 1.0):
        monkeypatch.setattr(decoding, "FEWEST_ENDED", share)
        answers.append(greedy_answers(backbone, prompts, [LIMIT] * len(prompts)))
    assert answers[0] == answers[1] == answers[2]
    assert len({len(answer) for answer in answers[0]}) > 1


def test_order_and_batches_change_nothing_and_every_batch_is_told(backbone, samples):
    told = []
    written = greedy_transcriptions(backbone, samples, 3, lambda: told.append(None))
    assert len(told) == -(-len(samples) // 3)
    assert greedy_transcriptions(backbone, samples[::-1], 8) == written[::-1]


def test_the_program_commits_what_is_searched_and_some_of_the_base_language(run_program, split_folder):
    settings = TranscriptionSettings(
        backbone=TINY.backbone,
        test_samples=5,
        validation_samples=3,
        base_samples=2,
        batch_size=2,
    )
    ((written, again), events) = run_program(transcription, settings, [Cell(), Cell(dose=32)])
    assert written == again
    source = ShardSource(split_folder)
    for split, count in (("target_test", 5), ("target_validation", 3), ("base_test", 2)):
        assert list(written[split]) == [sample.key for sample in choose(source, count)]
    assert [event["done"] for event in events] == [0, 1, 2, 3, 3, 4, 5, 6]
