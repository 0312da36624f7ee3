"""The training loop of stage 1: continual generative pretraining (CGP) on page images and their text.

`lco bootstrap` runs the same loop from random weights on the base language.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
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
    world_size,
)
from stages.train.sequences import Batch, SequenceBuilder
from stages.train.words import SalientWords

WINDOW_STEPS = 16  # steps whose samples are sorted by length together


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
    wanted: Collection[int] | None = None,
    on_step: Callable[[Step], None],
    on_dose: Callable[[int], None],
) -> None:
    """Train `backbone` in place up to the highest dose.

    Args:
        sources: training samples; the first is the target language.
        weights: share of each source.
        wanted: the doses of the configuration that are needed (default: all); training ends at the last.
        on_step: called on every rank after every step.
        on_dose: called on every rank with each wanted dose as it is reached, whole parameters gathered.

    Raises:
        ValueError: a global batch has fewer samples than there are ranks.
    """
    if config.batch_size < world_size():
        raise ValueError(f"batch size {config.batch_size} is below the number of ranks, {world_size()}")
    wanted = config.doses if wanted is None else wanted
    seed_everything(config.seed)
    builder = SequenceBuilder(backbone)
    words = SalientWords.fit((text for source in sources for text in source.texts()), backbone.tokenizer)
    total_steps = max(config.doses) // config.batch_size
    if 0 in wanted:
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
    last_step = max(wanted) // config.batch_size
    for step, local in enumerate(local_batches(builder, words, sources, weights, config, last_step), start=1):
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
        if step * config.batch_size in wanted:
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
    steps: int,
) -> Iterator[LocalBatch]:
    """Iterate over this rank's batches; samples are decoded ahead, in order."""
    # A window of more than one epoch would sort copies of one sample into one batch.
    epoch = min(len(source) / weight for source, weight in zip(sources, weights, strict=True) if weight)
    order = BatchOrder(
        lengths=[source.characters() for source in sources],
        weights=weights,
        batch_size=config.batch_size,
        seed=config.seed,
        window_steps=max(1, min(WINDOW_STEPS, int(epoch // config.batch_size))),
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

    return prefetched(local_batch, steps)
