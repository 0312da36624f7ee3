"""How words of one direction lie on a page and in its picture."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from data_prep.config import ReadingConfig
from data_prep.lines import Line
from data_prep.paragraphs import Paragraph
from data_prep.rows import MARGIN, Place, stacked
from data_prep.samples import Box
from data_prep.text_layer import Words

_PARTS_OF_PIXEL = 8


@dataclass(frozen=True, kw_only=True)
class Frame:
    """How words of one direction lie on a page and in its picture. Points, pixels."""

    turn: int
    is_vertical: bool  # upright characters below each other: a frame of turn 3 whose crops stay as they are
    left: float
    top: float
    scale: float
    picture: np.ndarray
    """Turned so that lines go to the right."""

    @classmethod
    def of(
        cls, turn: int, is_vertical: bool, picture: np.ndarray, page_size: tuple[float, float], scale: float
    ) -> "Frame":
        width, height = page_size
        left, top = ((0.0, height), (0.0, 0.0), (-width, 0.0), (-height, width))[turn]
        turned = np.ascontiguousarray(np.rot90(picture, -turn))
        return cls(turn=turn, is_vertical=is_vertical, left=left, top=top, scale=scale, picture=turned)

    def box(self, lines: Paragraph) -> Box:
        """Return the box of lines in the turned picture; equal lines get equal heights wherever they are."""
        height, width = self.picture.shape
        top = round((self.top - lines[0].top) * self.scale)
        bottom = top + round((lines[0].top - lines[-1].bottom) * self.scale)
        left = round((min(line.left for line in lines) - self.left) * self.scale) - 1
        right = round((max(line.right for line in lines) - self.left) * self.scale) + 1
        # Type of no size at the page's edge still gets one pixel: an image without area cannot be stored.
        right, bottom = min(max(right, left + 2, 1), width), min(max(bottom, 1), height)
        return min(max(left, 0), right - 1), min(max(top, 0), bottom - 1), right, bottom

    def turned(self, picture: np.ndarray) -> np.ndarray:
        """Return a picture of the page turned as this frame's own."""
        return np.rot90(picture, -self.turn)

    def letters(self, words: Words, number: int) -> Box:
        """Return the box of a word's small letters in the turned picture."""
        height, width = self.picture.shape
        left = int((words.left[number] - self.left) * self.scale)
        right = int((words.right[number] - self.left) * self.scale) + 1
        bottom = int((self.top - words.baseline[number]) * self.scale)
        top = bottom - int(0.6 * words.size[number] * self.scale) - 1
        left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
        return left, top, max(min(right, width), left + 1), max(min(bottom, height), top + 1)

    def cut(self, box: Box) -> np.ndarray:
        """Return what a box of the turned picture shows."""
        left, top, right, bottom = box
        return self.picture[top:bottom, left:right]

    def drawn(self, lines: Paragraph, config: ReadingConfig) -> np.ndarray:
        """Return the picture of a passage: see `data_prep.rows`."""
        places = [self._place(row) for line in lines for row in line.rows]
        rows = stacked(Image.fromarray(self.picture), places, config)
        return np.rot90(rows, self.turn) if self.is_vertical else rows

    def _place(self, row: Line) -> Place:
        height, width = self.picture.shape
        left, right = ((edge - self.left) * self.scale for edge in (row.left, row.right))
        top, bottom = ((self.top - edge) * self.scale for edge in (row.top, row.bottom))
        margin = MARGIN * (bottom - top)
        left, top = min(max(left - margin, 0.0), width - 1.0), min(max(top, 0.0), height - 1.0)
        place = left, top, max(min(right + margin, width), left + 1), max(min(bottom, height), top + 1)
        # Equal lines look equal wherever they are, whatever the last digits of their places.
        return tuple(round(edge * _PARTS_OF_PIXEL) / _PARTS_OF_PIXEL for edge in place)

    def displayed(self, box: Box) -> Box:
        """Return where a box of the turned picture lies on the page."""
        left, top, right, bottom = box
        height, width = self.picture.shape
        return (
            box,
            (top, width - right, bottom, width - left),
            (width - right, height - bottom, width - left, height - top),
            (height - bottom, left, height - top, right),
        )[self.turn]
