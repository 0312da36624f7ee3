"""Which samples make up the global batch of a step: a pure function of (seed, step).

The order comes from Grain (shuffle, repeat, mixture of sources). Inside a window of steps the samples are
sorted by length and cut into batches, whose order is shuffled again: batches hardly need padding, and the
samples of a window stay the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

import grain
import numpy as np

Item = TypeVar("Item")
PREFETCHED = 4  # steps


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchOrder:
    """Global batches over one or more sources of samples.

    Args:
        lengths: for each source the length of every sample (any unit; it only decides what is batched
            together).
        weights: share of each source.
        batch_size: samples in a global batch, over all ranks.
        window_steps: steps whose samples are sorted by length together.
    """

    lengths: Sequence[Sequence[int]]
    weights: Sequence[float]
    batch_size: int
    seed: int
    window_steps: int = 16

    def batch(self, step: int) -> list[tuple[int, int]]:
        """Return the (source, position) pairs of one step's global batch."""
        window, offset = divmod(step, self.window_steps)
        return _window(self, window)[offset]

    def window(self, window: int) -> list[list[tuple[int, int]]]:
        """Return the batches of one window of steps."""
        size = self.batch_size * self.window_steps
        samples = [self._mixed[position] for position in range(window * size, (window + 1) * size)]
        samples.sort(key=lambda place: (self.lengths[place[0]][place[1]], place))
        batches = [samples[start : start + self.batch_size] for start in range(0, size, self.batch_size)]
        order = np.random.default_rng((self.seed, window)).permutation(self.window_steps)
        return [batches[index] for index in order]

    @cached_property
    def _mixed(self) -> grain.MapDataset:
        sources = [
            grain.MapDataset.range(len(lengths))
            .seed(self.seed + number)
            .shuffle()
            .repeat()
            .map(lambda position, number=number: (number, int(position)))
            for number, lengths in enumerate(self.lengths)
        ]
        return grain.MapDataset.mix(sources, weights=list(self.weights)) if len(sources) > 1 else sources[0]


def prefetched(make: Callable[[int], Item], count: int) -> Iterator[Item]:
    """Yield make(0), ..., make(count - 1) in order; a thread works a few items ahead."""
    items = grain.MapDataset.range(count).map(make)
    return iter(items.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCHED)))


@lru_cache(maxsize=2)
def _window(order: BatchOrder, window: int) -> list[list[tuple[int, int]]]:
    return order.window(window)
