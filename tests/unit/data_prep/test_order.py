"""The order of samples: every sample once per epoch, the same from any place: so for any number of ranks."""

import tracemalloc
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.order import SHARDS_PER_WINDOW, BatchOrder, Lengths, ShardOrder, prefetched

seeds = st.integers(0, 2**32)
uneven_shards = st.lists(st.integers(0, 12), min_size=1, max_size=40).filter(any)


@dataclass(kw_only=True)
class Shards:
    """A source that has only sizes, and counts what it is asked for."""

    sizes: np.ndarray
    asked: Counter = field(default_factory=Counter)

    @property
    def shard_sizes(self) -> np.ndarray:
        self.asked["shard sizes"] += 1
        return self.sizes

    def length(self, position: int) -> int:
        self.asked["lengths"] += 1
        return position * 7 % 90


def order(*sources, batch_size=4, seed=0, weights=None, window_steps=4) -> BatchOrder:
    """An order over sources with these shard sizes, or with one shard of this size."""
    return BatchOrder(
        sources=[Shards(sizes=np.atleast_1d(sizes)) for sizes in sources],
        weights=weights or [1 / len(sources)] * len(sources),
        batch_size=batch_size,
        seed=seed,
        window_steps=window_steps,
    )


def one_by_one(sizes: list[int], seed: int, steps: range) -> list[int]:
    """Positions of one source in the order in which they are drawn."""
    batches = order(sizes, batch_size=1, seed=seed, window_steps=1)
    return [position for step in steps for _, position in batches.batch(step)]


@settings(max_examples=30, deadline=None)
@given(uneven_shards, seeds, st.integers(0, 10**6))
def test_every_sample_is_drawn_once_in_each_epoch(sizes, seed, epoch):
    samples = sum(sizes)
    drawn = one_by_one(sizes, seed, range(epoch * samples, (epoch + 2) * samples))
    assert sorted(drawn[:samples]) == sorted(drawn[samples:]) == list(range(samples))
    assert samples < 10 or drawn[:samples] != drawn[samples:]


@settings(max_examples=30, deadline=None)
@given(uneven_shards, st.integers(1, 9), st.integers(1, 5), seeds)
def test_batches_and_windows_of_steps_lose_and_repeat_nothing(sizes, batch_size, window_steps, seed):
    """After any whole number of windows no sample was seen more than once more often than another."""
    batches = order(sizes, batch_size=batch_size, seed=seed, window_steps=window_steps)
    seen = Counter({(0, position): 0 for position in range(sum(sizes))})
    for step in range(3 * window_steps):
        batch = batches.batch(step)
        assert len(batch) == batch_size
        seen.update(batch)
        if (step + 1) % window_steps == 0:
            assert max(seen.values()) - min(seen.values()) <= 1
    assert len(seen) == sum(sizes)


@settings(max_examples=30, deadline=None)
@given(uneven_shards, uneven_shards, seeds, st.integers(0, 10**7), st.randoms())
def test_a_step_gives_the_same_batch_from_anywhere(first, second, seed, start, random):
    """Whatever was asked for before, and in a fresh process that resumes there."""
    steps = list(range(start, start + 8))
    straight = order(first, second, seed=seed, window_steps=2)
    expected = {step: straight.batch(step) for step in steps}
    jumping = order(first, second, seed=seed, window_steps=2)
    random.shuffle(steps)
    assert {step: jumping.batch(step) for step in steps} == expected
    assert order(first, second, seed=seed, window_steps=2).batch(steps[0]) == expected[steps[0]]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=3 * SHARDS_PER_WINDOW, max_size=60).filter(any), seeds)
def test_shards_are_read_nearly_in_sequence(sizes, seed):
    """At any place in an epoch only a few shards lie between their first and their last sample."""
    shards = np.repeat(np.arange(len(sizes)), sizes)[one_by_one(sizes, seed, range(sum(sizes)))]
    places = {shard: np.flatnonzero(shards == shard) for shard in set(shards.tolist())}
    for place in range(1, len(shards)):
        assert sum(at[0] < place <= at[-1] for at in places.values()) <= SHARDS_PER_WINDOW


def test_a_window_of_steps_touches_few_shards_and_draws_from_all_of_a_small_source():
    """Among 4,000 shards, 512 samples lie in one or two windows of shards."""
    batches = order([100] * 4000, batch_size=32, window_steps=16)
    for window in (0, 100, 1000):
        drawn = {position // 100 for batch in batches.window(window) for _, position in batch}
        assert SHARDS_PER_WINDOW <= len(drawn) <= 2 * SHARDS_PER_WINDOW
    assert max(position for batch in order(1000).window(0) for _, position in batch) > 500


def test_epochs_and_seeds_give_different_orders():
    shards, window = ShardOrder(np.full(400, 3), seed=(0,)), 3 * SHARDS_PER_WINDOW
    first, second = (shards.positions(epoch * 1200, epoch * 1200 + window) for epoch in (0, 1))
    assert {position // 3 for position in first} != {position // 3 for position in second}
    assert order(40).batch(0) != order(40, seed=1).batch(0)
    assert one_by_one([40], 0, range(40)) != one_by_one([40], 1, range(40))


def test_sources_are_mixed_in_their_shares_and_each_in_its_own_order():
    batches = order(50, 500, 50, weights=[0.6, 0.25, 0.15], batch_size=1, window_steps=1)
    drawn = [place for step in range(400) for place in batches.batch(step)]
    first, second, third = ([position for source, position in drawn if source == n] for n in range(3))
    assert [len(first), len(second), len(third)] == pytest.approx([240, 100, 60], abs=2)
    assert sorted(first[:50]) == sorted(third[:50]) == list(range(50))
    assert first[:50] != third[:50]


def test_a_source_without_weight_is_never_drawn_and_one_without_samples_refused():
    batches = order(50, 0, 50, weights=[1.0, 0.0, 0.0])
    assert {source for batch in batches.window(0) for source, _ in batch} == {0}
    with pytest.raises(ValueError, match="no samples to draw"):
        order([0, 0], 5).batch(0)


def test_a_batch_holds_samples_of_like_length_and_batches_come_in_any_order():
    batches = order(400, batch_size=8, window_steps=16)
    (source,) = batches.sources
    lengths = [[source.length(position) for _, position in batches.batch(step)] for step in range(16)]
    assert sum(max(batch) - min(batch) for batch in lengths) / 16 < 15
    assert lengths != sorted(lengths)


def test_lengths_in_memory_are_a_source():
    batches = BatchOrder(sources=[Lengths.of([5, 1, 3])], weights=[1.0], batch_size=1, seed=0, window_steps=3)
    assert sorted(batches.window(0)) == [[(0, 0)], [(0, 1)], [(0, 2)]]


def test_a_billion_samples_cost_as_much_as_their_shards():
    """Resuming at sample 10^7 of 10^9 asks for shard sizes once and for the lengths of one window."""
    source = Shards(sizes=np.full(10**5, 10**4))
    tracemalloc.start()
    batches = BatchOrder(sources=[source], weights=[1.0], batch_size=32, seed=0)
    assert len(batches.batch(10**7 // 32)) == 32
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert source.asked == {"shard sizes": 1, "lengths": 32 * 16}
    assert peak < 20 * 2**20


@pytest.mark.parametrize("threads", [1, 3])
def test_prefetching_keeps_the_order_from_any_step(threads):
    squares = prefetched(lambda step: step * step, range(7, 40), threads=threads)
    assert list(squares) == [step * step for step in range(7, 40)]
    assert list(prefetched(lambda step: step, range(5, 5), threads=threads)) == []
    assert list(prefetched(lambda step: None, range(3), threads=threads)) == [None] * 3


def test_prefetching_works_a_few_items_ahead_stops_with_its_reader_and_passes_errors_on():
    made = []
    steps = prefetched(lambda step: made.append(step) or step, range(10**9))
    assert [next(steps), next(steps)] == [0, 1]
    steps.close()
    assert 2 <= len(made) < 20
    steps = prefetched(lambda step: 10 // (12 - step), range(10, 20))
    assert [next(steps), next(steps)] == [5, 10]
    with pytest.raises(ZeroDivisionError):
        next(steps)
