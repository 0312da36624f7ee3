"""The training loop of stage 2: light contrastive refinement (CL) with LoRA on the language decoder.

Anchors are queries. Positives are the texts of the pages that answer them and, in the arm `multimodal-20`,
the page images for a share of the rows. Vision tower and projector stay frozen.
"""

import re
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, replace

import numpy as np
import peft
import torch

from data_prep.order import BatchOrder
from data_prep.queries import Query
from data_prep.shards import Sample, ShardSource
from stages.backbone import Backbone
from stages.recipes import Arm, RefineConfig
from stages.refine.contrastive import ContrastiveLoss, EmbeddedRows, rows_by_length
from stages.train.engine import (
    build_engine,
    gathered,
    global_sum,
    rank,
    seed_everything,
    step_engine,
    warmup_then_constant,
    world_size,
)
from stages.train.sequences import SequenceBuilder, TokenSequence, embed

DECODER = r"model\.language_model\.layers\.\d+\."
MINIMUM_MERGE_COSINE = 0.9999
ROWS_PER_BATCH = 32


class RefinementError(Exception):
    """The adapter does not train what it should, or does not survive its merge."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step."""

    number: int
    loss: float  # nats per anchor
    anchors: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An anchor, the key of its positive, and whether that is the page's image or its text."""

    query: Query
    key: str
    as_image: bool


def refine(
    backbone: Backbone,
    source: ShardSource,
    queries: list[Query],
    config: RefineConfig,
    *,
    seed: int,
    arm: Arm,
    on_step: Callable[[Step], None],
) -> Backbone:
    """Train a LoRA adapter and return the backbone with the adapter merged into it.

    Raises:
        RefinementError: the ZeRO stage is 3, a trainable parameter lies outside the decoder, there are too
            few queries, or the merged model's vectors differ from the unmerged one's.
    """
    if config.engine.zero_stage == 3:
        # Its hooks shard the parameters again after every forward pass, also while they are merged.
        raise RefinementError("refinement runs under ZeRO 0, 1 or 2, not 3: change refine.engine.zero_stage")
    seed_everything(seed)
    builder = SequenceBuilder(backbone)
    model = add_adapter(backbone, config)
    positions = source.positions
    usable = [query for query in queries if any(key in positions for key in query.relevant)]
    rows = min(config.batch_size, len(usable)) // world_size() * world_size()
    if rows < 2:
        raise RefinementError(f"{len(usable)} training queries are too few for a contrastive batch")
    order = BatchOrder(
        lengths=[[len(query.text) for query in usable]],
        weights=[1.0],
        batch_size=rows,
        seed=seed,
        window_steps=1,
    )
    root = ContrastiveLoss(model, config.temperature).train()
    engine = build_engine(
        root,
        config.engine,
        learning_rate=config.learning_rate,
        schedule=warmup_then_constant(config.warmup_steps),
        weight_decay=0.0,
        max_gradient_norm=config.max_gradient_norm,
    )
    # The same number of images on every rank: under ZeRO 3 each forward pass is a collective.
    image_share = config.image_share if arm == "multimodal-20" else 0.0
    image_rows = round(image_share * rows / world_size()) * world_size()
    for number in range(config.steps):
        started = time.perf_counter()
        pairs = draw_pairs(
            [usable[position] for _, position in order.batch(number)],
            positions,
            image_rows=image_rows,
            seed=seed,
            step=number,
        )
        loss = engine(*local_inputs(builder, pairs, lambda key: source[positions[key]]))
        step_engine(engine, loss, rows)
        mean_loss = global_sum(float(loss.detach())) / rows
        seconds = time.perf_counter() - started
        on_step(Step(number=number + 1, loss=mean_loss, anchors=rows, seconds=seconds))
    with gathered(root):
        merged = merge_adapter(backbone, model, builder, source)
    engine.destroy()
    return merged


def draw_pairs(
    batch: list[Query], trainable: Container[str], *, image_rows: int, seed: int, step: int
) -> list[Pair]:
    """Shuffle the batch, draw a positive for each query and make the first `image_rows` positives images.

    A pure function of its arguments: every rank draws the same pairs.
    """
    generator = np.random.default_rng((seed, step, 2))
    return [
        Pair(
            query=batch[index],
            key=str(generator.choice([key for key in batch[index].relevant if key in trainable])),
            as_image=row < image_rows,
        )
        for row, index in enumerate(generator.permutation(len(batch)))
    ]


def add_adapter(backbone: Backbone, config: RefineConfig) -> peft.PeftModel:
    """Put LoRA on the decoder's projections and freeze everything else.

    Raises:
        RefinementError: a trainable parameter is not a LoRA weight of the decoder.
    """
    lora = peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=DECODER + rf".*({'|'.join(config.lora_targets)})",
    )
    model = peft.get_peft_model(backbone.model, lora)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    outside = [name for name in trainable if not re.search(DECODER + r".*\.lora_[AB]\.", name)]
    if outside or not trainable:
        raise RefinementError(f"trainable outside the decoder's LoRA: {outside or 'nothing is trainable'}")
    return model


def local_inputs(
    builder: SequenceBuilder, pairs: list[Pair], read_sample: Callable[[str], Sample]
) -> tuple[EmbeddedRows, torch.Tensor, torch.Tensor]:
    """Build this rank's arguments of `ContrastiveLoss.forward` from the global batch."""
    by_rank = [pairs[number :: world_size()] for number in range(world_size())]
    mine, everyone = by_rank[rank()], [pair for rows in by_rank for pair in rows]
    first = sum(len(rows) for rows in by_rank[: rank()])
    same = torch.tensor([[b.key in a.query.relevant for b in everyone] for a in mine])
    own = torch.arange(first, first + len(mine))
    anchors = [builder.summarize_text(pair.query.text) for pair in mine]
    positives = [_positive(builder, read_sample(pair.key), as_image=pair.as_image) for pair in mine]
    return rows_by_length(builder, anchors + positives, ROWS_PER_BATCH), same, own


def _positive(builder: SequenceBuilder, sample: Sample, *, as_image: bool) -> TokenSequence:
    return builder.summarize_image(sample.image()) if as_image else builder.summarize_text(sample.text)


@torch.no_grad()
def merge_adapter(
    backbone: Backbone, model: peft.PeftModel, builder: SequenceBuilder, source: ShardSource
) -> Backbone:
    """Merge the adapter into the weights and compare vectors before and after on a few samples.

    Raises:
        RefinementError: some cosine between unmerged and merged vectors is below 0.9999.
    """
    samples = [source[position] for position in range(min(8, len(source)))]
    probes = [
        builder.collate([builder.summarize_text(sample.text) for sample in samples]),
        builder.collate([builder.summarize_image(sample.image()) for sample in samples]),
    ]
    model.eval()
    unmerged = replace(backbone, model=model.get_base_model())
    before = torch.cat([embed(unmerged, probe) for probe in probes])
    changed = sorted(
        name.removeprefix("base_model.model.").split(".lora_A")[0] + ".weight"
        for name, _ in model.named_parameters()
        if ".lora_A." in name
    )
    merged = replace(
        backbone,
        model=model.merge_and_unload().eval(),
        contract=replace(backbone.contract, adapter_keys=tuple(changed)),
    )
    after = torch.cat([embed(merged, probe) for probe in probes])
    cosine = float((before * after).sum(dim=-1).min())
    if cosine < MINIMUM_MERGE_COSINE:
        raise RefinementError(f"merging the adapter changed its vectors: cosine {cosine:.6f}")
    return merged
