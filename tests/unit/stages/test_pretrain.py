import copy
import dataclasses
import math

import pytest
import torch

from data_prep.shards import ShardSource
from stages.backbones.qwen2_5_vl import model_inputs
from stages.evaluate.likelihood import word_log_likelihoods
from stages.pretrain.config import ObjectiveMixture
from stages.pretrain.controls import ShuffledTexts, mixture_of
from stages.pretrain.loop import pretrain_steps
from stages.pretrain.objectives import build_sequence, objective_of_step, summary_losses
from stages.recipes import get_recipe
from stages.train.batches import collate
from stages.train.engine import schedule
from stages.train.forward import label_losses
from stages.train.sequences import SequenceBuilder
from stages.train.words import SalientWords


def build_batch(builder, samples, objective):
    return collate([build_sequence(builder, s, objective) for s in samples], pad_token=builder.pad_token)


@torch.no_grad()
@pytest.mark.parametrize("objective", ["transcribe_image", "repeat_text"])
def test_token_losses_are_those_of_transformers(backbone, samples, objective):
    batch = build_batch(SequenceBuilder(backbone), samples, objective)
    ours = label_losses(backbone.model, batch)
    labels = torch.full_like(batch.input_ids, -100)
    labels[:, 1:] = batch.labels[:, :-1]
    theirs = backbone.model(**model_inputs(batch), labels=labels).loss
    assert torch.allclose(ours.mean(), theirs, atol=1e-5)
    expected = sum(len(backbone.tokenizer.encode(s.text, add_special_tokens=False)) + 1 for s in samples)
    assert len(ours) == expected


def test_salient_words_weigh_rare_words_more(backbone):
    words = SalientWords.fit(["the cat", "the dog", "the end"], backbone.tokenizer)
    targets = words.targets("The cat")
    the, cat = math.log(4 / 4) + 1, math.log(4 / 2) + 1
    assert sorted(targets.values()) == pytest.approx(sorted([the / (the + cat), cat / (the + cat)]))
    names = backbone.tokenizer.convert_ids_to_tokens(list(targets))
    assert all(name.startswith("<|word_") for name in names)
    assert words.targets("...") == {}


def test_a_tokenizer_without_word_tokens_shares_a_words_weight_among_its_tokens(backbone):
    words = SalientWords.fit(["cat"], backbone.tokenizer)
    plain = SalientWords(
        document_frequency=words.document_frequency, documents=1, tokenizer=backbone.tokenizer, buckets=()
    )
    ids = backbone.tokenizer.encode(" cat", add_special_tokens=False)
    assert len(set(ids)) == len(ids) > 1
    assert plain.targets("cat") == pytest.approx(dict.fromkeys(ids, 1 / len(ids)))


@torch.no_grad()
def test_summary_loss_is_the_cross_entropy_at_the_embedded_position(backbone, samples):
    builder = SequenceBuilder(backbone)
    words = SalientWords.fit([s.text for s in samples], backbone.tokenizer)
    batch = build_batch(builder, samples, "summarize_image")
    weights = [words.targets(s.text) for s in samples]
    log_probabilities = backbone.model(**model_inputs(batch)).logits[:, -1].double().log_softmax(-1)
    rows = zip(weights, log_probabilities, strict=True)
    expected = [-sum(weight * row[token] for token, weight in own.items()) for own, row in rows]
    losses = summary_losses(backbone.model, batch, weights).double()
    assert torch.allclose(losses, torch.stack(expected), atol=1e-5)
    fewer = summary_losses(backbone.model, batch, weights[:-1]).double()
    assert torch.equal(fewer[:-1], losses[:-1]) and fewer[-1] == 0, "a filler has nothing to say"


def test_objectives_follow_their_shares():
    mixture = ObjectiveMixture(transcribe_image=0.5, summarize_image=0.5, summarize_text=0.0, repeat_text=0.0)
    drawn = [objective_of_step(mixture, seed=0, step=step) for step in range(400)]
    assert set(drawn) == {"transcribe_image", "summarize_image"}
    assert 160 < drawn.count("transcribe_image") < 240
    assert drawn == [objective_of_step(mixture, seed=0, step=step) for step in range(400)]


def test_learning_rate_schedules():
    constant = schedule(4)
    assert [constant(step) for step in (0, 1, 3, 100)] == [0.25, 0.5, 1.0, 1.0]
    decay = schedule(2, decay_steps=10, last_step=100)
    assert [decay(step) for step in (0, 1, 50, 95, 100)] == [0.5, 1.0, 1.0, 0.5, 0.0]


def test_shuffled_texts_keep_every_text_and_give_no_page_its_own(split_folder):
    source = ShardSource(split_folder, trainable_only=True)
    shuffled = ShuffledTexts(source, seed=0)
    own, other = ([one[position] for position in range(len(source))] for one in (source, shuffled))
    assert sorted(sample.text for sample in own) == sorted(sample.text for sample in other)
    assert [sample.png for sample in own] == [sample.png for sample in other]
    # Two pages may have equal text: what must differ is the page that it came from.
    came_from = [shuffled.text_of(position) for position in range(len(source))]
    assert sorted(came_from) == list(range(len(source)))
    assert all(position != text for position, text in enumerate(came_from))
    again = ShuffledTexts(source, seed=0)
    assert [again.text_of(position) for position in range(len(source))] == came_from


def test_the_controls_differ_from_the_real_training_in_one_thing(split_folder):
    config = get_recipe("tiny").pretrain
    target, base = (ShardSource(split_folder, trainable_only=True) for _ in range(2))
    real, shuffled, unrelated = (
        mixture_of(target, base, pages=pages, config=config) for pages in ("target", "shuffled", "unrelated")
    )
    assert real == ([target, base], [1 - config.replay_share, config.replay_share])
    assert isinstance(shuffled[0][0], ShuffledTexts) and shuffled[0][1] is base and shuffled[1] == real[1]
    assert unrelated == ([base], [1.0])


def test_a_model_may_have_more_logits_than_its_tokenizer_has_tokens(process_group, backbone, split_folder):
    """As Qwen2.5-VL has, and many others: rounded up."""
    padded = copy.deepcopy(backbone)
    padded.model.resize_token_embeddings(len(backbone.tokenizer) + 5, mean_resizing=False)
    assert padded.vocabulary == len(backbone.tokenizer) + 5
    config = dataclasses.replace(
        get_recipe("tiny").pretrain,
        doses=(8,),
        batch_size=4,
        mixture=ObjectiveMixture(
            transcribe_image=0.0, summarize_image=1.0, summarize_text=0.0, repeat_text=0.0
        ),
    )
    steps = list(pretrain_steps(padded, [ShardSource(split_folder)], [1.0], config, milestones=[2]))
    assert [step.number for step in steps] == [1, 2]
    images = [ShardSource(split_folder)[0].image()]
    [values] = word_log_likelihoods(padded, images, ["Insert page"])
    assert values[0] < 0
