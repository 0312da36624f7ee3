import dataclasses

import numpy as np
import pytest
import torch

from data_prep.shards import ShardSource
from stages.evaluate.encoding import TaskEncoder, encode, prepared_images
from stages.evaluate.generation import character_edits, greedy_transcriptions, teacher_forced
from stages.evaluate.retrieval import measure_retrieval, score_baselines
from stages.evaluate.search_task import build_task, choose
from stages.recipes import get_recipe
from stages.train.batches import collate
from stages.train.forward import embed
from stages.train.sequences import SequenceBuilder

CONFIG = dataclasses.replace(
    get_recipe("tiny").evaluate, max_corpus=8, max_queries=8, neighbours=2, batch_size=3
)


TEMPERATURE = 0.05


def measured(backbone, folder) -> dict:
    task = build_task(folder, CONFIG)
    return measure_retrieval(
        TaskEncoder(task, CONFIG).encode(backbone), task, CONFIG, temperature=TEMPERATURE
    )


def test_character_edits_by_hand():
    assert character_edits(["abcd", "xy"], ["abxd", "xyz"]) == [(1, 4), (1, 2)]
    assert character_edits(["é"], ["e\u0301"]) == [(0, 1)]


@torch.no_grad()
def test_nats_are_the_sum_of_token_losses_whatever_the_batches(backbone, samples):
    together = teacher_forced(backbone, samples, batch_size=3)
    alone = [teacher_forced(backbone, [sample], batch_size=1)[0] for sample in samples]
    assert [one.nats for one in together] == pytest.approx([one.nats for one in alone], rel=1e-4)
    builder = SequenceBuilder(backbone)
    sequence = builder.transcribe_image(samples[0].image(), samples[0].text)
    batch = collate([sequence], pad_token=builder.pad_token)
    labels = torch.full_like(batch.input_ids, -100)
    labels[:, 1:] = batch.labels[:, :-1]
    output = backbone.model(**batch.model_inputs(), labels=labels)
    tokens = int((labels != -100).sum())
    assert together[0].nats == pytest.approx(float(output.loss) * tokens, rel=1e-4)
    predicted = output.logits[:, :-1].argmax(dim=-1)
    correct = int((predicted == labels[:, 1:])[labels[:, 1:] != -100].sum())
    assert (together[0].tokens, together[0].correct) == (tokens, correct)


@pytest.mark.parametrize("measure", [teacher_forced, greedy_transcriptions])
def test_every_batch_is_told(backbone, samples, measure):
    told = []
    measure(backbone, samples, 3, lambda: told.append(None))
    assert len(told) == -(-len(samples) // 3)


@torch.no_grad()
def test_greedy_decoding_equals_a_loop_without_cache(backbone, samples):
    sample = samples[1]
    (written,) = greedy_transcriptions(backbone, [sample], batch_size=1)
    builder = SequenceBuilder(backbone)
    ids: list[int] = []
    for _ in range(len(backbone.tokenizer.encode(sample.text, add_special_tokens=False)) + 8):
        sequence = builder.transcribe_image(sample.image(), None)
        following = sequence.positions[:, -1:] + np.arange(1, len(ids) + 1)
        longer = dataclasses.replace(
            sequence,
            ids=sequence.ids + ids,
            label_start=len(sequence.ids) + len(ids),
            positions=np.hstack([sequence.positions, following]),
        )
        logits = backbone.model(**collate([longer], pad_token=builder.pad_token).model_inputs()).logits[0, -1]
        ids.append(int(logits.argmax()))
        if ids[-1] == backbone.tokenizer.eos_token_id:
            break
    assert written == backbone.tokenizer.decode(ids, skip_special_tokens=True)


def test_the_task_is_the_same_every_time_and_within_its_limits(split_folder):
    task = build_task(split_folder, CONFIG)
    assert task == build_task(split_folder, CONFIG)
    small = build_task(split_folder, dataclasses.replace(CONFIG, max_corpus=3))
    assert small.corpus_ids == task.corpus_ids[:3]
    assert all(relevant for relevant in small.relevant)


def test_retrieval_result_has_every_direction(backbone, split_folder):
    task = build_task(split_folder, CONFIG)
    result = measured(backbone, split_folder)
    assert set(result["directions"]) == {"query_to_image", "query_to_text", "text_to_image"}
    assert len(result["query_ids"]) == len(result["query_documents"]) == len(task.queries)
    layers = backbone.model.config.text_config.num_hidden_layers
    assert [entry["layer"] for entry in result["geometry"]] == list(range(layers + 1))
    assert set(score_baselines(task)) == {"random", "bm25"}
    assert result["corpus_documents"] <= result["corpus_pages"] <= result["corpus_size"]


def test_before_the_first_layer_all_vectors_are_one_and_are_not_compared(backbone, split_folder):
    before, *layers = measured(backbone, split_folder)["geometry"]
    measures = ("anisotropy_image", "anisotropy_text", "mutual_knn", "cka")
    assert [before[name] for name in measures] == [None] * 4
    assert all(layer[name] is not None for layer in layers for name in measures)


def test_an_example_has_the_rank_of_its_first_right_sample(backbone, split_folder):
    examples = measured(backbone, split_folder)["examples"]
    for example in examples:
        right = [hit["key"] in example["relevant"] for hit in example["top"]]
        assert example["rank"] == right.index(True) + 1 if any(right) else example["rank"] > len(right)


@torch.no_grad()
def test_encoding_in_batches_gives_the_contract_vector(backbone, samples):
    builder = SequenceBuilder(backbone)
    rows = [builder.summarize_image(sample.image()) for sample in samples]
    expected = embed(backbone, collate(rows, pad_token=builder.pad_token)).numpy()
    found = encode(backbone, prepared_images(builder, samples), batch_size=3)
    assert found.vectors == pytest.approx(expected, abs=1e-5)


def test_chosen_samples_do_not_depend_on_file_order(split_folder):
    source = ShardSource(split_folder)
    assert [s.key for s in choose(source, 3)] == [s.key for s in choose(source, 8)][:3]
