"""The training loop of stage 1: continual generative pretraining (CGP) on page images and their text.

`lco bootstrap` runs the same loop from random weights on the base language.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch

from data_prep.order import BatchOrder, prefetched
from data_prep.shards import ShardSource
from stages.backbones.backbone import Backbone
from stages.pretrain.config import PretrainConfig
from stages.pretrain.controls import ShuffledTexts
from stages.pretrain.objectives import GenerativeLoss, build_sequence, objective_of_step
from stages.train.batches import oversized
from stages.train.checkpoint import Checkpoints
from stages.train.engine import Optimization, plan_passes, rank, schedule, step_engine, world_size
from stages.train.flops import TrainedParts
from stages.train.ledger import Step, counts_of
from stages.train.loop import Training
from stages.train.sequences import SequenceBuilder, TokenSequence
from stages.train.words import SalientWords

WINDOW_STEPS = 16  # steps whose samples are sorted by length together


@dataclass(frozen=True, kw_only=True)
class Draw:
    """This rank's share of a global batch."""

    objective: str
    sequences: list[TokenSequence]
    words: list[dict[int, float]] | None
    """What each sequence's one-word summary should say; None for objectives with labels."""
    oversized: int
    """Samples that were left out."""

    @property
    def labels(self) -> int:
        """Label tokens, or summaries."""
        if self.words is not None:
            return len(self.words)
        return sum(len(sequence) - sequence.label_start for sequence in self.sequences)


def pretrain_steps(
    backbone: Backbone,
    sources: Sequence[ShardSource | ShuffledTexts],
    weights: Sequence[float],
    config: PretrainConfig,
    *,
    milestones: Collection[int],
    checkpoints: Checkpoints | None = None,
) -> Iterator[Step]:
    """Train `backbone` in place up to the last milestone; yield every step, on every rank: see
    `stages.train.loop`.

    Without milestones there is nothing to do. Under ZeRO 3 the weights are whole inside
    `stages.train.engine.gathered` only.

    Args:
        weights: share of each source.

    Raises:
        ValueError: a global batch has fewer samples than there are ranks, or none within the budget.
        stages.train.divergence.DivergenceError: too many steps could not be made.
    """
    if config.batch_size < world_size():
        raise ValueError(f"batch size {config.batch_size} is below the number of ranks, {world_size()}")
    if not milestones:
        return
    torch.manual_seed(config.seed)
    builder = SequenceBuilder(backbone)
    words = SalientWords.fit((text for source in sources for text in source.texts()), backbone.tokenizer)
    backbone.family.vision(backbone.model).requires_grad_(config.train_vision)
    optimization = Optimization(
        learning_rate=config.learning_rate,
        schedule=schedule(
            config.warmup_steps,
            decay_steps=config.decay_steps,
            last_step=max(config.doses) // config.batch_size,
        ),
        weight_decay=config.weight_decay,
        max_gradient_norm=config.max_gradient_norm,
    )
    root = GenerativeLoss(backbone.model).train()
    training = Training.begin(root, config.engine, optimization, milestones, checkpoints)
    yield from list(training.ledger)
    batches = draw_batches(builder, words, sources, weights, config, training.remaining)
    for draw in training.steps(batches):
        micro_batches = plan_passes(
            draw.sequences, builder, config.engine, always_an_image=config.train_vision
        )
        counts = counts_of(
            draw.sequences,
            micro_batches,
            backbone.model,
            TrainedParts(vision=config.train_vision),
            label_tokens=draw.labels,
            logits=draw.labels,
            oversized=draw.oversized,
        )
        if not counts["label_tokens"]:
            raise ValueError("no sample of a batch fits the token budget: raise pretrain.engine.text_tokens")
        losses = (training.engine(passes, draw.words) for passes in micro_batches)
        loss, made = step_engine(training.engine, losses, counts["label_tokens"])
        yield training.record(
            objective=draw.objective, loss=loss, made=made, examples=config.batch_size, counts=counts
        )
    backbone.model.eval()


def draw_batches(
    builder: SequenceBuilder,
    words: SalientWords,
    sources: Sequence[ShardSource],
    weights: Sequence[float],
    config: PretrainConfig,
    steps: range,
) -> Iterator[Draw]:
    """Iterate over this rank's share of each step's batch; samples are decoded ahead, in order."""
    # A window of more than one epoch would sort copies of one sample into one batch.
    epoch = min(len(source) / weight for source, weight in zip(sources, weights, strict=True) if weight)
    order = BatchOrder(
        sources=sources,
        weights=weights,
        batch_size=config.batch_size,
        seed=config.seed,
        window_steps=max(1, min(WINDOW_STEPS, int(epoch // config.batch_size))),
    )

    def draw(step: int) -> Draw:
        objective = objective_of_step(config.mixture, seed=config.seed, step=step)
        sequences, texts, left_out = [], [], 0
        for source, position in order.batch(step)[rank() :: world_size()]:
            sample = sources[source][position]
            sequence = build_sequence(builder, sample, objective)
            if reason := oversized(sequence, config.engine):
                print(f"sample {sample.key} is left out: {reason}", file=sys.stderr, flush=True)
                left_out += 1
            else:
                sequences.append(sequence)
                texts.append(sample.text)
        targets = list(map(words.targets, texts)) if objective.startswith("summarize") else None
        return Draw(objective=objective, sequences=sequences, words=targets, oversized=left_out)

    return prefetched(draw, steps)
