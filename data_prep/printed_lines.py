"""Find the printed lines in a picture of text that nothing else says the places of."""

import numpy as np
from PIL import Image

from data_prep.config import ReadingConfig
from data_prep.cutting import LongestLine, parts_of
from data_prep.ink import LEAST_INK
from data_prep.lines import ASCENT, DESCENT
from data_prep.rows import MARGIN, Place, have_room, stacked

_REACH = 0.93  # of the type size: from the highest to the lowest ink of a line, about
_SMALL = 0.4  # of a line's height, up to which a band is an accent, a dot or a rule
_LARGE = 1.8  # of it, above which a band is none
_SOLID = 0.7  # share of ink, above which a band is a rule or a picture
_STROKES = 5.0  # of a column times those of an em of a row: of one line less than 4, of lines that touch more
_SPACE = 0.2  # of the type size: the least between words


def drawn_in_rows(picture: np.ndarray, config: ReadingConfig) -> np.ndarray | None:
    """Return the rows (height, width) of a passage that a grey picture (height, width) shows.

    A line is a band of ink, higher than an accent; all have the type size that most of the ink has. Long ones
    are cut between words. None where something is no line of text, lines touch, or there are more than fit.
    """
    paper = np.uint8(np.median(picture))
    contrast = np.maximum(picture, paper) - np.minimum(picture, paper)
    is_ink = contrast > max(LEAST_INK, 0.3 * contrast.max())
    bands = _runs(is_ink.any(axis=1))
    if not bands or len(bands) > config.max_pixels // config.pixel_multiple**2:
        return None
    line = _usual_height(bands, [int(np.count_nonzero(is_ink[top:bottom])) for top, bottom in bands])
    lines = _with_accents(bands, line)
    if not all(bottom - top <= _LARGE * line and _is_text(is_ink[top:bottom]) for top, bottom in lines):
        return None
    margin = int(2 * line)
    rows = [row for top, bottom in lines for row in _rows_of(is_ink, top, bottom, line / _REACH, config)]
    if not have_room(rows, config):
        return None
    paper_around = np.pad(picture, margin, constant_values=paper)
    moved = [tuple(edge + margin for edge in row) for row in rows]
    return stacked(Image.fromarray(paper_around), moved, config)


def _usual_height(bands: list[tuple[int, int]], ink: list[int]) -> float:
    """Return the height that half of the ink has at most."""
    heights = np.array([bottom - top for top, bottom in bands])
    order = np.argsort(heights, kind="stable")
    passed = np.cumsum(np.array(ink)[order])
    return float(heights[order][np.searchsorted(passed, passed[-1] / 2)])


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


def _is_text(band: np.ndarray) -> bool:
    columns = band[:, band.any(axis=0)]
    if columns.mean() > _SOLID:
        return False
    down, across = (
        np.count_nonzero(ink[0]) + np.count_nonzero(ink[1:] & ~ink[:-1]) for ink in (columns, band.T)
    )
    left, right = np.flatnonzero(band.any(axis=0))[[0, -1]]
    ems = (right + 1 - left) / (len(band) / _REACH)
    return (down / columns.shape[1]) * (across / len(band) / ems) <= _STROKES


def _rows_of(is_ink: np.ndarray, top: int, bottom: int, size: float, config: ReadingConfig) -> list[Place]:
    """Cut a line at its spaces into as few rows of similar length as are short enough."""
    middle, half = (top + bottom) / 2, size * (ASCENT + DESCENT) / 2
    words: list[tuple[int, int]] = []
    for left, right in _runs(is_ink[top:bottom].any(axis=0)):
        if words and left - words[-1][1] < _SPACE * size:
            words[-1] = words[-1][0], right
        else:
            words.append((left, right))
    widths = [right - left for left, right in words]
    longest = LongestLine(float("inf"), config.row_characters / config.row_stretch * (ASCENT + DESCENT))
    parts = parts_of(widths, [True] * (len(words) - 1), words, size, longest)
    margin = MARGIN * 2 * half
    return [
        (words[part.start][0] - margin, middle - half, words[part.stop - 1][1] + margin, middle + half)
        for part in parts
    ]


def _runs(is_one: np.ndarray) -> list[tuple[int, int]]:
    """Return where stretches of True begin and end."""
    edges = np.flatnonzero(np.diff(is_one.astype(np.int8), prepend=0, append=0))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
