"""Words as lines, in the frame of one direction of reading: a line goes to the right.

A gap of about an em ends a line, so that columns and cells stay apart. A line's box is its baseline plus
fixed typographic proportions of the type size and not the ink: crops of equal lines are then equally high and
their type sits at the same height.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise

import numpy as np

from data_prep.plain_text import clean_text
from data_prep.scripts import (
    goes_right_to_left,
    in_reading_order,
    is_accent,
    is_right_to_left,
    needs_space,
    unknown_characters,
    with_joined_accents,
    without_unknown,
)
from data_prep.text_layer import Words

ASCENT, DESCENT = 0.95, 0.25  # of the type size; their sum is about the usual line pitch
SUBSCRIPT_DESCENT = 0.57  # of scripts that set whole letters below the line
_SUBSCRIPT_SCRIPTS = re.compile("[\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff]")  # Tibetan, Burmese, Khmer
_LIST_MARKER = re.compile(r"[^\w\s]|[(\[]?\w{1,3}[.)\]:]|\d{1,2}(?:\.\d{1,2})*")
_GUTTERS = 0.75, 1.25  # of the type size: columns are parted by 10 points, in papers of 12 points too
_LETTERS_OF_A_MARK = 12
_PAIRS_AT_ONCE = 1_000_000  # a map has thousands of labels, and each is compared with all
_MARK_RATIO = 2.3  # up to which a line's type is larger than its marks; a larger letter begins a paragraph
_Columns = tuple[list[str], list[float], list[float], list[float], list[float], list[bool], list[bool]]


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


@dataclass(kw_only=True)
class _Segment:
    """Words that stand beside each other: their places in `Words`, and what they span."""

    places: list[int]
    left: float
    right: float
    baseline: float
    size: float
    letters: int

    def take(self, other: "_Segment") -> None:
        """Hold the other's words too; the one with more letters says where the baseline is."""
        if other.letters * other.size > self.letters * self.size:
            self.baseline, self.size = other.baseline, other.size
        self.places += other.places
        self.left, self.right = min(self.left, other.left), max(self.right, other.right)
        self.letters += other.letters


@dataclass(frozen=True)
class LongestLine:
    """What a line, or a part of one, is cut at."""

    characters: int
    ems: float

    def holds(self, characters: int, width: float, size: float) -> bool:
        return characters <= self.characters and width <= self.ems * size


def lines_of(words: Words, limits: Sequence[LongestLine] = ()) -> list[Line]:
    """Return the lines, from the top down.

    Args:
        limits: what longer lines are cut at, and then their parts: from the longest down.
    """
    gutter = _gutter(words)
    # Twice, since marks lie in gaps that part a row.
    segments = _rows(_with_marks(_rows(_runs(words, gutter), gutter)), gutter)
    segments = _bridged(_with_list_markers(segments, words))
    arrays = (words.left, words.right, words.baseline, words.size, words.is_bold, words.is_apart)
    columns = (words.texts, *(array.tolist() for array in arrays))
    ordered = sorted(segments, key=lambda one: (-one.baseline, one.left))
    from_the_right = goes_right_to_left(words.texts)
    return [_line(columns, segment.places, from_the_right, limits) for segment in ordered]


def _gutter(words: Words) -> float:
    """Return the gap, of the type size, that parts columns: as far as it can, wider than between words."""
    gaps = (words.left[1:] - words.right[:-1]) / np.maximum(words.size[1:], 1e-6)
    spaces = gaps[words.is_apart[1:] & (gaps > 0.1) & (gaps < 1.5)]
    return float(np.clip(2.2 * np.quantile(spaces, 0.25), *_GUTTERS)) if len(spaces) else _GUTTERS[0]


def _runs(words: Words, gutter: float) -> list[_Segment]:
    """Return stretches of words that the file draws one after the other on one line."""
    if not len(words):
        return []
    left, right, baseline, size = words.left, words.right, words.baseline, words.size
    smaller, larger = np.minimum(size[:-1], size[1:]), np.maximum(size[:-1], size[1:])
    most = gutter * larger
    gap = left[1:] - right[:-1]
    ends = (
        (abs(np.diff(baseline)) > 0.1 * smaller)
        | (gap > most)
        | (gap < -0.3 * smaller)
        | (larger > 1.3 * smaller)
    )
    first = np.flatnonzero(np.concatenate([[True], ends]))
    letters = np.add.reduceat(np.array([len(text) for text in words.texts]), first)
    last = np.append(first[1:], len(words))
    spans = zip(
        first.tolist(), last.tolist(), np.minimum.reduceat(left, first).tolist(),
        np.maximum.reduceat(right, first).tolist(), baseline[first].tolist(),
        np.maximum.reduceat(size, first).tolist(), letters.tolist(), strict=True,
    )  # fmt: skip
    return [
        _Segment(places=list(range(a, b)), left=x0, right=x1, baseline=y, size=size, letters=count)
        for a, b, x0, x1, y, size, count in spans
    ]


def _rows(runs: list[_Segment], gutter: float) -> list[_Segment]:
    """Join runs of one baseline that a gap of an em or less parts."""
    rows: list[list[_Segment]] = []
    for run in sorted(runs, key=lambda one: -one.baseline):
        if rows and rows[-1][0].baseline - run.baseline <= 0.12 * min(rows[-1][0].size, run.size):
            rows[-1].append(run)
        else:
            rows.append([run])
    segments: list[_Segment] = []
    for row in rows:
        row.sort(key=lambda one: one.left)
        current = row[0]
        for run in row[1:]:
            larger, smaller = max(run.size, current.size), min(run.size, current.size)
            if run.left - current.right <= gutter * larger and larger <= _MARK_RATIO * smaller:
                current.take(run)
            else:
                segments.append(current)
                current = run
        segments.append(current)
    return segments


def _with_marks(segments: list[_Segment]) -> list[_Segment]:
    """Give raised and lowered marks (exponents, notes, parts of a fraction) to the lines they stand in."""
    joined = list(range(len(segments)))

    def root(number: int) -> int:
        while joined[number] != number:
            number = joined[number]
        return number

    for mark, hosts in _hosts_of_marks(segments):
        for host in hosts:
            joined[root(mark)] = root(host)
    whole: dict[int, _Segment] = {}
    for number, segment in enumerate(segments):
        if root(number) in whole:
            whole[root(number)].take(segment)
        else:
            whole[root(number)] = segment
    return list(whole.values())


def _hosts_of_marks(segments: list[_Segment]) -> Iterator[tuple[int, list[int]]]:
    """Yield each mark and the segments beside it that are parts of one line, the nearest."""
    baseline, size, left, right, letters = (
        np.array([getattr(one, name) for one in segments])
        for name in ("baseline", "size", "left", "right", "letters")
    )
    short = np.flatnonzero(letters <= _LETTERS_OF_A_MARK)
    at_once = max(1, _PAIRS_AT_ONCE // max(1, len(segments)))
    for start in range(0, len(short), at_once):
        marks = short[start : start + at_once]
        rise = (baseline[marks, None] - baseline) / np.maximum(size, 1e-6)
        is_small = size > 1.15 * size[marks, None]
        is_host = (
            (is_small | ((size > 0.95 * size[marks, None]) & (letters > letters[marks, None])))
            & (size < _MARK_RATIO * size[marks, None])
            & (letters >= np.minimum(letters[marks, None], 3))
            & (rise < np.where(is_small, 0.75, 0.45))
            & (rise > np.where(is_small, -0.55, -0.45))
            & (left[marks, None] < right + 0.3 * size)
            & (right[marks, None] > left - 0.3 * size)
        )  # (marks, segments)
        is_host[np.arange(len(marks)), marks] = False
        away = np.where(is_host, np.where(rise > 0, rise, -1.7 * rise), np.inf)  # raised further than lowered
        for mark, hosts, distance in zip(marks.tolist(), is_host, away, strict=True):
            if hosts.any():
                nearest = distance.argmin()
                is_row = abs(baseline - baseline[nearest]) < 0.15 * size[nearest]
                yield mark, np.flatnonzero(hosts & is_row).tolist()


def _with_list_markers(segments: list[_Segment], words: Words) -> list[_Segment]:
    """Give a bullet or number before a line to the line, though more than an em parts them."""
    kept: list[_Segment] = []
    previous: _Segment | None = None
    for segment in sorted(segments, key=lambda one: (-round(one.baseline, 1), one.left)):
        is_marked = (
            previous is not None
            and _is_behind(segment, previous, most=3)
            and len(previous.places) == 1
            and _LIST_MARKER.fullmatch(words.texts[previous.places[0]])
            and any(map(str.isalpha, words.texts[segment.places[0]]))  # and not the next number of a table
        )
        if is_marked:
            previous.take(segment)
        else:
            kept.append(segment)
            previous = segment
    return kept


def _is_behind(segment: _Segment, previous: _Segment, *, most: float) -> bool:
    """Whether it goes on on the line of the previous one, less than `most` type sizes behind it."""
    is_one_row = abs(previous.baseline - segment.baseline) < 0.15 * segment.size
    return is_one_row and 0 < segment.left - previous.right < most * segment.size


def _bridged(segments: list[_Segment]) -> list[_Segment]:
    """Join parts of a line over a gap that the lines above and below bridge: a justified line, no columns."""
    ordered = sorted(segments, key=lambda one: (-round(one.baseline, 1), one.left))
    kept: list[_Segment] = []
    for number, segment in enumerate(ordered):
        previous = kept[-1] if kept else None
        if (
            previous is not None
            and _is_behind(segment, previous, most=2.5)
            and _is_bridged(previous, segment, ordered[max(0, number - 12) : number + 12])
        ):
            previous.take(segment)
        else:
            kept.append(segment)
    return kept


def _is_bridged(left: _Segment, right: _Segment, near: list[_Segment]) -> bool:
    """Whether of the lines directly above and below at least one goes over the gap, and none ends in it."""
    bridges = 0
    for other in near:
        pitch = abs(other.baseline - right.baseline)
        if (
            not 0.5 * right.size < pitch < 1.6 * right.size
            or other.right < left.left
            or other.left > right.right
        ):
            continue
        if other.left < left.right and other.right > right.left:
            bridges += 1
        elif left.left < other.right <= right.left or left.right <= other.left < right.right:
            if other.right <= right.left and other.baseline < right.baseline:
                continue  # the last line of a paragraph may be short
            return False
    return bridges > 0


def _line(
    columns: _Columns, places: list[int], from_the_right: bool, limits: Sequence[LongestLine] = ()
) -> Line:
    """Return the line that words make. `columns`: the arrays of `Words` as lists, which are faster by the
    piece.
    """
    texts, left, right, baseline, size, is_bold, is_apart = columns
    # An accent over a letter that begins left of it is read before the letter.
    places = sorted(
        places, key=lambda place: left[place] - (0.5 * size[place] if is_accent(texts[place]) else 0)
    )
    letters = [len(texts[place]) for place in places]
    usual = _weighted_median([size[place] for place in places], letters)
    is_spaced, is_overprinted = [], False
    for before, after in pairwise(places):
        apart = left[after] - right[before]
        rise = abs(baseline[after] - baseline[before])
        is_stacked = apart < -0.3 * usual and rise > 0.5 * usual
        # Between a word and its mark the file has white space of pdfium's making.
        is_named = abs(after - before) == 1 and is_apart[max(before, after)] and rise < 0.1 * usual
        gap = apart / (usual or 1.0)
        shorter = min(right[before] - left[before], right[after] - left[after])
        are_words = len(texts[before]) > 1 and len(texts[after]) > 1
        is_overprinted |= are_words and apart < -shorter / 3 and not is_stacked
        is_spaced.append(is_stacked or needs_space(texts[before], texts[after], gap, is_named))
    own = [texts[place] for place in places]
    is_turned = False
    if is_right_to_left("".join(own)):
        is_turned = from_the_right or goes_right_to_left(own)
        text = in_reading_order(own, is_spaced, is_turned)
    else:
        spaces = [" " if space else "" for space in is_spaced]
        text = "".join(chain.from_iterable(zip(own, [*spaces, ""], strict=True)))
    unknown = unknown_characters(text)
    bold = sum(letters[number] for number, place in enumerate(places) if is_bold[place])
    first, last = min([left[place] for place in places]), max([right[place] for place in places])
    limits = [limit for limit in limits if not limit.holds(len(text), last - first, usual)]
    parts: list[Line] = []
    if limits and len(places) > 1:
        spans = [(left[place], right[place]) for place in places]
        for chosen in _cut(letters, is_spaced, spans, usual, limits[0]):
            parts.append(_line(columns, [places[one] for one in chosen], from_the_right, limits[1:]))
        if is_turned:
            parts.reverse()
    return Line(
        text=clean_text(with_joined_accents(without_unknown(text) if unknown else text)),
        left=first,
        right=last,
        baseline=_weighted_median([baseline[place] for place in places], letters),
        size=usual,
        is_bold=bold * 2 > sum(letters),
        unknown=unknown,
        is_overprinted=is_overprinted,
        parts=tuple(parts),
    )


def _cut(
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


def _weighted_median(values: list[float], weights: list[int]) -> float:
    if min(values) == max(values):
        return values[0]
    left = sum(weights) / 2
    for value, weight in sorted(zip(values, weights, strict=True)):
        left -= weight
        if left <= 0:
            return value
    raise ValueError("no weights")
