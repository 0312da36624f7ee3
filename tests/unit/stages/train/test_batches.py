"""Token budgets change neither what is trained on nor its gradient."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.pretrain.objectives import GenerativeLoss, build_sequence
from stages.train import engine, forward
from stages.train.batches import MOST_PADDING, oversized, plan_micro_batches
from stages.train.config import EngineConfig
from stages.train.sequences import SequenceBuilder, TokenSequence
from stages.train.words import SalientWords
from tests.unit.stages.conftest import TEXTS, relative_difference


def sequence(length: int, visual: int) -> TokenSequence:
    patches = np.zeros((4 * visual, 3), np.float32) if visual else None
    return TokenSequence(
        ids=[7] * length,
        label_start=length,
        positions=np.zeros((3, length), np.int64),
        patches=patches,
        visual_tokens=visual,
    )


SEQUENCES = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 30)).map(lambda s: sequence(s[0] + s[1], s[1])), max_size=40
)


@settings(max_examples=200, deadline=None)
@given(SEQUENCES, st.integers(90, 400), st.integers(30, 200), st.booleans())
def test_every_sequence_once_and_no_budget_exceeded(sequences, text_tokens, visual_tokens, packing):
    config = EngineConfig(text_tokens=text_tokens, visual_tokens=visual_tokens, packing=packing)
    plan = plan_micro_batches(sequences, config)
    assert sorted(n for buckets in plan for bucket in buckets for n in bucket) == list(range(len(sequences)))
    for buckets in plan:
        rows = [[sequences[number] for number in bucket] for bucket in buckets]
        positions = [
            sum(map(len, bucket)) if packing else len(bucket) * max(map(len, bucket)) for bucket in rows
        ]
        assert sum(positions) <= text_tokens
        assert sum(row.visual_tokens for bucket in rows for row in bucket) <= visual_tokens
        assert packing or all(len({row.patches is None for row in bucket}) == 1 for bucket in rows)
    everything = [[sequences[number] for number in bucket] for buckets in plan for bucket in buckets]
    for image in () if packing else (False, True):
        some = [bucket for bucket in everything if (bucket[0].patches is not None) == image]
        positions = sum(len(bucket) * max(map(len, bucket)) for bucket in some)
        assert sum(len(row) for bucket in some for row in bucket) >= (1 - MOST_PADDING) * positions


def test_buckets_are_as_few_as_the_padding_allows():
    """Against every way to cut nine rows."""
    lengths = [3, 4, 4, 9, 10, 10, 11, 30, 31]
    rows = [sequence(length, 0) for length in lengths]

    def padding(cuts):
        parts = [lengths[start:end] for start, end in itertools.pairwise(cuts)]
        return 1 - sum(lengths) / sum(len(part) * part[-1] for part in parts)

    for count in range(1, 10):
        inner = itertools.combinations(range(1, len(lengths)), count - 1)
        best = min(padding([0, *cuts, len(lengths)]) for cuts in inner)
        if best <= MOST_PADDING:
            break
    plan = plan_micro_batches(rows, EngineConfig())
    assert len(plan) == 1 and len(plan[0]) == count > 1


@pytest.mark.parametrize(("text", "visual"), [(101, 0), (90, 51)])
def test_a_sequence_over_a_budget_is_named_with_its_sizes(text, visual):
    config = EngineConfig(text_tokens=100, visual_tokens=50)
    assert oversized(sequence(100, 50), config) is None
    assert f"{visual or text}" in oversized(sequence(text, visual), config)
    with pytest.raises(ValueError, match="sequence 1"):
        plan_micro_batches([sequence(3, 0), sequence(text, visual)], config)


def gradient(backbone, samples, objective, config):
    """Gradient of the summed loss, by parameter name, over all micro-batches."""
    builder = SequenceBuilder(backbone)
    words = SalientWords.fit(TEXTS, backbone.tokenizer)
    sequences = [build_sequence(builder, s, objective) for s in samples]
    targets = [words.targets(sample.text) for sample in samples] if objective.startswith("summ") else None
    backbone.model.zero_grad()
    for passes in engine.plan_passes(sequences, builder, config):
        GenerativeLoss(backbone.model)(passes, targets).backward()
    return {n: p.grad.clone() for n, p in backbone.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "objective", ["transcribe_image", "summarize_image", "summarize_text", "repeat_text"]
)
@pytest.mark.parametrize("packing", [False, True])
def test_budgets_and_packing_do_not_change_the_gradient(process_group, backbone, samples, objective, packing):
    expected = {}
    for sample in samples:  # one sequence at a time: no padding, no packing
        for name, tensor in gradient(backbone, [sample], objective, EngineConfig()).items():
            expected[name] = expected.get(name, 0) + tensor
    for text_tokens in (120, 16_384):
        config = EngineConfig(text_tokens=text_tokens, packing=packing)
        actual = gradient(backbone, samples, objective, config)
        assert relative_difference(expected, actual) < 1e-5


def test_fillers_add_passes_and_no_gradient(process_group, backbone, samples, monkeypatch):
    expected = gradient(backbone, samples[:3], "repeat_text", EngineConfig())
    monkeypatch.setattr(engine, "agreed_plan", lambda own: [[True, True, False], [True]])
    actual = gradient(backbone, samples[:3], "repeat_text", EngineConfig())
    zero = {name: tensor for name, tensor in actual.items() if name not in expected}
    assert zero and all(not tensor.any() for tensor in zero.values()), "the vision tower ran, without effect"
    assert relative_difference(expected, {name: actual[name] for name in expected}) < 1e-5


def test_logits_in_pieces_give_the_same_losses_and_gradients(process_group, backbone, samples, monkeypatch):
    whole = gradient(backbone, samples, "transcribe_image", EngineConfig())
    monkeypatch.setattr(forward, "LABELS_AT_ONCE", 5)
    assert relative_difference(whole, gradient(backbone, samples, "transcribe_image", EngineConfig())) < 1e-6
