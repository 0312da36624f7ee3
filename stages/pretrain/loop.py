"""The training loop of stage 1: continual generative pretraining (CGP) on page images and their text.

`lco bootstrap` runs the same loop from random weights on the base language.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from data_prep.order import BatchOrder, prefetched
from data_prep.shards import ShardSource
from stages.backbone import Backbone
from stages.pretrain.objectives import (
    GenerativeBucket,
    GenerativeLoss,
    build_sequence,
    objective_of_step,
    summary_targets,
)
from stages.recipes import PretrainConfig
from stages.train.batches import Bucket, bucket_batch, oversized
from stages.train.checkpoint import Checkpoints
from stages.train.engine import (
    Optimization,
    gathered,
    own_rows,
    plan_passes,
    seed_everything,
    step_engine,
    warmup_then_constant,
    warmup_then_decay,
    world_size,
)
from stages.train.flops import TrainedParts
from stages.train.ledger import Step, counts_of
from stages.train.sequences import SequenceBuilder, TokenSequence
from stages.train.training import Descent, begin, run
from stages.train.words import SalientWords

WINDOW_STEPS = 16  # steps whose samples are sorted by length together


@dataclass(frozen=True, kw_only=True)
class Draw:
    """This rank's share of a global batch."""

    objective: str
    sequences: list[TokenSequence]
    words: list[dict[int, float]] | None
    """What each sequence's one-word summary should say; None for objectives with labels."""
    oversized: list[tuple[str, str]]
    """(key, reason) of each sample that was left out."""

    @property
    def labels(self) -> int:
        """Label tokens, or summaries."""
        if self.words is not None:
            return len(self.words)
        return sum(len(sequence) - sequence.label_start for sequence in self.sequences)


def train(
    backbone: Backbone,
    sources: Sequence[ShardSource],
    weights: Sequence[float],
    config: PretrainConfig,
    *,
    wanted: Collection[int] | None = None,
    checkpoints: Checkpoints | None = None,
    on_step: Callable[[Step], None],
    on_dose: Callable[[int, Sequence[Step]], None],
    on_oversized: Callable[[str, str], None] = lambda key, reason: None,
) -> None:
    """Train `backbone` in place up to the highest dose.

    Args:
        sources: training samples; the first is the target language.
        weights: share of each source.
        wanted: the doses of the configuration that are needed (default: all); training ends at the last.
        checkpoints: where to continue from and to save to; None trains from the beginning, in one go.
        on_step: called on every rank after every step.
        on_dose: called on every rank with each wanted dose as it is reached and the steps up to it, whole
            parameters gathered.
        on_oversized: called with the key of a sample over the token budget, and its sizes, on its rank.

    Raises:
        ValueError: a global batch has fewer samples than there are ranks, or none within the budget.
        stages.train.training.Preempted: after a SIGTERM; a checkpoint is saved.
    """
    if config.batch_size < world_size():
        raise ValueError(f"batch size {config.batch_size} is below the number of ranks, {world_size()}")
    wanted = set(config.doses if wanted is None else wanted)
    if 0 in wanted:
        on_dose(0, [])
    if not wanted - {0}:
        return
    seed_everything(config.seed)
    builder = SequenceBuilder(backbone)
    words = SalientWords.fit((text for source in sources for text in source.texts()), backbone.tokenizer)
    root = GenerativeLoss(backbone.model).train()
    backbone.model.model.visual.requires_grad_(config.train_vision)
    first_step, last_step = (dose // config.batch_size for dose in (min(wanted - {0}), max(wanted)))
    training = begin(root, config.engine, _optimization(config), checkpoints=checkpoints, below=first_step)
    remaining = range(len(training.steps), last_step)

    def descend(draw: Draw) -> Descent:
        for sample in draw.oversized:
            on_oversized(*sample)
        passes = [
            [
                _bucket(bucket, draw, builder, vocabulary=backbone.vocabulary, packed=config.engine.packing)
                for bucket in micro_batch
            ]
            for micro_batch in plan_passes(draw.sequences, config.engine, always_an_image=config.train_vision)
        ]
        counts = counts_of(
            draw.sequences,
            [bucket.batch for micro_batch in passes for bucket in micro_batch],
            backbone.model,
            TrainedParts(vision=config.train_vision),
            label_tokens=draw.labels,
            logits=draw.labels,
            oversized=len(draw.oversized),
        ).over_ranks()
        if not counts.label_tokens:
            raise ValueError("no sample of a batch fits the token budget: raise pretrain.engine.text_tokens")
        loss = step_engine(
            training.engine, (training.engine(micro_batch) for micro_batch in passes), counts.label_tokens
        )
        return Descent(objective=draw.objective, loss=loss, examples=config.batch_size, counts=counts)

    def on_descent() -> None:
        dose = len(training.steps) * config.batch_size
        if dose in wanted:
            with gathered(root):
                on_dose(dose, training.steps)

    draws = draw_batches(builder, words, sources, weights, config, remaining)
    run(training, draws, descend, last_step=last_step, on_step=on_step, on_descent=on_descent)
    training.engine.destroy()
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
        samples = [sources[source][position] for source, position in own_rows(order.batch(step))]
        built = [(sample, build_sequence(builder, sample, objective)) for sample in samples]
        fitting = [pair for pair in built if oversized(pair[1], config.engine) is None]
        return Draw(
            objective=objective,
            sequences=[sequence for _, sequence in fitting],
            words=[words.targets(sample.text) for sample, _ in fitting]
            if objective.startswith("summarize")
            else None,
            oversized=[
                (sample.key, reason)
                for sample, sequence in built
                if (reason := oversized(sequence, config.engine))
            ],
        )

    return prefetched(draw, steps)


def _optimization(config: PretrainConfig) -> Optimization:
    last_step = max(config.doses) // config.batch_size
    return Optimization(
        learning_rate=config.learning_rate,
        schedule=warmup_then_decay(config.warmup_steps, config.decay_steps, last_step)
        if config.decay_steps
        else warmup_then_constant(config.warmup_steps),
        weight_decay=config.weight_decay,
        max_gradient_norm=config.max_gradient_norm,
    )


def _bucket(
    bucket: Bucket, draw: Draw, builder: SequenceBuilder, *, vocabulary: int, packed: bool
) -> GenerativeBucket:
    batch = bucket_batch(bucket, draw.sequences, builder, packed=packed)
    targets = None
    if draw.words is not None:
        targets = summary_targets(
            [draw.words[number] for number in bucket.numbers],
            rows=len(batch.ends),
            vocabulary=vocabulary,
        )
    return GenerativeBucket(batch=batch, targets=targets)
