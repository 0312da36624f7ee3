"""Trains both stages for a few steps under every ZeRO stage and saves the weights, for test_zero.py."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from data_prep.shards import ShardSource, read_queries
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

BATCH = 4
# Of the four steps one has no image: the vision tower has no input there.
MIXTURE = ObjectiveMixture(transcribe_image=0.35, summarize_image=0.35, summarize_text=0.25, repeat_text=0.05)
STEPS = 4
REFINEMENTS = [arm for arm in ARMS.values() if arm.kind == "refinement"]


def main(job_path: Path) -> None:
    job = json.loads(job_path.read_text())
    start_process_group(job["processes"])
    folder, output, model = Path(job["split"]), Path(job["output"]), job["model"]
    tiny = get_recipe("tiny")
    source = ShardSource(folder)
    for stage in job["zero_stages"]:
        engine = EngineConfig(zero_stage=stage)
        pretrain = replace(
            tiny.pretrain,
            doses=(STEPS * BATCH,),
            batch_size=BATCH,
            mixture=MIXTURE,
            engine=engine,
            warmup_steps=1,
        )
        backbone = load_backbone(model, tiny.backbone)
        for step in pretrain_steps(backbone, [source], [1.0], pretrain, milestones=[STEPS]):
            if step.number == STEPS:
                with gathered(backbone.model):
                    _save(dict(backbone.model.named_parameters()), output / f"pretrain-{stage}.safetensors")
        split = TrainSplit(source=source, queries=read_queries(folder))
        for arm in REFINEMENTS:
            config = replace(tiny.refine, batch_size=8, engine=engine, lora_rank=4, lora_alpha=8)
            config = with_changes(config, arm.changes)
            root = begin(load_backbone(model, tiny.backbone), config, seed=0)
            for step in refine_steps(root, split, config, seed=0, milestones=[2]):
                if step.number == 2:
                    learned, _ = trained(root)
            refined = put_weights(load_backbone(model, tiny.backbone), learned)
            _save(dict(refined.backbone.model.named_parameters()), output / f"{arm.name}-{stage}.safetensors")


def _save(weights: dict[str, torch.Tensor], path: Path) -> None:
    if rank() == 0:
        save_file({name: weight.detach().clone() for name, weight in weights.items()}, path)
