"""`lco bootstrap`: train the base of a recipe from random weights, on base-language pages only.

    python -m benchmarks.sample_documents --packages unpacked --base-corpus base_corpus
    lco bootstrap --documents base_corpus --output stages/base/tiny

Two phases of one loop: first mostly transcription, until the model reads; then mostly one-word summaries,
until a page image and its text are summarised alike. Transcription alone gives a model that reads perfectly
and embeds at chance.
"""

import datetime
import json
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.progress import Progress, TextColumn

from data_prep.prepare import prepare_documents
from data_prep.shards import ShardSource
from infra.store import LocalStore
from stages.backbones.tiny import build_tiny_backbone
from stages.pretrain.config import BootstrapConfig, ObjectiveMixture, PretrainConfig
from stages.pretrain.loop import pretrain_steps
from stages.recipes import Recipe
from stages.train.config import EngineConfig
from stages.train.engine import start_process_group

READING = ObjectiveMixture(transcribe_image=0.85, summarize_image=0.0, summarize_text=0.05, repeat_text=0.10)
SUMMARISING = ObjectiveMixture(
    transcribe_image=0.25, summarize_image=0.45, summarize_text=0.25, repeat_text=0.05
)
READING_CHARACTERS = 48  # short lines first: reading is learned sooner, and each step is cheaper


def phases(config: BootstrapConfig, engine: EngineConfig) -> list[PretrainConfig]:
    """The two phases of a bootstrap; the learning rate falls to zero at the end."""
    steps, batch_size = config.steps, config.batch_size
    reading = int(steps * 0.4)
    first = PretrainConfig(
        doses=(reading * batch_size,),
        batch_size=batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=100,
        replay_share=0.0,
        mixture=READING,
        engine=engine,
    )
    second = replace(
        first,
        doses=((steps - reading) * batch_size,),
        warmup_steps=20,
        decay_steps=(steps - reading) // 2,
        mixture=SUMMARISING,
        seed=1,
    )
    return [first, second]


def bootstrap(
    recipe: Recipe, config: BootstrapConfig, documents: Path, output: Path, *, work: Path, workers: int
) -> None:
    """Train on the train split of `documents`; write weights, tokenizer, processor and training.json.

    `workers` processes read documents. Raises NoUsableDocuments and stages.train.divergence.DivergenceError.
    """
    start_process_group()
    engine = replace(recipe.pretrain.engine, processes=1)
    with Progress(*Progress.get_default_columns(), TextColumn("{task.fields[loss]}")) as progress:
        bar = progress.add_task("reading documents", total=None, loss="")
        prepared = prepare_documents(
            documents,
            recipe.documents,
            LocalStore(work / "store"),
            lambda done, total, label: progress.update(bar, completed=done, total=total, description=label),
            workers=workers,
        )
        backbone = build_tiny_backbone(config.shape, recipe.backbone, seed=0)
        started, left_out = time.monotonic(), 0
        progress.reset(bar, total=config.steps, description="training", loss="")

        for phase, longest in zip(phases(config, engine), (READING_CHARACTERS, None), strict=True):
            source = ShardSource(prepared.train.path, trainable_only=True, max_characters=longest)
            milestones = [dose // phase.batch_size for dose in phase.doses]
            for step in pretrain_steps(backbone, [source], [1.0], phase, milestones=milestones):
                left_out += bool(step.skipped)
                told = "skipped" if step.skipped else f"{step.loss:.2f}"
                progress.update(bar, advance=1, loss=f"{step.objective} {told}")
            backbone.save(work / "unfinished")
    backbone.save(output)
    facts = {
        "steps": config.steps,
        "skipped_steps": left_out,
        "shape": asdict(config.shape),
        "parameters": sum(parameter.numel() for parameter in backbone.model.parameters()),
        "documents_digest": prepared.train.manifest.content_digest,
        "documents_counts": prepared.train.manifest.counts,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }
    (output / "training.json").write_text(json.dumps(facts, indent=1))
    print(f"The base model is in {output}")
