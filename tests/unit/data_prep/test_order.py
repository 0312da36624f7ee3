"""The order of samples: every sample once per epoch, the same from any place and for any number of ranks."""

import itertools
import time
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.order import BatchOrder, prefetched


def order(*counts: int, batch_size=4, seed=0, weights=None, window_steps=4) -> BatchOrder:
    return BatchOrder(
        lengths=[[(7 * n + count) % 90 for n in range(count)] for count in counts],
        weights=weights or [1 / len(counts)] * len(counts),
        batch_size=batch_size,
        seed=seed,
        window_steps=window_steps,
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 5), st.integers(0, 1000))
def test_one_source_gives_every_sample_once_per_epoch(samples, batch_size, window_steps, seed):
    """After any whole number of windows no sample was seen more than once more often than another."""
    batches = order(samples, batch_size=batch_size, seed=seed, window_steps=window_steps)
    seen = Counter({(0, position): 0 for position in range(samples)})
    for step in range(3 * window_steps):
        batch = batches.batch(step)
        assert len(batch) == batch_size
        seen.update(batch)
        if (step + 1) % window_steps == 0:
            assert max(seen.values()) - min(seen.values()) <= 1
    assert len(seen) == samples


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(8)), st.integers(0, 1000))
def test_a_step_gives_the_same_batch_from_anywhere(steps, seed):
    straight = order(30, 50, seed=seed, window_steps=2)
    expected = [straight.batch(step) for step in range(8)]
    jumping = order(30, 50, seed=seed, window_steps=2)
    assert {step: jumping.batch(step) for step in steps} == dict(enumerate(expected))


def test_a_late_step_costs_no_more_than_an_early_one():
    started = time.monotonic()
    assert len(order(1000, 1000).batch(10**7)) == 4
    assert time.monotonic() - started < 10


def test_seeds_and_epochs_give_different_orders():
    assert order(40).batch(0) != order(40, seed=1).batch(0)
    first, second = (order(16).window(window) for window in (0, 1))  # a window is one epoch
    assert first != second
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*second))


def test_a_window_is_drawn_from_the_whole_source():
    positions = [position for batch in order(1000).window(0) for _, position in batch]
    assert max(positions) > 500


def test_sources_are_mixed_in_their_shares():
    batches = order(50, 500, weights=[0.75, 0.25])
    sources = Counter(source for step in range(100) for source, _ in batches.batch(step))
    assert abs(sources[0] / 400 - 0.75) < 0.02


def test_a_batch_holds_samples_of_like_length():
    batches = order(400, batch_size=8, window_steps=16)
    spans = []
    for step in range(16):
        lengths = [batches.lengths[source][position] for source, position in batches.batch(step)]
        spans.append(max(lengths) - min(lengths))
    assert sum(spans) / len(spans) < 15


def test_the_ranks_rows_interleave_to_the_global_batch():
    expected = [order(30, batch_size=6).window(0) for _ in range(2)]
    assert expected[0] == expected[1]
    for world in (1, 2, 3, 6):
        ranks = []
        for rank in range(world):
            of_rank = order(30, batch_size=6)  # every rank has its own
            ranks.append([of_rank.batch(step)[rank::world] for step in range(4)])
        for step, batch in enumerate(expected[0]):
            rows = zip(*(steps[step] for steps in ranks), strict=True)
            assert list(itertools.chain(*rows)) == batch


def test_prefetching_keeps_the_order_and_its_errors():
    assert list(prefetched(lambda step: step * step, 20)) == [step * step for step in range(20)]
    assert list(prefetched(lambda step: step, 0)) == []
