"""ZeRO is real: two gloo processes at stages 0 to 3 end with the weights of one process."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.queries import read_queries
from data_prep.shards import ShardSource
from stages.backbones.adapters import put_weights
from stages.backbones.backbone import load_backbone
from stages.pretrain.config import ObjectiveMixture
from stages.pretrain.loop import pretrain_steps
from stages.recipes import ARMS, get_recipe
from stages.refine.config import with_changes
from stages.refine.loop import begin, refine_steps, trained
from stages.refine.pairs import TrainSplit
from stages.train.config import EngineConfig
from stages.train.engine import gathered, rank, start_process_group

ZERO_STAGES = (0, 1, 2, 3)
# Of the four steps one has no image: the vision tower has no input there.
MIXTURE = ObjectiveMixture(transcribe_image=0.35, summarize_image=0.35, summarize_text=0.25, repeat_text=0.05)
STEPS = 4
REFINEMENTS = [arm for arm in ARMS.values() if arm.kind == "refinement"]


def main(job_path: Path) -> None:
    """Train both stages for a few steps under every ZeRO stage and save the weights."""
    job = json.loads(job_path.read_text())
    start_process_group(job["processes"])
    folder, output, model = Path(job["split"]), Path(job["output"]), job["model"]
    tiny = get_recipe("tiny")
    source = ShardSource(folder)
    for stage in job["zero_stages"]:
        engine = EngineConfig(zero_stage=stage)
        pretrain = replace(
            tiny.pretrain,
            doses=(4 * STEPS,),
            batch_size=4,
            mixture=MIXTURE,
            engine=engine,
            warmup_steps=1,
        )
        backbone = load_backbone(model, tiny.backbone)
        for step in pretrain_steps(backbone, [source], [1.0], pretrain, milestones=[STEPS]):
            if step.number == STEPS:
                with gathered(backbone.model):
                    _save(dict(backbone.model.named_parameters()), output / f"pretrain-{stage}.safetensors")
        split = TrainSplit(source=source, queries=read_queries(Path(job["queries"])))
        for arm in REFINEMENTS:
            config = replace(tiny.refine, batch_size=8, engine=engine, lora_rank=4, lora_alpha=8)
            config = with_changes(config, arm.changes)
            root = begin(load_backbone(model, tiny.backbone), config, seed=0)
            for step in refine_steps(root, split, config, seed=0, milestones=[2]):
                if step.number == 2:
                    learned, _ = trained(root)
            refined, _ = put_weights(load_backbone(model, tiny.backbone), learned)
            _save(dict(refined.model.named_parameters()), output / f"{arm.name}-{stage}.safetensors")


def _save(weights: dict[str, torch.Tensor], path: Path) -> None:
    if rank() == 0:
        save_file({name: weight.detach().clone() for name, weight in weights.items()}, path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, launch, model, split_folder, queries_folder) -> dict[int, Path]:
    """{processes: folder of weights}, from the same start."""
    folders = {}
    for processes, stages in ((1, (0,)), (2, ZERO_STAGES)):
        folders[processes] = tmp_path_factory.mktemp("zero")
        job = {
            "split": str(split_folder),
            "queries": str(queries_folder),
            "output": str(folders[processes]),
            "model": str(model / "model"),
            "zero_stages": stages,
            "processes": processes,
        }
        launch("tests.integration.test_zero", job, folders[processes])
    return folders


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ZERO_STAGES)
@pytest.mark.parametrize("training", ["pretrain", *(arm.name for arm in REFINEMENTS)])
def test_two_processes_end_with_the_weights_of_one(weights, model, training, stage):
    one = load_file(weights[1] / f"{training}-0.safetensors")
    two = load_file(weights[2] / f"{training}-{stage}.safetensors")
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
