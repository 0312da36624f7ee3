"""Trains both stages for a few steps under every ZeRO stage and saves the weights; started by test_zero.py.

python -m tests.integration.two_steps JOB.json
"""

import dataclasses
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from data_prep.shards import ShardSource, read_queries
from infra.process import watch_parent
from stages.backbone import load_backbone
from stages.pretrain.loop import train
from stages.recipes import ARMS, EngineConfig, ObjectiveMixture, get_recipe
from stages.refine.adapter import put_weights
from stages.refine.loop import refine
from stages.train.engine import rank, start_process_group

BATCH = 4
# Of the four steps one has no image: the vision tower has no input there.
MIXTURE = ObjectiveMixture(transcribe_image=0.35, summarize_image=0.35, summarize_text=0.25, repeat_text=0.05)
STEPS = 4


def main(job_path: Path) -> None:
    watch_parent()
    job = json.loads(job_path.read_text())
    start_process_group(job["processes"])
    folder, output, model = Path(job["split"]), Path(job["output"]), job["model"]
    tiny = get_recipe("tiny")
    for stage in job["zero_stages"]:
        engine = EngineConfig(zero_stage=stage)
        pretrain = dataclasses.replace(
            tiny.pretrain,
            doses=(STEPS * BATCH,),
            batch_size=BATCH,
            mixture=MIXTURE,
            engine=engine,
            warmup_steps=1,
        )
        backbone = load_backbone(model, tiny.backbone)
        source = ShardSource(folder)
        train(
            backbone,
            [source],
            [1.0],
            pretrain,
            on_step=lambda step: None,
            on_dose=lambda dose, steps, backbone=backbone, stage=stage: _save(
                dict(backbone.model.named_parameters()), output / f"pretrain-{stage}.safetensors"
            ),
        )
        for arm, changes in ARMS.items():
            refinement = dataclasses.replace(
                tiny.refine,
                **{"steps": 2, "batch_size": 8, "engine": engine, "lora_rank": 4, "lora_alpha": 8}
                | {"learning_rate": 1e-3}
                | changes,
            )
            weights = {}
            refine(
                load_backbone(model, tiny.backbone),
                source,
                read_queries(folder),
                refinement,
                seed=0,
                on_step=lambda step: None,
                on_budget=lambda trained, weights=weights: weights.update(trained.weights),
            )
            refined = put_weights(load_backbone(model, tiny.backbone), weights, refinement, source)
            _save(dict(refined.backbone.model.named_parameters()), output / f"{arm}-{stage}.safetensors")


def _save(weights: dict[str, torch.Tensor], path: Path) -> None:
    if rank() == 0:
        save_file({name: weight.detach().clone() for name, weight in weights.items()}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
