"""ZeRO is real: two gloo processes at stages 0 to 3 end with the weights of one process."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from infra.launcher import Launch
from stages.backbones.backbone import load_backbone
from stages.recipes import get_recipe
from tests.integration.two_steps import REFINEMENTS

ZERO_STAGES = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, launcher, model, split_folder) -> dict[int, Path]:
    """{processes: folder of weights}, from the same start."""
    root = tmp_path_factory.mktemp("zero")
    folders = {}
    for processes, stages in ((1, (0,)), (2, ZERO_STAGES)):
        folders[processes] = root / str(processes)
        folders[processes].mkdir()
        job = {
            "split": str(split_folder),
            "output": str(folders[processes]),
            "model": str(model / "model"),
            "zero_stages": stages,
            "processes": processes,
        }
        path = root / f"job-{processes}.json"
        path.write_text(json.dumps(job))
        launch = Launch(
            module="tests.integration.two_steps",
            job_path=path,
            processes=processes,
            threads=1,
            log_path=root / f"{processes}.log",
        )
        launcher.run(launch, print)
    return folders


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ZERO_STAGES)
@pytest.mark.parametrize("training", ["pretrain", *(arm.name for arm in REFINEMENTS)])
def test_two_processes_end_with_the_weights_of_one(trained, model, training, stage):
    one = load_file(trained[1] / f"{training}-0.safetensors")
    two = load_file(trained[2] / f"{training}-{stage}.safetensors")
    start = dict(load_backbone(model / "model", get_recipe("tiny").backbone).model.named_parameters())
    assert one.keys() == two.keys() == start.keys()
    difference = sum(_squared_distance(one[name], two[name]) for name in one)
    moved = sum(_squared_distance(one[name], start[name]) for name in one)
    assert moved > 0, "two steps must change the weights"
    # Relative to the length of the two steps: sums in another order differ in the last bits of float32, and
    # Adam's first steps amplify them where a gradient is about zero.
    assert (difference / moved) ** 0.5 < 1e-3


def _squared_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.detach().double() - b.detach().double()).square().sum())
