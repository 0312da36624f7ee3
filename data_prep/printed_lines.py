"""Find the printed lines in a picture of text that nothing else says the places of."""

from itertools import pairwise

import numpy as np

from data_prep.config import ReadingConfig
from data_prep.ink import LEAST_INK
from data_prep.lines import ASCENT, DESCENT
from data_prep.rows import Place

_REACH = 0.93  # of the type size: from the highest to the lowest ink of a line, about
_SMALL = 0.4  # of a line's height, up to which a band is an accent, a dot or a rule
_SOLID = 0.7  # share of ink, above which a band is a rule or a picture
_SPACE = 0.2  # of the type size: the least between words


def printed_rows(picture: np.ndarray, config: ReadingConfig) -> list[Place]:
    """Return where the rows of a passage stand in its picture (height, width), from the top down.

    A line is a band of ink, higher than an accent; all have the type size that most of the ink has. Long ones
    are cut between words. Nowhere, where one is no text.
    """
    paper = np.uint8(np.median(picture))
    contrast = np.maximum(picture, paper) - np.minimum(picture, paper)
    is_ink = contrast > max(LEAST_INK, 0.3 * contrast.max())
    bands = _runs(is_ink.any(axis=1))
    if not bands:
        return []
    heights = [bottom - top for top, bottom in bands]
    line = np.median(np.repeat(heights, [int(is_ink[top:bottom].sum()) for top, bottom in bands]))
    rows = []
    for top, bottom in _with_accents(bands, float(line)):
        size = max(float(line), bottom - top) / _REACH
        middle = (top + bottom) / 2
        above = max(middle - size * (ASCENT + DESCENT) / 2, 0)
        below = min(middle + size * (ASCENT + DESCENT) / 2, len(picture))
        columns = is_ink[top:bottom].any(axis=0)
        if is_ink[top:bottom, columns].mean() > _SOLID:
            return []
        longest = config.row_characters / config.row_stretch * (below - above)
        rows += [(left, above, right, below) for left, right in _cut(columns, longest, _SPACE * size)]
    return rows


def _with_accents(bands: list[tuple[int, int]], line: float) -> list[tuple[int, int]]:
    """Join small bands to the line that they stand next to, where they are near."""
    lines = [band for band in bands if band[1] - band[0] > _SMALL * line]
    for top, bottom in bands:
        if bottom - top <= _SMALL * line:
            distances = [max(top - other[1], other[0] - bottom) for other in lines]
            nearest = int(np.argmin(distances))
            if distances[nearest] < _SMALL * line:
                lines[nearest] = min(lines[nearest][0], top), max(lines[nearest][1], bottom)
    return lines


def _cut(columns: np.ndarray, longest: float, space: float) -> list[tuple[int, int]]:
    """Cut a line (width,) into as few parts of similar length as are no longer than that, at its spaces."""
    ink = np.flatnonzero(columns)
    first, last = int(ink[0]), int(ink[-1]) + 1
    spaces = [(a + b) // 2 for a, b in _runs(~columns[first:last]) if b - a >= space]
    for parts in range(1, len(spaces) + 2):
        aims = [(last - first) * number / parts for number in range(1, parts)]
        cuts = sorted({min(spaces, key=lambda place, aim=aim: abs(place - aim)) for aim in aims})
        edges = [first, *(first + cut for cut in cuts), last]
        if max(np.diff(edges)) <= longest:
            break
    return list(pairwise(edges))


def _runs(is_one: np.ndarray) -> list[tuple[int, int]]:
    """Return where stretches of True begin and end."""
    edges = np.flatnonzero(np.diff(is_one.astype(np.int8), prepend=0, append=0))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
