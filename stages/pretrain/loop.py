"""The training loop of stage 1: continual generative pretraining (CGP) on page images and their text.

`lco bootstrap` runs the same loop from random weights on the base language.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from data_prep.order import BatchOrder, prefetched
from data_prep.shards import ShardSource
from stages.backbone import Backbone
from stages.pretrain.objectives import (
    GenerativeLoss,
    build_batch,
    objective_of_step,
    summary_targets,
)
from stages.recipes import PretrainConfig
from stages.train.engine import (
    build_engine,
    gathered,
    global_sum,
    own_rows,
    seed_everything,
    step_engine,
    warmup_then_constant,
    warmup_then_decay,
)
from stages.train.sequences import Batch, SequenceBuilder
from stages.train.words import SalientWords


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step, as reported by rank 0."""

    number: int  # 1-based
    objective: str
    loss: float  # nats per label token, or per summary
    examples: int
    label_tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class LocalBatch:
    """This rank's share of a global batch."""

    objective: str
    batch: Batch
    targets: torch.Tensor | None
    label_count: int


def train(
    backbone: Backbone,
    sources: Sequence[ShardSource],
    weights: Sequence[float],
    config: PretrainConfig,
    *,
    on_step: Callable[[Step], None],
    on_dose: Callable[[int], None],
) -> None:
    """Train `backbone` in place up to the highest dose.

    Args:
        sources: training samples; the first is the target language.
        weights: share of each source.
        on_step: called on every rank after every step.
        on_dose: called on every rank with each dose as it is reached (0 included), whole parameters gathered.
    """
    seed_everything(config.seed)
    builder = SequenceBuilder(backbone)
    words = SalientWords.fit((text for source in sources for text in source.texts()), backbone.tokenizer)
    total_steps = max(config.doses) // config.batch_size
    if 0 in config.doses:
        on_dose(0)
    root = GenerativeLoss(backbone.model).train()
    engine = build_engine(
        root,
        config.engine,
        learning_rate=config.learning_rate,
        schedule=warmup_then_decay(config.warmup_steps, config.decay_steps, total_steps)
        if config.decay_steps
        else warmup_then_constant(config.warmup_steps),
        weight_decay=config.weight_decay,
        max_gradient_norm=config.max_gradient_norm,
    )
    for step, local in enumerate(
        local_batches(builder, words, sources, weights, config, total_steps), start=1
    ):
        started = time.perf_counter()
        label_count = global_sum(local.label_count)
        loss = engine(local.batch, local.targets)
        step_engine(engine, loss, label_count)
        on_step(
            Step(
                number=step,
                objective=local.objective,
                loss=global_sum(float(loss.detach())) / label_count,
                examples=config.batch_size,
                label_tokens=int(label_count),
                seconds=time.perf_counter() - started,
            )
        )
        if step * config.batch_size in config.doses:
            with gathered(root):
                on_dose(step * config.batch_size)
    engine.destroy()
    backbone.model.eval()


def local_batches(
    builder: SequenceBuilder,
    words: SalientWords,
    sources: Sequence[ShardSource],
    weights: Sequence[float],
    config: PretrainConfig,
    total_steps: int,
) -> Iterator[LocalBatch]:
    """Iterate over this rank's batches; samples are decoded ahead, in order."""
    order = BatchOrder(
        lengths=[source.characters() for source in sources],
        weights=weights,
        batch_size=config.batch_size,
        seed=config.seed,
    )

    def local_batch(step: int) -> LocalBatch:
        objective = objective_of_step(config.mixture, seed=config.seed, step=step)
        samples = [sources[source][position] for source, position in own_rows(order.batch(step))]
        batch = build_batch(builder, samples, objective)
        if objective.startswith("summarize"):
            targets = summary_targets(words, samples, len(builder.tokenizer))
            return LocalBatch(objective=objective, batch=batch, targets=targets, label_count=len(samples))
        label_count = int((batch.labels != -100).sum())
        return LocalBatch(objective=objective, batch=batch, targets=None, label_count=label_count)

    return prefetched(local_batch, total_steps)
