"""Where a long line is cut: between words, into parts of similar length."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise


@dataclass(frozen=True)
class LongestLine:
    """What a line, or a part of one, is cut at."""

    characters: int
    ems: float

    def holds(self, characters: int, width: float, size: float) -> bool:
        return characters <= self.characters and width <= self.ems * size


def parts_of(
    letters: Sequence[int],
    is_spaced: Sequence[bool],
    spans: Sequence[tuple[float, float]],
    size: float,
    longest: LongestLine,
) -> list[range]:
    """Cut the words of a line into as few parts as the limit allows, of lengths that differ little.

    Cuts are made where words are spaced; between any two where a part would be too long otherwise.

    Args:
        letters: of each word. Words stand from left to right.
        is_spaced: of each but the last word, whether a space follows.
        spans: left and right of each word.
        size: of the type.
    """
    ends = list(accumulate(count + space for count, space in zip(letters, [*is_spaced, False], strict=True)))

    def fits(part: range) -> bool:
        characters = ends[part[-1]] - (ends[part[0] - 1] if part[0] else 0)
        return longest.holds(characters, spans[part[-1]][1] - spans[part[0]][0], size)

    places = [number for number, space in enumerate(is_spaced, start=1) if space]
    if not all(map(fits, _between(places, len(letters)))):
        places = list(range(1, len(letters)))
    for count in range(2, len(places) + 1):
        aims = (ends[-1] * number / count for number in range(1, count))
        cuts = sorted({min(places, key=lambda place, aim=aim: abs(ends[place - 1] - aim)) for aim in aims})
        if all(map(fits, parts := _between(cuts, len(letters)))):
            return parts
    return _between(places, len(letters))


def _between(cuts: Sequence[int], count: int) -> list[range]:
    return [range(start, stop) for start, stop in pairwise([0, *cuts, count])]
