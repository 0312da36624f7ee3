"""The gradient is that of the whole batch on one process, in float64, written down plainly: for every chunk
size, ZeRO stage and number of processes, also where one process never sees an image."""

import copy
import dataclasses
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.shards import ShardSource
from stages.backbones.adapters import add_adapter
from stages.backbones.backbone import Backbone, load_backbone
from stages.backbones.qwen2_5_vl import model_inputs
from stages.losses import InfoNCE
from stages.pretrain.objectives import GenerativeLoss
from stages.recipes import get_recipe
from stages.refine.gradcache import Embedder, Rows, contrastive_step
from stages.train.batches import collate
from stages.train.config import EngineConfig
from stages.train.engine import (
    Optimization,
    build_engine,
    global_sum,
    plan_passes,
    rank,
    start_process_group,
    step_engine,
    world_size,
)
from stages.train.lean_deepspeed import deepspeed
from stages.train.sequences import SequenceBuilder, TokenSequence
from tests.unit.stages.conftest import relative_difference

ZERO_STAGES = (0, 1, 2, 3)
PROCESSES = (1, 2)
CHUNKS = {"one": 90, "three": 200, "all": 16_384}  # token budgets: about one, three, all rows at a time
EVERYTHING = {"symmetric": True, "matryoshka_dimensions": (8, 4), "learn_temperature": True}
LOSSES = {
    "plain": (InfoNCE(temperature=0.05), 0),
    "everything": (InfoNCE(temperature=0.05, **EVERYTHING), 2),
}
"""Each with its number of mined negatives."""
OPTIMIZATION = Optimization(
    learning_rate=1e-3, schedule=lambda step: 1.0, weight_decay=0.0, max_gradient_norm=0.0
)
GENERATIVE_CHUNKS = [*((chunk, False) for chunk in CHUNKS), ("three", True)]
"""Each with whether it is packed."""


def rows_of(builder: SequenceBuilder, samples: list, ranks: int, negatives: int) -> list[list[TokenSequence]]:
    """Rows of each rank. Only rank 0 of two has images: rows 0, 2, ... are its own."""
    dealt = []
    for number in range(ranks):
        own = range(number, len(samples), ranks)
        anchors = [builder.summarize_text(" ".join(samples[i].text.split()[:2])) for i in own]
        positives = [
            builder.summarize_image(samples[i].image())
            if i % 2 == 0
            else builder.summarize_text(samples[i].text)
            for i in own
        ]
        mined = [
            builder.summarize_text(samples[(i + 3 + n) % len(samples)].text + "!")
            for i in own
            for n in range(negatives)
        ]
        dealt.append(anchors + positives + mined)
    return dealt


def answers_of(anchors: int, ranks: int, negatives: int) -> torch.Tensor:
    """Anchor a is also answered by the positive of a + 1, in the column order of the ranks."""
    order = [i for number in range(ranks) for i in range(number, anchors, ranks)]
    columns = []
    for number in range(ranks):
        own = range(number, anchors, ranks)
        columns += [("positive", i) for i in own] + [("negative", i) for i in own for _ in range(negatives)]
    return torch.tensor([[c == ("positive", (a + 1) % anchors) for c in columns] for a in order])


def main(job_path: Path) -> None:
    job = json.loads(job_path.read_text())
    start_process_group(job["processes"])
    backbone = load_backbone(job["model"], get_recipe("tiny").backbone)
    samples = list(map(ShardSource(job["split"]).__getitem__, range(job["samples"])))
    for zero_stage in ZERO_STAGES:
        for (chunk, budget), (name, (loss, negatives)) in itertools.product(CHUNKS.items(), LOSSES.items()):
            config = EngineConfig(zero_stage=zero_stage, text_tokens=budget)
            gradient = contrastive_gradient(copy.deepcopy(backbone), samples, config, loss, negatives)
            _save(job, f"contrastive-{name}-zero{zero_stage}-{chunk}", gradient)
        for chunk, packing in GENERATIVE_CHUNKS:
            config = EngineConfig(zero_stage=zero_stage, text_tokens=CHUNKS[chunk], packing=packing)
            gradient = generative_gradient(copy.deepcopy(backbone), samples, config)
            _save(job, f"generative-{packing}-zero{zero_stage}-{chunk}", gradient)


def adapted(backbone: Backbone) -> peft.PeftModel:
    """The model with an adapter that changes something."""
    model = add_adapter(backbone, dataclasses.replace(get_recipe("tiny").refine, lora_rank=4))
    torch.manual_seed(1)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def contrastive_gradient(
    backbone: Backbone, samples: list, config: EngineConfig, loss: InfoNCE, negatives: int
) -> dict[str, torch.Tensor]:
    builder = SequenceBuilder(backbone)
    root = Embedder(backbone, adapted(backbone), loss).train()
    engine = build_engine(root, config, OPTIMIZATION)
    ranks = world_size()
    counts = [len(range(number, len(samples), ranks)) for number in range(ranks)]
    rows = Rows(
        anchors=counts,
        candidates=[count * (1 + negatives) for count in counts],
        answers=answers_of(len(samples), ranks, negatives),
    )
    micro_batches = plan_passes(rows_of(builder, samples, ranks, negatives)[rank()], builder, config)
    with recorded(engine) as gradient:
        contrastive_step(engine, micro_batches, rows)
    engine.destroy()
    return gradient


def mixed(builder: SequenceBuilder, samples: list) -> list[TokenSequence]:
    """Rank 0 of two transcribes images, rank 1 repeats texts: one never sees an image."""
    return [
        builder.transcribe_image(sample.image(), sample.text)
        if number % 2 == 0
        else builder.repeat_text(sample.text)
        for number, sample in enumerate(samples)
    ]


def generative_gradient(backbone: Backbone, samples: list, config: EngineConfig) -> dict[str, torch.Tensor]:
    builder = SequenceBuilder(backbone)
    sequences = mixed(builder, samples)[rank() :: world_size()]
    engine = build_engine(GenerativeLoss(backbone.model).train(), config, OPTIMIZATION)
    micro_batches = plan_passes(sequences, builder, config)
    labels = global_sum(sum(len(sequence) - sequence.label_start for sequence in sequences))
    with recorded(engine) as gradient:
        step_engine(engine, (engine(passes) for passes in micro_batches), labels)
    engine.destroy()
    return gradient


@contextmanager
def recorded(engine: deepspeed.DeepSpeedEngine) -> Iterator[dict[str, torch.Tensor]]:
    """Take the reduced gradient of every trained parameter when the engine is about to step."""
    gradient: dict[str, torch.Tensor] = {}

    def record() -> None:
        for name, parameter in engine.module.named_parameters():
            if parameter.requires_grad:
                gradient[name] = deepspeed.utils.safe_get_full_grad(parameter).detach().clone()

    with mock.patch.object(engine, "step", record):
        yield gradient


def _save(job: dict, name: str, gradient: dict[str, torch.Tensor]) -> None:
    if rank() == 0:
        save_file(gradient, Path(job["output"]) / f"{name}.safetensors")


@pytest.fixture(scope="module")
def root(tmp_path_factory, launch, model, split_folder, samples) -> Path:
    """Gradients of every case at PROCESSES/NAME.safetensors."""
    root = tmp_path_factory.mktemp("gradients")
    for processes in PROCESSES:
        (root / str(processes)).mkdir()
        job = {
            "split": str(split_folder),
            "samples": len(samples),
            "model": str(model / "model"),
            "output": str(root / str(processes)),
            "processes": processes,
        }
        launch("tests.integration.test_gradients", job, root / str(processes))
    return root


@pytest.fixture(scope="module")
def contrastive(model, samples) -> dict[str, dict[str, torch.Tensor]]:
    """Gradient by loss, from one row at a time and a softmax written down."""
    return {
        name: plain_contrastive_gradient(model / "model", samples, loss, negatives)
        for name, (loss, negatives) in LOSSES.items()
    }


def plain_contrastive_gradient(model_path: Path, samples: list, loss: InfoNCE, negatives: int):
    backbone = load_backbone(model_path, get_recipe("tiny").backbone)
    builder = SequenceBuilder(backbone)
    model = adapted(backbone).double()
    base = model.get_base_model().model
    [sequences] = rows_of(builder, samples, 1, negatives)
    states = []
    for sequence in sequences:
        inputs = model_inputs(collate([sequence], pad_token=builder.pad_token))
        states.append(base(**inputs, use_cache=False).last_hidden_state[0, -1])
    count = len(samples)
    answers = answers_of(count, 1, negatives)
    temperature = torch.tensor([loss.temperature], dtype=torch.float64).log().requires_grad_()
    total = 0.0
    for size in (len(states[0]), *loss.matryoshka_dimensions):
        # The whole vector is normalised before it is cut, and the cut again.
        vectors = torch.stack([(state / state.norm())[:size] for state in states])
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
        cosines = vectors[:count] @ vectors[count:].T / temperature.exp()
        of_size = torch.zeros((), dtype=torch.float64)
        for a in range(count):
            kept = [c for c in range(cosines.shape[1]) if c == a or not answers[a, c]]
            forwards = torch.logsumexp(cosines[a, kept], 0) - cosines[a, a]
            kept = [b for b in range(count) if b == a or not answers[b, a]]
            backwards = torch.logsumexp(cosines[kept, a], 0) - cosines[a, a]
            of_size = of_size + ((forwards + backwards) / 2 if loss.symmetric else forwards)
        total = total + of_size / (1 + len(loss.matryoshka_dimensions))
    (total / count).backward()
    gradient = {f"model.{n}": p.grad for n, p in model.named_parameters() if p.requires_grad}
    return gradient | ({"loss_parameters": temperature.grad} if loss.learn_temperature else {})


@pytest.fixture(scope="module")
def generative(model, samples) -> dict[str, torch.Tensor]:
    backbone = load_backbone(model / "model", get_recipe("tiny").backbone)
    backbone.model.double()
    builder = SequenceBuilder(backbone)
    total, labels = 0.0, 0
    for sequence in mixed(builder, samples):
        inputs = model_inputs(collate([sequence], pad_token=builder.pad_token))
        log_probabilities = backbone.model(**inputs).logits[0].log_softmax(-1)
        for place in range(sequence.label_start, len(sequence)):
            total = total - log_probabilities[place - 1, sequence.ids[place]]
            labels += 1
    (total / labels).backward()
    return {f"model.{n}": p.grad for n, p in backbone.model.named_parameters() if p.grad is not None}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("zero_stage", ZERO_STAGES)
@pytest.mark.parametrize("processes", PROCESSES)
def test_the_gradient_is_that_of_the_whole_batch(root, contrastive, generative, processes, zero_stage):
    cases = {("contrastive", loss, chunk): contrastive[loss] for loss in LOSSES for chunk in CHUNKS}
    cases |= {("generative", packing, chunk): generative for chunk, packing in GENERATIVE_CHUNKS}
    differences = {}
    for (objective, variant, chunk), expected in cases.items():
        path = root / str(processes) / f"{objective}-{variant}-zero{zero_stage}-{chunk}.safetensors"
        differences[path.name] = relative_difference(expected, load_file(path))
    assert max(differences.values()) < 1e-5, differences
