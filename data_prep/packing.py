"""Which sequences share a row: packing under two budgets at once, by Grain."""

from collections.abc import Sequence

import grain
import numpy as np


def packed_rows(
    text_lengths: Sequence[int], visual_lengths: Sequence[int], *, text_budget: int, visual_budget: int
) -> list[list[int]]:
    """Return rows of sequence numbers, each within both budgets; every sequence is in exactly one row.

    Args:
        text_lengths: decoder positions of each sequence, at most `text_budget`.
        visual_lengths: visual tokens of each sequence, at most `visual_budget`.

    First fit over the sequences in falling order of length: a pure function of the lengths.
    """
    count = len(text_lengths)
    if not count:
        return []
    order = sorted(range(count), key=lambda number: (-text_lengths[number], number))
    elements = grain.MapDataset.source(order).map(
        lambda number: {
            "text": np.zeros(text_lengths[number], np.int8),
            "visual": np.zeros(visual_lengths[number], np.int8),
            "number": np.array([number]),
        }
    )
    packed = grain.experimental.FirstFitPackIterDataset(
        elements.to_iter_dataset(grain.ReadOptions(num_threads=0)),
        length_struct={"text": text_budget, "visual": visual_budget, "number": count},
        num_packing_bins=count,
        shuffle_bins=False,
    )
    return [[int(number) for number in row["number"][row["number_segment_ids"] > 0]] for row in packed]
