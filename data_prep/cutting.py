"""Where a long line is cut: between words, into parts of similar length."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from math import ceil


@dataclass(frozen=True)
class LongestLine:
    """What a line, or a part of one, is cut at."""

    characters: float
    ems: float

    def holds(self, characters: float, width: float, size: float) -> bool:
        return characters <= self.characters and width <= self.ems * size

    def fewest_parts(self, characters: float, width: float, size: float) -> int:
        """Return into how many parts so much is cut at least."""
        return max(ceil(characters / self.characters), ceil(width / max(self.ems * size, 1e-6)))


@dataclass(frozen=True)
class _Words:
    """Words that stand from left to right: see `parts_of`."""

    ends: list[int]
    """Characters and spaces before each, and behind the last."""
    spaces: list[bool]
    """Whether one follows each."""
    spans: Sequence[tuple[float, float]]
    size: float

    def extent(self, part: range) -> tuple[int, float, float]:
        characters = self.ends[part.stop] - self.ends[part.start] - self.spaces[part.stop - 1]
        return characters, self.spans[part.stop - 1][1] - self.spans[part.start][0], self.size


def parts_of(
    letters: Sequence[int],
    is_spaced: Sequence[bool],
    spans: Sequence[tuple[float, float]],
    size: float,
    longest: LongestLine,
) -> list[range]:
    """Cut the words of a line into parts that the limit allows, of lengths that differ little.

    Cuts are made where words are spaced; between any two where a part would be too long otherwise. A word
    that is too long by itself is a part.

    Args:
        letters: of each word. Words stand from left to right.
        is_spaced: of each but the last word, whether a space follows.
        spans: left and right of each word.
        size: of the type.
    """
    spaces = [*is_spaced, False]
    ends = [0, *accumulate(count + space for count, space in zip(letters, spaces, strict=True))]
    words = _Words(ends, spaces, spans, size)
    spaced = _between([0, *(number for number, space in enumerate(is_spaced, 1) if space), len(letters)])
    units: list[range] = []
    for unit in spaced:
        units += [unit] if longest.holds(*words.extent(unit)) else _between(range(unit.start, unit.stop + 1))
    parts: list[range] = []
    for fits, neighbours in groupby(units, key=lambda unit: longest.holds(*words.extent(unit))):
        some = list(neighbours)
        parts += _evenly(some, words, longest) if fits else some
    return parts


def _evenly(units: Sequence[range], words: _Words, longest: LongestLine) -> list[range]:
    """Join units, neighbours that the limit allows alone, to as few parts of similar length as it allows."""
    start, stop = units[0].start, units[-1].stop
    edges = [unit.stop for unit in units]
    ends = [words.ends[edge] for edge in edges]
    first, length = words.ends[start], words.ends[stop] - words.ends[start]
    count = longest.fewest_parts(*words.extent(range(start, stop)))
    while count < len(units):
        aims = (first + length * number / count for number in range(1, count))
        cuts = sorted({edges[_nearest(ends, aim)] for aim in aims} - {stop})
        parts = _between([start, *cuts, stop])
        if all(longest.holds(*words.extent(part)) for part in parts):
            return parts
        count += 1 + count // 16
    return list(units)


def _nearest(values: Sequence[int], aim: float) -> int:
    """Return the place of the value that is nearest, of values that rise."""
    place = min(bisect_left(values, aim), len(values) - 1)
    return place - (place > 0 and aim - values[place - 1] <= values[place] - aim)


def _between(edges: Sequence[int]) -> list[range]:
    return [range(a, b) for a, b in pairwise(edges)]
