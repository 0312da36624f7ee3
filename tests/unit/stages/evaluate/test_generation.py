"""Nats and edits against transformers' own forward passes and hand computations."""

import pytest
import torch

from data_prep.shards import ShardSource
from stages.cells import Cell
from stages.evaluate import generation
from stages.evaluate.config import GenerationConfig, GenerationSettings
from stages.evaluate.generation import character_edits, teacher_forced
from stages.evaluate.search_task import choose
from stages.recipes import get_recipe
from stages.train.sequences import SequenceBuilder
from tests.unit.stages.evaluate.conftest import logits_of

TINY = get_recipe("tiny")


def test_the_program_commits_its_cells_and_tells_how_far_it_is(run_program, split_folder, samples):
    few = GenerationConfig(samples=4, decoded_samples=2)
    written = {sample.key: sample.text + "x" for sample in choose(ShardSource(split_folder), 2)}
    settings = GenerationSettings(backbone=TINY.backbone, generation=few, batch_size=64)
    cells = [Cell(), Cell(dose=32, pages="shuffled")]
    transcription = dict.fromkeys(("target_test", "base_test"), written)
    (first, second), events = run_program(generation, settings, cells, transcription=transcription)
    assert first == second  # of one model: a file says nothing of its cell
    target, base = first["corpora"]["target"], first["corpora"]["base"]
    assert target == base  # one split
    blocks, decoded = target["per_block"], target["per_decoded_block"]
    assert len({block["key"] for block in blocks} & {sample.key for sample in samples}) == 4
    assert [block["key"] for block in blocks[:2]] == [one["key"] for one in decoded] == list(written)
    assert [one["edits"] for one in decoded] == [1, 1]
    total = {name: sum(block[name] for block in blocks) for name in ("nats", "bytes", "tokens", "correct")}
    assert target["nats_per_byte"] == pytest.approx(total["nats"] / total["bytes"])
    assert target["token_accuracy"] == pytest.approx(total["correct"] / total["tokens"])
    edits, characters = (sum(one[name] for one in decoded) for name in ("edits", "characters"))
    assert target["character_error_rate"] == pytest.approx(edits / characters)
    assert [len(example["text"]) for example in target["examples"]] == [one["characters"] for one in decoded]
    assert [event["done"] for event in events] == [0, 1, 2, 2, 3, 4]


def test_character_edits_by_hand():
    assert character_edits(["abcd", "xy"], ["abxd", "xyz"]) == [(1, 4), (1, 2)]
    assert character_edits(["é"], ["e\u0301"]) == [(0, 1)]


def test_nats_are_the_sum_of_token_losses_whatever_the_batches(backbone, samples):
    builder = SequenceBuilder(backbone)
    for sample, found in zip(samples, teacher_forced(backbone, samples, batch_size=3), strict=True):
        sequence = builder.transcribe_image(sample.image(), sample.text)
        answer = torch.tensor(sequence.ids[sequence.label_start :])
        logits = logits_of(backbone, sequence)[sequence.label_start - 1 : -1].double()
        nats = torch.nn.functional.cross_entropy(logits, answer, reduction="sum")
        assert found["nats"] == pytest.approx(float(nats), rel=1e-4)
        right = int((logits.argmax(dim=-1) == answer).sum())
        assert (found["tokens"], found["correct"]) == (len(answer), right)


def test_every_batch_is_told(backbone, samples):
    told = []
    teacher_forced(backbone, samples, 3, lambda: told.append(None))
    assert len(told) == -(-len(samples) // 3)
