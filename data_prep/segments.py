"""Words that stand beside each other on one line.

A gap of about an em parts them, so that columns and cells stay apart; raised and lowered marks are of the
line they stand in.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_prep.text_layer import Words

_LIST_MARKER = re.compile(r"[^\w\s]|[(\[]?\w{1,3}[.)\]:]|\d{1,2}(?:\.\d{1,2})*")
_GUTTERS = 0.75, 1.25  # of the type size: columns are parted by 10 points, in papers of 12 points too
_LETTERS_OF_A_MARK = 12
_PAIRS_AT_ONCE = 1_000_000  # a map has thousands of labels, and each is compared with all
_MARK_RATIO = 2.3  # up to which a line's type is larger than its marks; a larger letter begins a paragraph


@dataclass(kw_only=True)
class Segment:
    """Words that stand beside each other: their places in `Words`, and what they span."""

    places: list[int]
    left: float
    right: float
    baseline: float
    size: float
    letters: int

    def take(self, other: "Segment") -> None:
        """Hold the other's words too; the one with more letters says where the baseline is."""
        if other.letters * other.size > self.letters * self.size:
            self.baseline, self.size = other.baseline, other.size
        self.places += other.places
        self.left, self.right = min(self.left, other.left), max(self.right, other.right)
        self.letters += other.letters


def segments_of(words: Words) -> list[Segment]:
    """Return the segments, each a line or the part of one in its column, from the top down."""
    gutter = _gutter(words)
    # Twice, since marks lie in gaps that part a row.
    segments = _rows(_with_marks(_rows(_runs(words, gutter), gutter)), gutter)
    segments = _bridged(_with_list_markers(segments, words))
    return sorted(segments, key=lambda one: (-one.baseline, one.left))


def _gutter(words: Words) -> float:
    """Return the gap, of the type size, that parts columns: as far as it can, wider than between words."""
    gaps = (words.left[1:] - words.right[:-1]) / np.maximum(words.size[1:], 1e-6)
    spaces = gaps[words.is_apart[1:] & (gaps > 0.1) & (gaps < 1.5)]
    if not len(spaces):
        return _GUTTERS[0]
    quartile = np.interp((len(spaces) - 1) / 4, np.arange(len(spaces)), np.sort(spaces))
    return min(max(2.2 * float(quartile), _GUTTERS[0]), _GUTTERS[1])


def _runs(words: Words, gutter: float) -> list[Segment]:
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
        Segment(places=list(range(a, b)), left=x0, right=x1, baseline=y, size=size, letters=count)
        for a, b, x0, x1, y, size, count in spans
    ]


def _rows(runs: list[Segment], gutter: float) -> list[Segment]:
    """Join runs of one baseline that a gap of an em or less parts."""
    rows: list[list[Segment]] = []
    for run in sorted(runs, key=lambda one: -one.baseline):
        if rows and rows[-1][0].baseline - run.baseline <= 0.12 * min(rows[-1][0].size, run.size):
            rows[-1].append(run)
        else:
            rows.append([run])
    segments: list[Segment] = []
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


def _with_marks(segments: list[Segment]) -> list[Segment]:
    """Give raised and lowered marks (exponents, notes, parts of a fraction) to the lines they stand in."""
    joined = list(range(len(segments)))

    def root(number: int) -> int:
        while joined[number] != number:
            number = joined[number]
        return number

    for mark, hosts in _hosts_of_marks(segments):
        for host in hosts:
            joined[root(mark)] = root(host)
    whole: dict[int, Segment] = {}
    for number, segment in enumerate(segments):
        if root(number) in whole:
            whole[root(number)].take(segment)
        else:
            whole[root(number)] = segment
    return list(whole.values())


def _hosts_of_marks(segments: list[Segment]) -> Iterator[tuple[int, list[int]]]:
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


def _with_list_markers(segments: list[Segment], words: Words) -> list[Segment]:
    """Give a bullet or number before a line to the line, though more than an em parts them."""
    kept: list[Segment] = []
    previous: Segment | None = None
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


def _is_behind(segment: Segment, previous: Segment, *, most: float) -> bool:
    """Whether it goes on on the line of the previous one, less than `most` type sizes behind it."""
    is_one_row = abs(previous.baseline - segment.baseline) < 0.15 * segment.size
    return is_one_row and 0 < segment.left - previous.right < most * segment.size


def _bridged(segments: list[Segment]) -> list[Segment]:
    """Join parts of a line over a gap that the lines above and below bridge: a justified line, no columns."""
    ordered = sorted(segments, key=lambda one: (-round(one.baseline, 1), one.left))
    kept: list[Segment] = []
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


def _is_bridged(left: Segment, right: Segment, near: list[Segment]) -> bool:
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
