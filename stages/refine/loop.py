"""The training loop of stage 2: light contrastive refinement (CL), as a rule with LoRA on the decoder.

Anchors are queries. Positives are the texts of the pages that answer them and, for a share of the rows, the
page images. Vision tower and projector stay frozen unless the recipe trains the whole model.
"""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from data_prep.order import BatchOrder, Lengths, prefetched
from data_prep.queries import Query
from data_prep.shards import Sample, ShardSource
from stages.backbone import Backbone
from stages.recipes import RefineConfig
from stages.refine.adapter import RefinementError, choose_trained, trained_weights
from stages.refine.contrastive import Rows
from stages.refine.gradcache import Embedder, chunks_of, contrastive_step
from stages.refine.pairs import Pair, answers, by_rank, candidate_keys, draw_pairs
from stages.train.batches import oversized
from stages.train.checkpoint import Checkpoints
from stages.train.engine import (
    Optimization,
    gathered,
    rank,
    seed_everything,
    warmup_then_constant,
    world_size,
)
from stages.train.flops import TrainedParts
from stages.train.ledger import Step, counts_of
from stages.train.sequences import SequenceBuilder, TokenSequence
from stages.train.training import Descent, begin, run


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What was trained, by name, after so many steps, and the temperature it was trained at."""

    steps: int
    weights: dict[str, torch.Tensor]
    temperature: float


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A global batch: this rank's sequences, and what every rank knows of all rows."""

    sequences: list[TokenSequence]
    """Anchors, then positives, then negatives."""
    rows: Rows


def refine(
    backbone: Backbone,
    source: ShardSource,
    queries: Sequence[Query],
    config: RefineConfig,
    *,
    seed: int,
    wanted: Collection[int] = (),
    negatives: Mapping[str, Sequence[str]] | None = None,
    checkpoints: Checkpoints | None = None,
    on_step: Callable[[Step], None],
    on_budget: Callable[[Trained], None],
) -> None:
    """Train up to the largest wanted number of steps; the engine keeps the model that it is given.

    Args:
        wanted: the steps after which `on_budget` is called; default: those of the configuration.
        negatives: mined keys by query identity; see stages.refine.mining.
        on_budget: called on every rank with a copy of what was trained.

    Raises:
        RefinementError: a trainable parameter lies outside the decoder, there are too few queries, an anchor
            has no negative, or a sample is over the token budget.
        stages.train.training.Preempted: after a SIGTERM; a checkpoint is saved.
    """
    seed_everything(seed)
    wanted = set(wanted or [config.steps])
    builder = SequenceBuilder(backbone)
    model = choose_trained(backbone, config)
    root = Embedder(model, temperature=config.temperature, learn_temperature=config.learn_temperature).train()
    training = begin(
        root,
        config.engine,
        Optimization(
            learning_rate=config.learning_rate,
            schedule=warmup_then_constant(config.warmup_steps),
            weight_decay=0.0,
            max_gradient_norm=config.max_gradient_norm,
        ),
        checkpoints=checkpoints,
        below=min(wanted),
    )

    trained_parts = TrainedParts(
        vision=config.trained == "model",
        lora_rank=config.lora_rank if config.trained == "adapter" else 0,
        lora_targets=config.lora_targets,
    )

    def descend(draw: Draw) -> Descent:
        chunks = chunks_of(draw.sequences, builder, config.engine, always_an_image=config.trained == "model")
        loss = contrastive_step(
            training.engine,
            chunks,
            draw.rows,
            symmetric=config.symmetric,
            dimensions=config.matryoshka_dimensions,
        )
        counts = counts_of(
            draw.sequences,
            [batch for chunk in chunks for batch in chunk.batches],
            backbone.model,
            trained_parts,
            label_tokens=draw.rows.anchors[rank()],
            logits=0,
        ).over_ranks()
        return Descent(objective="contrastive", loss=loss, examples=sum(draw.rows.anchors), counts=counts)

    def on_descent() -> None:
        if len(training.steps) in wanted:
            with gathered(root):
                on_budget(
                    Trained(
                        steps=len(training.steps),
                        weights=trained_weights(model),
                        temperature=float(root.log_temperature.detach().exp()),
                    )
                )

    last_step = max(wanted)
    remaining = range(len(training.steps), last_step)
    draws = draw_batches(
        builder, source, queries, config, seed=seed, negatives=negatives or {}, steps=remaining
    )
    run(training, draws, descend, last_step=last_step, on_step=on_step, on_descent=on_descent)
    training.engine.destroy()


def draw_batches(
    builder: SequenceBuilder,
    source: ShardSource,
    queries: Sequence[Query],
    config: RefineConfig,
    *,
    seed: int,
    negatives: Mapping[str, Sequence[str]],
    steps: range,
) -> Iterator[Draw]:
    """Iterate over the steps' batches; sequences are built ahead, in order."""
    mined = {key for keys in negatives.values() for key in keys}
    positions = source.positions_of({key for query in queries for key in query.relevant} | mined)
    usable = [query for query in queries if any(key in positions for key in query.relevant)]
    rows = min(config.batch_size, len(usable))
    if rows < max(2, world_size()):
        raise RefinementError(f"{len(usable)} training queries are too few for a contrastive batch")
    if rows < config.batch_size and rank() == 0:
        print(
            f"batches have {rows} anchors instead of {config.batch_size}: there are no more training "
            "queries, and each has fewer negatives; add documents or queries",
            file=sys.stderr,
            flush=True,
        )
    order = BatchOrder(
        sources=[Lengths.of([len(query.text) for query in usable])],
        weights=[1.0],
        batch_size=rows,
        seed=seed,
        window_steps=1,
    )
    image_rows = round(config.image_share * rows)

    def draw(step: int) -> Draw:
        batch = [usable[position] for _, position in order.batch(step)]
        pairs = draw_pairs(batch, positions, negatives, image_rows=image_rows, seed=seed, step=step)
        dealt = by_rank(pairs, world_size())
        unusable = answers(dealt, source, positions, same_document_negatives=config.same_document_negatives)
        if bool(unusable.all(dim=1).any()):
            raise RefinementError(
                f"an anchor of step {step + 1} has no negative: all other samples come from its document or "
                "equal its positive; set refine.same_document_negatives, or bring more documents"
            )
        return Draw(
            sequences=_sequences(builder, dealt[rank()], lambda key: source[positions[key]], config),
            rows=Rows(
                anchors=[len(mine) for mine in dealt],
                candidates=[len(candidate_keys(mine)) for mine in dealt],
                answers=unusable,
            ),
        )

    return prefetched(draw, steps)


def _sequences(
    builder: SequenceBuilder, pairs: Sequence[Pair], read: Callable[[str], Sample], config: RefineConfig
) -> list[TokenSequence]:
    """One rank's rows: anchors, positives, negatives."""

    def candidate(key: str, *, as_image: bool) -> TokenSequence:
        sample = read(key)
        return builder.summarize_image(sample.image()) if as_image else builder.summarize_text(sample.text)

    anchors = [pair.query.text if config.anchors == "queries" else read(pair.key).text for pair in pairs]
    sequences = [builder.summarize_text(anchor) for anchor in anchors]
    sequences += [candidate(pair.key, as_image=pair.as_image) for pair in pairs]
    sequences += [candidate(key, as_image=pair.as_image) for pair in pairs for key in pair.negatives]
    for sequence in sequences:
        if reason := oversized(sequence, config.engine):
            raise RefinementError(
                f"a training sample cannot be embedded: {reason}; raise it in refine.engine"
            )
    return sequences
