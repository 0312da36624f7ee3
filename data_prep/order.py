"""Which samples make up the global batch of a step: a pure function of (seed, step).

In each epoch of a source whole shards are permuted, and samples are shuffled inside windows of a few
consecutive shards: tars are read nearly in sequence, and the order of 10^9 samples needs the sizes of their
shards only. Grain mixes the sources by weight. Inside a window of steps the samples are sorted by length and
cut into batches, whose order is shuffled again: batches hardly need padding, and the samples of a window stay
the same.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol, TypeVar

import grain
import numpy as np

Item = TypeVar("Item")
PREFETCHED = 4  # steps, or more for more threads
SHARDS_PER_WINDOW = 8


class Source(Protocol):
    """What the order needs to know of a source of samples, such as `data_prep.shards.ShardSource`."""

    shard_sizes: np.ndarray
    """[shards] samples of each shard; positions count through them in this order."""

    def length(self, position: int) -> int:
        """Return the length of a sample, in any unit; it only decides what is batched together."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """A source in memory, as one shard: the length of each sample."""

    values: tuple[int, ...]

    @classmethod
    def of(cls, values: Iterable[int]) -> "Lengths":
        return cls(values=tuple(values))

    @property
    def shard_sizes(self) -> np.ndarray:
        return np.array([len(self.values)])

    def length(self, position: int) -> int:
        return self.values[position]


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchOrder:
    """Global batches over one or more sources of samples.

    Args:
        weights: share of each source.
        batch_size: samples in a global batch, over all ranks.
        window_steps: steps whose samples are sorted by length together.
    """

    sources: Sequence[Source]
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
        first, end = self._given(window * size), self._given((window + 1) * size)
        samples = [
            (source, position)
            for source, order in self._orders.items()
            for position in order.positions(first[source], end[source])
        ]
        samples.sort(key=lambda place: (self.sources[place[0]].length(place[1]), place))
        batches = [samples[start : start + self.batch_size] for start in range(0, size, self.batch_size)]
        order = np.random.default_rng((self.seed, window)).permutation(self.window_steps)
        return [batches[index] for index in order]

    def _given(self, index: int) -> dict[int, int]:
        """Return how many samples each source gave to the mixture before an index."""
        given: dict[int, int] = {}
        while len(given) < len(self._orders):
            count, source = divmod(int(self._mixture[index]), len(self.sources))
            given.setdefault(source, count)
            index += 1
        return given

    @cached_property
    def _mixture(self) -> grain.MapDataset:
        """An endless mixture of counters: `source + count * sources` for the source's count-th sample.

        Numbers, because Grain looks up the source code of a function that is mapped (10 ms).
        """
        counters = [grain.MapDataset.range(source, sys.maxsize, len(self.sources)) for source in self._orders]
        return grain.MapDataset.mix(counters, weights=[self.weights[source] for source in self._orders])

    @cached_property
    def _orders(self) -> dict[int, "ShardOrder"]:
        """The order of each source that has a weight."""
        return {
            number: ShardOrder(source.shard_sizes, seed=(self.seed, number))
            for number, (source, weight) in enumerate(zip(self.sources, self.weights, strict=True))
            if weight
        }


class ShardOrder:
    """The positions of one source, epoch after epoch, from anywhere in that endless stream.

    Every position appears once in each epoch, and at any place at most `SHARDS_PER_WINDOW` shards are partly
    read. Grain's own shuffles do not do both: windows of a fixed number of samples reach into the next epoch,
    and their `index_shuffle` draws among 2^16 places until it hits one that exists.
    """

    def __init__(self, shard_sizes: np.ndarray, *, seed: tuple[int, ...]) -> None:
        self._sizes = np.asarray(shard_sizes, dtype=np.int64)
        self._ends = np.cumsum(self._sizes)
        self._filled = np.flatnonzero(self._sizes)
        if not len(self._filled):
            raise ValueError("a source has no samples to draw: add documents with text")
        self._samples = int(self._ends[-1])
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)
        self._window = lru_cache(maxsize=2)(self._draw_window)

    def positions(self, start: int, stop: int) -> list[int]:
        """Return the positions at the places `start` to `stop` of the stream."""
        pieces: list[int] = []
        while start < stop:
            epoch, place = divmod(start, self._samples)
            _, ends = self._epoch(epoch)
            number = int(ends.searchsorted(place, side="right"))
            window = self._window(epoch, number)
            first = len(window) - int(ends[number] - place)
            pieces += window[first : first + stop - start].tolist()
            start += min(stop - start, len(window) - first)
        return pieces

    def _draw_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an epoch's order of shards, and how many samples have passed at the end of each window."""
        shards = np.random.default_rng((*self._seed, epoch, 0)).permutation(self._filled)
        firsts = np.arange(0, len(shards), SHARDS_PER_WINDOW)
        return shards, np.cumsum(np.add.reduceat(self._sizes[shards], firsts))

    def _draw_window(self, epoch: int, number: int) -> np.ndarray:
        """Return the positions of a window of shards, shuffled."""
        shards, _ = self._epoch(epoch)
        shards = shards[number * SHARDS_PER_WINDOW : (number + 1) * SHARDS_PER_WINDOW]
        ends = self._ends[shards]
        positions = [np.arange(end - size, end) for end, size in zip(ends, self._sizes[shards], strict=True)]
        return np.random.default_rng((*self._seed, epoch, 1 + number)).permutation(np.concatenate(positions))


def prefetched(make: Callable[[int], Item], steps: range, *, threads: int = 1) -> Iterator[Item]:
    """Yield make(step) for each step in order; threads work a few items ahead."""
    items = grain.MapDataset.range(steps.start, steps.stop, steps.step).map(make)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(PREFETCHED, 2 * threads))
    iterator = iter(items.to_iter_dataset(options, allow_nones=True))
    try:
        yield from iterator
    finally:
        iterator.close()


@lru_cache(maxsize=2)
def _window(order: BatchOrder, window: int) -> list[list[tuple[int, int]]]:
    return order.window(window)
