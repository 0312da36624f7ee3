"""Which words the picture of a page shows."""

import numpy as np

from data_prep.frame import Frame
from data_prep.text_layer import Words

LEAST_INK = 24  # of 255: what parts the darkest from the lightest grey of anything that is seen
_LEAST_HEIGHTS = 3  # of five, at which a word of a few letters has ink
# Where the picture is looked at, in type sizes above the baseline. Letters of every script have ink low
# there; signs such as _ and ", and single ones such as 一, may fall between.
_HEIGHTS_OF_WORDS, _HEIGHTS_OF_SIGNS = np.linspace(0.05, 0.55, 5), np.linspace(-0.2, 0.9, 23)
_PIXELS_AT_ONCE = 5_000_000  # at most, of a page of thousands of words: each takes 30 bytes


def are_seen(words: Words, frame: Frame) -> np.ndarray:
    """(n,) whether the picture has ink of different greys where the words stand."""
    is_sign = np.array(list(map(_is_sign, words.texts)), bool)
    darkest, lightest = _greys(words, frame, _HEIGHTS_OF_WORDS)
    # A rule, or the line below, crosses words that nobody sees, but not at most heights.
    is_seen = (lightest - darkest >= LEAST_INK).sum(axis=0) >= np.where(is_sign, 1, _LEAST_HEIGHTS)
    signs = np.flatnonzero(is_sign & ~is_seen)
    if len(signs):
        darkest, lightest = _greys(words.at(signs), frame, _HEIGHTS_OF_SIGNS)
        is_seen[signs] = lightest.max(axis=0) - darkest.min(axis=0) >= LEAST_INK
    return is_seen


def _is_sign(text: str) -> bool:
    return len(text) <= 2 or not (text.isalnum() or any(map(str.isalnum, text)))


def _greys(words: Words, frame: Frame, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(heights, n) the darkest and (heights, n) the lightest grey of each word at heights in type sizes."""
    height, width = frame.picture.shape
    left = np.clip((words.left - frame.left) * frame.scale, 0, width - 1).astype(int)
    right = np.clip(np.ceil((words.right - frame.left) * frame.scale), left + 1, width).astype(int)
    above = words.baseline + heights[:, None] * words.size
    rows = np.clip((frame.top - above) * frame.scale, 0, height - 1).astype(int)
    answers = [np.zeros((2, len(heights), 0), int)]
    at_once = max(1, _PIXELS_AT_ONCE // (len(heights) * int((right - left).max(initial=1))))
    for start in range(0, len(words), at_once):
        some = slice(start, start + at_once)
        starts = (rows[:, some] * width + left[some]).ravel()
        lengths = np.tile((right - left)[some], len(heights))
        ends = lengths.cumsum()
        pixels = np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)
        greys = frame.picture.ravel()[pixels]
        extremes = [one.reduceat(greys, ends - lengths) for one in (np.minimum, np.maximum)]
        answers.append(np.stack(extremes).astype(int).reshape(2, len(heights), -1))
    darkest, lightest = np.concatenate(answers, axis=2)
    return darkest, lightest
