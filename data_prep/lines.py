"""Words as lines, in the frame of one direction of reading: a line goes to the right.

A gap of about an em ends a line, so that columns and cells stay apart. A line's box is its baseline plus
fixed typographic proportions of the type size and not the ink: crops of equal lines are then equally high and
their type sits at the same height.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise

import numpy as np

from data_prep.cutting import LongestLine, parts_of
from data_prep.plain_text import clean_text
from data_prep.scripts import (
    goes_right_to_left,
    in_reading_order,
    is_accent,
    is_right_to_left,
    space_within_unspaced,
    unknown_characters,
    with_joined_accents,
    without_unknown,
)
from data_prep.segments import segments_of
from data_prep.text_layer import Words

ASCENT, DESCENT = 0.95, 0.25  # of the type size; their sum is about the usual line pitch
SUBSCRIPT_DESCENT = 0.57  # of scripts that set whole letters below the line
_SUBSCRIPT_SCRIPTS = re.compile("[\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff]")  # Tibetan, Burmese, Khmer


@dataclass(frozen=True, kw_only=True)
class Line:
    """One printed line. Points, in the frame in which it is upright."""

    text: str
    left: float
    right: float
    baseline: float
    size: float
    is_bold: bool
    unknown: int = 0
    """How many of its letters nobody knows; they are not in `text`."""
    is_overprinted: bool = False
    """Whether words of it stand over each other."""
    parts: tuple["Line", ...] = ()
    """What it is cut into at gaps between words, in reading order, where it is longer than the first limit
    that it passes; the parts may be cut by the next one."""

    @property
    def rows(self) -> tuple["Line", ...]:
        """The pieces that are cut no further."""
        return tuple(row for part in self.parts for row in part.rows) or (self,)

    @property
    def top(self) -> float:
        return self.baseline + ASCENT * self.size

    @property
    def bottom(self) -> float:
        descent = SUBSCRIPT_DESCENT if _SUBSCRIPT_SCRIPTS.search(self.text) else DESCENT
        return self.baseline - descent * self.size

    def overlaps(self, other: "Line") -> bool:
        """Whether they share a column."""
        return self.left < other.right and other.left < self.right


def lines_of(words: Words, limits: Sequence[LongestLine] = ()) -> list[Line]:
    """Return the lines, from the top down.

    Args:
        limits: what longer lines are cut at, and then their parts: from the longest down.
    """
    return _lines(words, [segment.places for segment in segments_of(words)], limits)


def _lines(words: Words, rows: list[list[int]], limits: Sequence[LongestLine]) -> list[Line]:
    """Return the lines that words make. `rows`: the places in `words` of those of each line."""
    if not rows:
        return []
    counts = [len(row) for row in rows]
    places, first = np.array(list(chain.from_iterable(rows))), np.cumsum([0, *counts[:-1]])
    # An accent over a letter that begins left of it is read before the letter.
    lead = np.array([0.5 if is_accent(text) else 0.0 for text in words.texts]) * words.size
    places = places[np.lexsort(((words.left - lead)[places], np.repeat(np.arange(len(rows)), counts)))]
    texts = [words.texts[place] for place in places.tolist()]
    letters = np.array(list(map(len, texts)))
    sizes, baselines = words.size[places].tolist(), words.baseline[places].tolist()
    weights, ends = letters.tolist(), np.append(first[1:], len(places)).tolist()
    spans = list(zip(first.tolist(), ends, strict=True))
    usual = [_weighted_median(sizes[a:b], weights[a:b]) for a, b in spans]
    is_spaced, is_overprinted = _between(words, places, texts, np.repeat(usual, counts))
    is_spaced[first[1:] - 1] = is_overprinted[first[1:] - 1] = False  # with the next line
    bold = np.add.reduceat(letters * words.is_bold[places], first) * 2 > np.add.reduceat(letters, first)
    printed = _texts(texts, is_spaced.tolist(), spans, goes_right_to_left(words.texts))
    columns = zip(
        printed, usual, spans, bold.tolist(),
        np.minimum.reduceat(words.left[places], first).tolist(),
        np.maximum.reduceat(words.right[places], first).tolist(),
        np.logical_or.reduceat(is_overprinted, first).tolist(), strict=True,
    )  # fmt: skip
    lines = [
        Line(
            text=clean_text(with_joined_accents(without_unknown(text) if unknown else text)),
            left=left,
            right=right,
            baseline=_weighted_median(baselines[a:b], weights[a:b]),
            size=size,
            is_bold=is_bold,
            unknown=unknown,
            is_overprinted=is_over,
        )
        for (text, unknown, _), size, (a, b), is_bold, left, right, is_over in columns
    ]
    own = [(places[a:b], is_spaced[a : b - 1].tolist()) for a, b in spans]
    return _with_parts(words, lines, own, [is_turned for _, _, is_turned in printed], limits)


def _with_parts(
    words: Words,
    lines: list[Line],
    own: list[tuple[np.ndarray, list[bool]]],
    are_turned: list[bool],
    limits: Sequence[LongestLine],
) -> list[Line]:
    """Return the lines with the parts of those that are longer than a limit.

    Args:
        own: of each line the places in `words` of its words from left to right, and which of them a space
            follows.
        are_turned: whether each is read from the right.
    """
    lines = list(lines)
    for depth, longest in enumerate(limits, start=1):
        cut: dict[int, list[list[int]]] = {}
        for number, (line, (places, is_spaced)) in enumerate(zip(lines, own, strict=True)):
            is_held = longest.holds(len(line.text) + line.unknown, line.right - line.left, line.size)
            if len(places) > 1 and not line.parts and not is_held:
                texts = [words.texts[place] for place in places.tolist()]
                if are_turned[number]:  # words in it that go the other way stay together
                    own_way = list(map(is_right_to_left, texts))
                    is_spaced = [
                        space and (one or other)
                        for space, (one, other) in zip(is_spaced, pairwise(own_way), strict=True)
                    ]
                letters = list(map(len, texts))
                edges = zip(words.left[places].tolist(), words.right[places].tolist(), strict=True)
                parts = parts_of(letters, is_spaced, list(edges), line.size, longest)
                cut[number] = [places[part.start : part.stop].tolist() for part in parts]
        made = iter(_lines(words, list(chain.from_iterable(cut.values())), limits[depth:]))
        for number, parts in cut.items():
            in_order = tuple(islice(made, len(parts)))
            lines[number] = replace(lines[number], parts=in_order[::-1] if are_turned[number] else in_order)
    return lines


def _between(
    words: Words, places: np.ndarray, texts: list[str], usual: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) whether there is a space between each of n words, by their places, and the next one of its line,
    and (n,) whether the two stand over each other.

    Args:
        usual: (n,) the type sizes of their lines.
    """
    before, after, usual = places[:-1], places[1:], usual[:-1]
    left, right, baseline = words.left[places], words.right[places], words.baseline[places]
    apart, rise, width = left[1:] - right[:-1], abs(np.diff(baseline)), right - left
    is_stacked = (apart < -0.3 * usual) & (rise > 0.5 * usual)
    # Between a word and its mark the file has white space of pdfium's making.
    is_named = (abs(after - before) == 1) & words.is_apart[np.maximum(before, after)] & (rise < 0.1 * usual)
    least = np.where(is_named, -0.25, 0.1)  # a letter such as an italic f leans over a space
    if not "".join(texts).isascii():
        for number, (one, other) in enumerate(pairwise(texts)):
            space = space_within_unspaced(one, other)
            least[number] = least[number] if space is None else space
    is_spaced = is_stacked | (apart / np.where(usual == 0, 1.0, usual) > least)
    is_spaced &= ~((abs(after - before) == 1) & words.is_inside[np.maximum(before, after)])
    is_word = np.array([len(text) > 1 for text in texts], bool)
    is_over = is_word[:-1] & is_word[1:] & (apart < -np.minimum(width[:-1], width[1:]) / 3) & ~is_stacked
    return np.append(is_spaced, False), np.append(is_over, False)


def _texts(
    words: list[str], is_spaced: list[bool], spans: list[tuple[int, int]], from_the_right: bool
) -> list[tuple[str, int, bool]]:
    """Return the text of each line, from its first word up to the next line's, how many of its letters nobody
    knows, and whether it is read from the right.
    """
    pieces = [f"{text} " if space else text for text, space in zip(words, is_spaced, strict=True)]
    texts = ["".join(pieces[a:b]) for a, b in spans]
    are_turned = [False] * len(texts)
    for number, (a, b) in enumerate(spans):
        if is_right_to_left(texts[number]):
            own = words[a:b]
            are_turned[number] = from_the_right or goes_right_to_left(own)
            texts[number] = in_reading_order(own, is_spaced[a : b - 1], are_turned[number])
    return [(text, unknown_characters(text), turned) for text, turned in zip(texts, are_turned, strict=True)]


def _weighted_median(values: list[float], weights: list[int]) -> float:
    if min(values) == max(values):
        return values[0]
    left = sum(weights) / 2
    for value, weight in sorted(zip(values, weights, strict=True)):
        left -= weight
        if left <= 0:
            return value
    raise ValueError("no weights")
