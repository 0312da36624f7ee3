"""The gradient is that of the whole batch on one process, in float64, written down plainly: for every chunk
size, ZeRO stage and number of processes, also where one process never sees an image."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from infra.launcher import Launch
from stages.backbones.adapters import add_adapter
from stages.backbones.backbone import load_backbone
from stages.backbones.qwen2_5_vl import model_inputs
from stages.losses import InfoNCE
from stages.recipes import get_recipe
from stages.train.batches import collate
from stages.train.sequences import SequenceBuilder
from tests.integration.gradients import CHUNKS, LOSSES, answers_of, rows_of

ZERO_STAGES = (0, 1, 2, 3)
PROCESSES = (1, 2)
CASES = [(processes, zero, chunk) for processes in PROCESSES for zero in ZERO_STAGES for chunk in CHUNKS]


@pytest.fixture(scope="module")
def root(tmp_path_factory, launcher, model, split_folder, samples) -> Path:
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
            "zero_stages": ZERO_STAGES,
        }
        path = root / f"job-{processes}.json"
        path.write_text(json.dumps(job))
        launch = Launch(
            module="tests.integration.gradients",
            job_path=path,
            processes=processes,
            threads=1,
            log_path=root / f"{processes}.log",
        )
        launcher.run(launch, print)
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
    model = add_adapter(backbone, dataclasses.replace(get_recipe("tiny").refine, lora_rank=4))
    torch.manual_seed(1)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.double()
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
    for number, sample in enumerate(samples):
        sequence = (
            builder.transcribe_image(sample.image(), sample.text)
            if number % 2 == 0
            else builder.repeat_text(sample.text)
        )
        inputs = model_inputs(collate([sequence], pad_token=builder.pad_token))
        log_probabilities = backbone.model(**inputs).logits[0].log_softmax(-1)
        for place in range(sequence.label_start, len(sequence)):
            total = total - log_probabilities[place - 1, sequence.ids[place]]
            labels += 1
    (total / labels).backward()
    return {f"model.{n}": p.grad for n, p in backbone.model.named_parameters() if p.grad is not None}


def relative_difference(expected: dict[str, torch.Tensor], actual: dict[str, torch.Tensor]) -> float:
    assert expected.keys() == actual.keys()
    distance = sum(float((expected[name] - actual[name].double()).square().sum()) for name in expected)
    return (distance / sum(float(tensor.double().square().sum()) for tensor in expected.values())) ** 0.5


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("processes", "zero_stage", "chunk"), CASES)
@pytest.mark.parametrize("loss", LOSSES)
def test_contrastive_gradient_is_that_of_the_whole_batch(
    root, contrastive, processes, zero_stage, chunk, loss
):
    path = root / str(processes) / f"contrastive-{loss}-zero{zero_stage}-{chunk}.safetensors"
    assert relative_difference(contrastive[loss], load_file(path)) < 1e-5


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("processes", "zero_stage", "chunk"), CASES)
def test_generative_gradient_is_that_of_the_whole_batch(root, generative, processes, zero_stage, chunk):
    path = root / str(processes) / f"generative-mixed-zero{zero_stage}-{chunk}.safetensors"
    assert relative_difference(generative, load_file(path)) < 1e-5


@pytest.mark.timeout(900)
@pytest.mark.parametrize("zero_stage", ZERO_STAGES)
@pytest.mark.parametrize("processes", PROCESSES)
def test_packed_gradient_is_that_of_the_whole_batch(root, generative, processes, zero_stage):
    path = root / str(processes) / f"generative-mixed-zero{zero_stage}-three-packed.safetensors"
    assert relative_difference(generative, load_file(path)) < 1e-5
