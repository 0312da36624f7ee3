"""The picture of a passage: its lines cut into rows, each drawn with type of one size, below each other.

A small model reads type of one size in rows of a limited length, whatever was printed: a row is as high as a
visual token, and stretched so that a token shows about 1.2 characters. What a page of PDF and an image of
text become is decided here."""

from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image

from data_prep.config import ReadingConfig
from data_prep.cutting import LongestLine
from data_prep.lines import ASCENT, DESCENT, Line

MARGIN = 0.06  # of a row's height, on both sides: letters lean over their places
Place = tuple[float, float, float, float]
"""Left, top, right and bottom of a row with its margin in a picture, in pixels and parts of them."""


def longest_lines(config: ReadingConfig) -> tuple[LongestLine, LongestLine]:
    """Return what a block may hold of one line, and what a row of a block: at most one visual token a
    character.
    """
    ems = (config.row_characters / config.row_stretch - 2 * MARGIN) * (ASCENT + DESCENT)
    rows = _most_tokens(config) // config.row_characters
    return LongestLine(config.max_block_characters - 1, rows * ems), LongestLine(config.row_characters, ems)


def _most_tokens(config: ReadingConfig) -> int:
    return config.max_pixels // config.pixel_multiple**2


def fit_one_picture(lines: Sequence[Line], config: ReadingConfig) -> bool:
    """Whether the rows of lines below each other fit into `max_pixels`."""
    rows = [row for line in lines for row in line.rows]
    heights = [row.top - row.bottom for row in rows]
    return have_room(
        [
            (row.left - MARGIN * height, 0, row.right + MARGIN * height, height)
            for row, height in zip(rows, heights, strict=True)
        ],
        config,
    )


def have_room(rows: Sequence[Place], config: ReadingConfig) -> bool:
    """Whether rows below each other fit into `max_pixels`."""
    widest = max((right - left) / max(bottom - top, 1e-6) for left, top, right, bottom in rows)
    return len(rows) * ceil(widest * config.row_stretch) <= _most_tokens(config)


def stacked(picture: Image.Image, places: Sequence[Place], config: ReadingConfig) -> np.ndarray:
    """Return (height, width) uint8: what a grey picture shows in these places, as rows on white, in order.

    Both sides are multiples of `pixel_multiple`, where the rows fit into `max_pixels`.
    """
    height = config.pixel_multiple
    widths = [
        max(1, round((right - left) / max(bottom - top, 1e-6) * height * config.row_stretch))
        for left, top, right, bottom in places
    ]
    whole = np.full((len(places) * height, ceil(max(widths) / height) * height), 255, np.uint8)
    for number, (place, width) in enumerate(zip(places, widths, strict=True)):
        row = picture.resize((width, height), Image.Resampling.BICUBIC, box=place)
        whole[number * height : (number + 1) * height, :width] = row
    return whole
