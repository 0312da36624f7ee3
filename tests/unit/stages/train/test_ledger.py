"""The ledger counts what was trained on, and forgets nothing that an equal run would repeat."""

import dataclasses
import json

import pytest

from stages.train.batches import Pass, collate
from stages.train.config import EngineConfig
from stages.train.flops import TrainedParts, training_flops, workload
from stages.train.ledger import Step, counts_of, losses, measured, padding_share, steps_jsonl
from stages.train.sequences import SequenceBuilder

STEP = Step(
    number=1,
    objective="a",
    loss=2.0,
    examples=4,
    label_tokens=30,
    tokens=90,
    positions=100,
    visual_tokens=10,
    oversized=0,
    flops=3 * 10**12,
    seconds=2.0,
    data_seconds=0.5,
    memory_gib=1.0,
)


def test_counts_of_a_batch_by_hand(process_group, backbone, samples):
    builder = SequenceBuilder(backbone)
    sequences = [
        builder.transcribe_image(samples[0].image(), samples[0].text),
        builder.repeat_text(samples[1].text),
    ]
    batch = collate(sequences, pad_token=builder.pad_token)
    labels = int((batch.labels != -100).sum())
    passes = [Pass(batch=batch, numbers=[0, 1])]
    counts = counts_of(
        sequences, [passes], backbone.model, TrainedParts(), label_tokens=labels, logits=labels, oversized=2
    )
    assert (counts["label_tokens"], counts["oversized"]) == (labels, 2)
    assert counts["tokens"] == int(batch.attention_mask.sum())
    assert counts["positions"] == batch.input_ids.numel() == 2 * max(map(len, sequences))
    width, height = samples[0].width // 16, samples[0].height // 16
    assert counts["visual_tokens"] == width * height
    work = workload(
        backbone.shape,
        lengths=map(len, sequences),
        label_positions=labels,
        grids=batch.image_grid_thw.tolist(),
    )
    assert counts["flops"] == pytest.approx(training_flops(backbone.shape, work, TrainedParts()))


def test_means_rates_and_shares_by_hand():
    other = dataclasses.replace(
        STEP, number=2, objective="b", loss=4.0, tokens=60, seconds=1.0, memory_gib=3.0
    )
    last = dataclasses.replace(STEP, number=3, loss=3.0, seconds=1.0, data_seconds=0.0)
    steps = [STEP, other, last]
    assert losses(steps) == {"loss_a": 2.5, "loss_b": 4.0}
    assert padding_share(steps) == pytest.approx(1 - 240 / 300)
    rates = measured(steps, EngineConfig())
    assert (rates["loss/a"], rates["loss/b"]) == (2.5, 4.0)
    assert rates["resources/padding_share"] == padding_share(steps)
    assert rates["resources/tokens_per_second"] == pytest.approx(240 / 4)
    assert rates["resources/data_wait_share"] == pytest.approx(1.0 / 4)
    assert rates["resources/model_tflop_per_second"] == pytest.approx(9 / 4)
    assert rates["resources/memory_gib"] == 3.0


def test_the_share_of_the_peak_where_the_accelerator_is_known(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    reached = measured([STEP], EngineConfig(precision="bfloat16", processes=2))
    assert reached["resources/model_flops_utilization"] == pytest.approx(3e12 / (2 * 989e12 * 2))


def test_what_is_committed_has_no_times():
    slower = dataclasses.replace(STEP, seconds=9.0, data_seconds=8.0, memory_gib=7.0)
    assert steps_jsonl([slower]) == steps_jsonl([STEP])
    assert {"loss", "tokens", "positions", "flops"} <= json.loads(steps_jsonl([STEP])).keys()
