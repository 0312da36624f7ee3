"""Batches under a token budget: which sequences go together, and their tensors.

A *micro-batch* is what one backward pass holds, within two budgets: decoder positions and visual tokens. It
consists of *buckets*, each one forward pass: rows of similar length padded on the left or, with packing, one
row of several sequences that do not see each other. Neither changes the objective: losses are summed, and
divided by a count over the whole global batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch

from data_prep.packing import packed_rows
from stages.train.config import EngineConfig
from stages.train.sequences import TokenSequence

MOST_PADDING = 0.05
"""Share of the positions that may be padding, in a batch's images and in its texts. Less of it takes more
forward passes."""
IGNORED_LABEL = -100


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of one bucket: `rows` x `length`, several sequences in a row if it is packed."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    """None if packed."""
    position_ids: torch.Tensor
    """[axes, rows, length]: see `TokenSequence.positions`."""
    labels: torch.Tensor
    """The token to predict *at* each position, -100 where there is none; already shifted by one."""
    ends: torch.Tensor
    """[sequences] flat index (row * length + column) of each sequence's last position."""
    pixel_values: torch.Tensor | None
    image_grid_thw: torch.Tensor | None
    text_positions: torch.Tensor | None = None
    """[1, length] if packed: places within each sequence, which say where the next one begins."""


def oversized(sequence: TokenSequence, config: EngineConfig) -> str | None:
    """Why a sequence cannot be trained on, with its sizes; None if it fits the budgets."""
    for name, size, budget in (
        ("positions", len(sequence), config.text_tokens),
        ("visual tokens", sequence.visual_tokens, config.visual_tokens),
    ):
        if size > budget:
            return f"{size:,} {name} are over the budget of {budget:,}"
    return None


def plan_micro_batches(sequences: Sequence[TokenSequence], config: EngineConfig) -> list[list[list[int]]]:
    """Return micro-batches of buckets of sequence numbers; each number once, sequences with images first.

    Raises ValueError for a sequence that is over a budget.
    """
    for number, sequence in enumerate(sequences):
        if reason := oversized(sequence, config):
            raise ValueError(f"sequence {number}: {reason}")
    buckets = packed_buckets(sequences, config) if config.packing else padded_buckets(sequences, config)
    micro_batches: list[list[list[int]]] = []
    text = visual = 0
    for bucket in buckets:
        lengths = [len(sequences[number]) for number in bucket]
        bucket_text = sum(lengths) if config.packing else max(lengths) * len(lengths)
        bucket_visual = sum(sequences[number].visual_tokens for number in bucket)
        text, visual = text + bucket_text, visual + bucket_visual
        if not micro_batches or text > config.text_tokens or visual > config.visual_tokens:
            micro_batches.append([])
            text, visual = bucket_text, bucket_visual
        micro_batches[-1].append(bucket)
    return micro_batches


def padded_buckets(sequences: Sequence[TokenSequence], config: EngineConfig) -> list[list[int]]:
    """Buckets of similar length within the budgets: as few as keep the padding small, images apart."""
    order = sorted(range(len(sequences)), key=lambda number: (len(sequences[number]), number))
    with_image = [number for number in order if sequences[number].patches is not None]
    with_text = [number for number in order if sequences[number].patches is None]
    buckets = []
    for numbers in (with_image, with_text):
        lengths = [len(sequences[number]) for number in numbers]
        visual = [sequences[number].visual_tokens for number in numbers]
        buckets += [numbers[start:end] for start, end in pairwise(_cuts(lengths, visual, config))]
    return buckets


def _cuts(lengths: Sequence[int], visual: Sequence[int], config: EngineConfig) -> list[int]:
    """Cut rising lengths into the fewest buckets whose padding is at most its share; return where.

    Dynamic programming over the number of buckets: the fewest padded positions of the first n rows.
    """
    count, total = len(lengths), sum(lengths)
    rows = np.arange(count + 1)
    starts, ends = rows[:, None], rows[None, :]
    positions = (ends - starts) * np.array([0, *lengths])[ends]  # of a bucket of the rows between
    visual_before = np.cumsum([0, *visual])
    allowed = (
        (starts < ends)
        & (positions <= config.text_tokens)
        & (visual_before[ends] - visual_before[starts] <= config.visual_tokens)
    )
    cost = np.where(allowed, positions, np.inf)
    fewest, chosen = np.where(rows == 0, 0.0, np.inf), []
    while total < (1 - MOST_PADDING) * fewest[count]:
        through = fewest[:, None] + cost
        chosen.append(through.argmin(axis=0))
        fewest = through.min(axis=0)
    cuts = [count]
    for starts_of in reversed(chosen):
        cuts.append(int(starts_of[cuts[-1]]))
    return cuts[::-1]


def packed_buckets(sequences: Sequence[TokenSequence], config: EngineConfig) -> list[list[int]]:
    """One row a bucket, filled with sequences up to the budgets."""
    rows = packed_rows(
        [len(sequence) for sequence in sequences],
        [sequence.visual_tokens for sequence in sequences],
        text_budget=config.text_tokens,
        visual_budget=config.visual_tokens,
    )
    return sorted(rows, key=lambda row: all(sequences[number].patches is None for number in row))


def collate(sequences: Sequence[TokenSequence], *, pad_token: int, packed: bool = False) -> Batch:
    """Tensors of one bucket: one sequence a row padded on the left, or all in one row."""
    return _packed(sequences) if packed else _padded(sequences, pad_token)


def _padded(sequences: Sequence[TokenSequence], pad_token: int) -> Batch:
    """Padding on the left, as the embedding contract says: every sequence ends in the last column."""
    rows, length = len(sequences), max(map(len, sequences))
    input_ids = np.full((rows, length), pad_token, dtype=np.int64)
    labels = np.full((rows, length), IGNORED_LABEL, dtype=np.int64)
    mask = np.zeros((rows, length), dtype=np.int64)
    positions = np.zeros((len(sequences[0].positions), rows, length), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        start = length - len(sequence)
        input_ids[row, start:] = sequence.ids
        mask[row, start:] = 1
        positions[:, row, start:] = sequence.positions
        labels[row, start + sequence.label_start - 1 : -1] = sequence.ids[sequence.label_start :]
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(mask),
        position_ids=torch.from_numpy(positions),
        labels=torch.from_numpy(labels),
        ends=torch.arange(1, rows + 1) * length - 1,
        **_images(sequences),
    )


def _packed(sequences: Sequence[TokenSequence]) -> Batch:
    lengths = [len(sequence) for sequence in sequences]
    ends = list(accumulate(lengths))
    labels = np.full((1, ends[-1]), IGNORED_LABEL, dtype=np.int64)
    for end, sequence in zip(ends, sequences, strict=True):
        start = end - len(sequence)
        labels[0, start + sequence.label_start - 1 : end - 1] = sequence.ids[sequence.label_start :]
    text_positions = np.concatenate([np.arange(length) for length in lengths])
    positions = np.concatenate([sequence.positions for sequence in sequences], axis=1)
    return Batch(
        input_ids=torch.tensor([[token for sequence in sequences for token in sequence.ids]]),
        attention_mask=None,
        position_ids=torch.from_numpy(positions[:, None]),
        text_positions=torch.from_numpy(text_positions[None]),
        labels=torch.from_numpy(labels),
        ends=torch.tensor(ends) - 1,
        **_images(sequences),
    )


def _images(sequences: Sequence[TokenSequence]) -> dict[str, torch.Tensor | None]:
    images = [sequence for sequence in sequences if sequence.patches is not None]
    if not images:
        return {"pixel_values": None, "image_grid_thw": None}
    return {
        "pixel_values": torch.from_numpy(np.concatenate([image.patches for image in images])),
        "image_grid_thw": torch.tensor([image.grid for image in images]),
    }


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One forward pass of this rank."""

    batch: Batch
    numbers: list[int]
    """Which of this rank's sequences are in it, in order; in the batch a filler may follow them."""
