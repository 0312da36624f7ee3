"""Label tokens per second of our generative pretraining and of transformers' Trainer with a padding collator.

    .venv/bin/python -m tests.bench.generative

Recipe tiny's base, transcribing page images in float32 with AdamW, all weights trained, on the same samples.
Both decode and tokenize while they train. First the gradients of one batch are shown to be equal; then the
trainings alternate.
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainingArguments

from data_prep.order import BatchOrder
from data_prep.samples import Sample
from data_prep.shards import ShardSource
from stages.backbones.backbone import load_backbone
from stages.pretrain.config import ObjectiveMixture
from stages.pretrain.loop import WINDOW_STEPS, pretrain_steps
from stages.pretrain.objectives import GenerativeLoss, build_sequence
from stages.recipes import get_recipe
from stages.train.batches import IGNORED_LABEL
from stages.train.engine import plan_passes, start_process_group
from stages.train.sequences import SequenceBuilder, TokenSequence
from tests.bench.measure import DecoderCalls, Moment, Run, in_turn, sample_documents, show
from tests.unit.stages.conftest import relative_difference

RECIPE = get_recipe("tiny")
OBJECTIVE = "transcribe_image"
WARM_UP, STEPS = 2, WINDOW_STEPS
"""Ours sorts the samples of a window by length: whole windows are measured."""
CONFIG = replace(
    RECIPE.pretrain,
    doses=((WARM_UP + STEPS) * RECIPE.pretrain.batch_size,),
    replay_share=0.0,
    mixture=ObjectiveMixture(transcribe_image=1.0, summarize_image=0.0, summarize_text=0.0, repeat_text=0.0),
    engine=replace(RECIPE.pretrain.engine, processes=1),
)
OURS = "ours"
TRAINER = "Trainer"
TRAINER_GROUPED = "Trainer, grouped by length"
VARIANTS = (OURS, TRAINER, TRAINER_GROUPED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    split = sample_documents().train.path
    runs: dict[str, list[Run]] = {variant: [] for variant in VARIANTS}
    # The Trainer wraps its model for several processes where the engine has started a process group.
    with ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as fresh:
        print(fresh.submit(compare, split).result(), flush=True)
        for _, variant in in_turn(VARIANTS, arguments.runs):
            runs[variant].append(fresh.submit(measure, split, variant, arguments.threads).result())
    title = f"Generative step, {OBJECTIVE}, batch {CONFIG.batch_size}, {arguments.threads} threads"
    show(title, "label tokens/s", runs, OURS)


def measure(split: Path, variant: str, threads: int) -> Run:
    """Measure one training, in a process of its own."""
    torch.set_num_threads(threads)
    source = ShardSource(split, trainable_only=True)
    return train_ours(source) if variant == OURS else train_with_trainer(drawn(source), variant)


def drawn(source: ShardSource) -> list[Sample]:
    """Return the samples that our training draws."""
    how = {"batch_size": CONFIG.batch_size, "seed": CONFIG.seed, "window_steps": WINDOW_STEPS}
    order = BatchOrder(sources=[source], weights=[1.0], **how)
    return [source[position] for step in range(WARM_UP + STEPS) for _, position in order.batch(step)]


def train_ours(source: ShardSource) -> Run:
    """Run the loop of stage 1 as it is, with its loader."""
    start_process_group()
    backbone = load_backbone(RECIPE.backbone.location, RECIPE.backbone)
    steps, moments, calls = [], [], DecoderCalls()
    for step in pretrain_steps(backbone, [source], [1.0], CONFIG, milestones=(WARM_UP + STEPS,)):
        steps.append(step)
        moments.append(Moment.now())
        if step.number == WARM_UP:
            decoder = backbone.family.decoder(backbone.model)
            decoder.register_forward_pre_hook(calls, with_kwargs=True)
    return Run(
        work=sum(step.label_tokens for step in steps[WARM_UP:]),
        took=moments[-1] - moments[WARM_UP - 1],
        calls=calls.calls,
        tokens=sum(step.tokens for step in steps[WARM_UP:]),
        positions=sum(step.positions for step in steps[WARM_UP:]),
    )


class Timed(Trainer):
    """Notes when each step begins, and its label tokens."""

    def training_step(self, model, inputs, *rest, **options):
        self.moments.append(Moment.now())
        self.labels.append(int((inputs["labels"] != IGNORED_LABEL).sum()))
        if len(self.moments) == WARM_UP + 1:
            model.model.language_model.register_forward_pre_hook(self.counted, with_kwargs=True)
        return super().training_step(model, inputs, *rest, **options)


def train_with_trainer(samples: list[Sample], variant: str) -> Run:
    """Train on the same samples in an order of its own.

    Its loader builds the sequences in this process, so that their time counts as it does in ours.
    """
    backbone = load_backbone(RECIPE.backbone.location, RECIPE.backbone)
    builder = SequenceBuilder(backbone)
    optimizer = torch.optim.AdamW(
        backbone.model.parameters(),
        lr=CONFIG.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=CONFIG.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / CONFIG.warmup_steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Timed(
            backbone.model,
            TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=CONFIG.batch_size,
                num_train_epochs=1,
                max_grad_norm=CONFIG.max_gradient_norm,
                train_sampling_strategy="group_by_length" if variant == TRAINER_GROUPED else "random",
                use_cpu=True,
                report_to="none",
                logging_strategy="no",
                save_strategy="no",
                disable_tqdm=True,
                remove_unused_columns=False,
            ),
            train_dataset=Sequences(samples, builder),
            data_collator=lambda items: padded([item["sequence"] for item in items], builder.pad_token),
            optimizers=(optimizer, schedule),
        )
        trainer.moments, trainer.labels, trainer.counted = [], [], DecoderCalls()
        trainer.train()
        ended = Moment.now()
    return Run(
        work=sum(trainer.labels[WARM_UP:]),
        took=ended - trainer.moments[WARM_UP],
        calls=trainer.counted.calls,
        tokens=trainer.counted.tokens,
        positions=trainer.counted.positions,
    )


class Sequences(torch.utils.data.Dataset):
    """Samples that are decoded and tokenized when they are asked for; `input_ids` tells the length."""

    def __init__(self, samples: list[Sample], builder: SequenceBuilder) -> None:
        self.samples, self.builder = samples, builder

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> dict:
        sequence = build_sequence(self.builder, self.samples[number], OBJECTIVE)
        return {"sequence": sequence, "input_ids": sequence.ids}


def padded(sequences: list[TokenSequence], pad_token: int) -> dict[str, torch.Tensor]:
    """Inputs of the generation class, rows as long as the longest. Given positions save it time."""
    rows = [torch.tensor(sequence.ids) for sequence in sequences]
    labels = [row.clone() for row in rows]
    for row, sequence in zip(labels, sequences, strict=True):
        row[: sequence.label_start] = IGNORED_LABEL
    positions = [torch.from_numpy(sequence.positions.copy()).T for sequence in sequences]
    return {
        "input_ids": pad_sequence(rows, batch_first=True, padding_value=pad_token),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED_LABEL),
        "position_ids": pad_sequence(positions, batch_first=True).permute(2, 0, 1),
        "pixel_values": torch.cat([torch.from_numpy(sequence.patches) for sequence in sequences]),
        "image_grid_thw": torch.tensor([sequence.grid for sequence in sequences]),
    }


def compare(split: Path) -> str:
    """Say how far the peer's loss and gradient of one batch are from ours, before any optimiser."""
    start_process_group()
    samples = drawn(ShardSource(split, trainable_only=True))[: CONFIG.batch_size]
    backbone = load_backbone(RECIPE.backbone.location, RECIPE.backbone)
    builder, model = SequenceBuilder(backbone), backbone.model
    sequences = [build_sequence(builder, sample, OBJECTIVE) for sample in samples]
    theirs = model(**padded(sequences, builder.pad_token)).loss
    theirs.backward()
    expected = dict(gradients(model))
    model.zero_grad()
    count = sum(len(sequence) - sequence.label_start for sequence in sequences)
    ours = 0.0
    for passes in plan_passes(sequences, builder, CONFIG.engine):
        summed = GenerativeLoss(model)(passes)
        (summed / count).backward()
        ours += float(summed.detach()) / count
    difference = relative_difference(expected, dict(gradients(model)))
    loss = abs(ours / float(theirs.detach()) - 1)
    return f"loss differs by {loss:.1e}, gradient by {difference:.1e} (relative)"


def gradients(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, p.grad.clone()) for name, p in model.named_parameters() if p.grad is not None)


if __name__ == "__main__":
    main()
