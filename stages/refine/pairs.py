"""Which anchors meet which candidates: a pure function of (seed, step), the same on every rank."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from data_prep.order import BatchOrder, Lengths, prefetched
from data_prep.queries import Query
from data_prep.samples import Sample
from data_prep.shards import ShardSource
from stages.backbones.adapters import RefinementError
from stages.refine.anchors import facts_of_equals, too_few_anchors, usable_queries
from stages.refine.config import NEGATIVES, RefineConfig
from stages.refine.gradcache import Rows
from stages.train.batches import oversized
from stages.train.engine import rank, world_size
from stages.train.sequences import SequenceBuilder, TokenSequence


@dataclass(frozen=True, kw_only=True)
class TrainSplit:
    """What every cell is trained on."""

    source: ShardSource
    queries: Sequence[Query]
    negatives: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Mined keys by query identity; see stages.refine.mining."""


def read_negatives(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return {query identity: keys of its negatives} of a committed output."""
    lines = (Path(folder) / NEGATIVES).read_text(encoding="utf-8").splitlines()
    return {record["query"]: tuple(record["negatives"]) for record in map(json.loads, lines)}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An anchor, the keys of its positive and of its mined negatives, and whether those are page images."""

    query: Query
    key: str
    negatives: tuple[str, ...]
    as_image: bool


def draw_batches(
    builder: SequenceBuilder, split: TrainSplit, config: RefineConfig, *, seed: int, steps: range
) -> Iterator[tuple[list[TokenSequence], Rows]]:
    """Iterate over the steps' batches: this rank's sequences, and what every rank knows of all rows.

    Sequences are built ahead, in order.
    """
    source = split.source
    mined = {key for keys in split.negatives.values() for key in keys}
    positions = source.positions_of({key for query in split.queries for key in query.relevant} | mined)
    usable = usable_queries(split.queries, positions)
    count = min(config.batch_size, len(usable))
    if reason := too_few_anchors(len(usable), batch_size=config.batch_size, ranks=world_size()):
        raise RefinementError(reason)
    if count < config.batch_size and rank() == 0:
        print(
            f"batches have {count} anchors instead of {config.batch_size}: there are no more training "
            "queries, and each has fewer negatives; add documents or queries",
            file=sys.stderr,
            flush=True,
        )
    order = BatchOrder(
        sources=[Lengths.of([len(query.text) for query in usable])],
        weights=[1.0],
        batch_size=count,
        seed=seed,
        window_steps=1,
    )
    image_rows = round(config.image_share * count)

    def draw(step: int) -> tuple[list[TokenSequence], Rows]:
        batch = [usable[position] for _, position in order.batch(step)]
        pairs = draw_pairs(batch, positions, split.negatives, image_rows=image_rows, seed=seed, step=step)
        dealt = by_rank(pairs, world_size())
        unusable = answers(dealt, source, positions, same_document_negatives=config.same_document_negatives)
        if bool(unusable.all(dim=1).any()):
            raise RefinementError(
                f"an anchor of step {step + 1} has no negative: all other samples come from its document or "
                "equal its positive; set refine.same_document_negatives, or bring more documents"
            )
        rows = Rows(
            anchors=[len(mine) for mine in dealt],
            candidates=[len(candidate_keys(mine)) for mine in dealt],
            answers=unusable,
        )
        return _sequences(builder, dealt[rank()], lambda key: source[positions[key]], config), rows

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


def draw_pairs(
    batch: Sequence[Query],
    positions: Mapping[str, int],
    negatives: Mapping[str, Sequence[str]],
    *,
    image_rows: int,
    seed: int,
    step: int,
) -> list[Pair]:
    """Shuffle the batch, draw a positive for each query and make the first `image_rows` of them images.

    Args:
        positions: of the samples that can be trained on, by key.
        negatives: mined keys for a query's identity; none where it is absent.
    """
    generator = np.random.default_rng((seed, step, 2))
    return [
        Pair(
            query=batch[index],
            key=str(generator.choice([key for key in batch[index].relevant if key in positions])),
            negatives=tuple(negatives.get(batch[index].identity, ())),
            as_image=row < image_rows,
        )
        for row, index in enumerate(generator.permutation(len(batch)))
    ]


def by_rank(pairs: Sequence[Pair], ranks: int) -> list[list[Pair]]:
    """Deal a global batch out: row r belongs to rank r modulo the number of ranks."""
    return [list(pairs[number::ranks]) for number in range(ranks)]


def candidate_keys(pairs: Sequence[Pair]) -> list[str]:
    """One rank's candidates: all positives, then all negatives."""
    return [pair.key for pair in pairs] + [key for pair in pairs for key in pair.negatives]


def answers(
    dealt: Sequence[Sequence[Pair]],
    source: ShardSource,
    positions: Mapping[str, int],
    *,
    same_document_negatives: bool,
) -> torch.Tensor:
    """Return [anchors, candidates] bool over all ranks: which candidates must not count as negatives.

    Those that answer the anchor too, that have the text or the image of its positive, and, unless
    `same_document_negatives`, that come from the positive's document.
    """
    anchors = [pair for pairs in dealt for pair in pairs]
    candidates = [key for pairs in dealt for key in candidate_keys(pairs)]
    relevant = [set(pair.query.relevant) for pair in anchors]
    result = torch.tensor([[key in keys for key in candidates] for keys in relevant])
    facts = facts_of_equals(same_document_negatives=same_document_negatives)
    entries = {key: source.entry(positions[key]) for key in {*candidates, *(pair.key for pair in anchors)}}
    for fact in facts:
        positive = np.array([entries[pair.key][fact] for pair in anchors])
        candidate = np.array([entries[key][fact] for key in candidates])
        result |= torch.from_numpy(positive[:, None] == candidate[None, :])
    return result
