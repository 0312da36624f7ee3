"""Which anchors meet which candidates: a pure function of (seed, step), the same on every rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data_prep.queries import Query
from data_prep.shards import ShardSource


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An anchor, the keys of its positive and of its mined negatives, and whether those are page images."""

    query: Query
    key: str
    negatives: tuple[str, ...]
    as_image: bool

    @property
    def candidates(self) -> tuple[str, ...]:
        return (self.key, *self.negatives)


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
    facts = ["text_digest", "image_digest"] + ([] if same_document_negatives else ["document_digest"])
    entries = {key: source.entry(positions[key]) for key in {*candidates, *(pair.key for pair in anchors)}}
    for fact in facts:
        positive = np.array([entries[pair.key][fact] for pair in anchors])
        candidate = np.array([entries[key][fact] for key in candidates])
        result |= torch.from_numpy(positive[:, None] == candidate[None, :])
    return result
