"""The training loop of stage 2: light contrastive refinement (CL) with LoRA on the language decoder.

Anchors are queries. Positives are the texts of the pages that answer them and, in the arm `multimodal-20`,
the page images for a share of the rows. Vision tower and projector stay frozen.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from data_prep.order import BatchOrder, Lengths, prefetched
from data_prep.queries import Query
from data_prep.shards import Sample, ShardSource
from stages.backbone import Backbone
from stages.recipes import Arm, RefineConfig
from stages.refine.adapter import RefinementError, adapter_weights, add_adapter, merge_adapters
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
from stages.train.flops import Trained
from stages.train.ledger import Step, counts_of
from stages.train.sequences import SequenceBuilder, TokenSequence
from stages.train.training import Descent, begin, run


@dataclass(frozen=True, kw_only=True)
class Refined:
    """A refined model, its adapter before the merge, and the temperature it was trained at."""

    backbone: Backbone
    adapter: dict[str, torch.Tensor]
    temperature: float


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A global batch: this rank's sequences, and what every rank knows of all rows."""

    sequences: list[TokenSequence]
    """Anchors, then positives, then negatives."""
    rows: Rows


def refine(
    load: Callable[[], Backbone],
    source: ShardSource,
    queries: Sequence[Query],
    config: RefineConfig,
    *,
    seed: int,
    arm: Arm,
    negatives: Mapping[str, Sequence[str]] | None = None,
    checkpoints: Checkpoints | None = None,
    on_step: Callable[[Step], None],
) -> Refined:
    """Train a LoRA adapter and return the backbone with the adapter merged into it.

    Args:
        load: opens the backbone; called again for the merge, since an engine changes the model it holds.
        negatives: mined keys by query identity; see stages.refine.mining.

    Raises:
        RefinementError: a trainable parameter lies outside the decoder, there are too few queries, an anchor
            has no negative, a sample is over the token budget, or the merged model's vectors differ from the
            unmerged one's.
        stages.train.training.Preempted: after a SIGTERM; a checkpoint is saved.
    """
    seed_everything(seed)
    backbone = load()
    builder = SequenceBuilder(backbone)
    model = add_adapter(backbone, config)
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
        below=config.steps + 1,
    )

    def descend(draw: Draw) -> Descent:
        chunks = chunks_of(draw.sequences, builder, config.engine)
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
            Trained(vision=False, lora_rank=config.lora_rank, lora_targets=config.lora_targets),
            label_tokens=draw.rows.anchors[rank()],
            logits=0,
        ).over_ranks()
        return Descent(objective="contrastive", loss=loss, examples=sum(draw.rows.anchors), counts=counts)

    remaining = range(len(training.steps), config.steps)
    draws = draw_batches(
        builder, source, queries, config, seed=seed, arm=arm, negatives=negatives or {}, steps=remaining
    )
    run(training, draws, descend, last_step=config.steps, on_step=on_step)
    with gathered(root):
        adapter = adapter_weights(model)
        temperature = float(root.log_temperature.detach().exp())
    training.engine.destroy()
    merged = merge_adapters(load(), [adapter], config, source)
    return Refined(backbone=merged, adapter=adapter, temperature=temperature)


def draw_batches(
    builder: SequenceBuilder,
    source: ShardSource,
    queries: Sequence[Query],
    config: RefineConfig,
    *,
    seed: int,
    arm: Arm,
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
    order = BatchOrder(
        sources=[Lengths.of([len(query.text) for query in usable])],
        weights=[1.0],
        batch_size=rows,
        seed=seed,
        window_steps=1,
    )
    image_rows = round(config.image_share * rows) if arm == "multimodal-20" else 0

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

    sequences = [builder.summarize_text(pair.query.text) for pair in pairs]
    sequences += [candidate(pair.key, as_image=pair.as_image) for pair in pairs]
    sequences += [candidate(key, as_image=pair.as_image) for pair in pairs for key in pair.negatives]
    for sequence in sequences:
        if reason := oversized(sequence, config.engine):
            raise RefinementError(
                f"a training sample cannot be embedded: {reason}; raise it in refine.engine"
            )
    return sequences
