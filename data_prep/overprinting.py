"""Words that stand over each other: the same again, or others of which not all may be seen."""

from collections.abc import Callable

import numpy as np

from data_prep.frame import Frame
from data_prep.text_layer import Words

_OVERLAP = 1 / 3  # of the shorter of two words
_NEIGHBOURS = 3  # in a line, that are looked at

Draw = Callable[[np.ndarray], np.ndarray]
"""(n,) handles of text objects -> the picture of the page without them."""


def drawn_once(words: Words) -> Words:
    """Leave out what is drawn again at the same place."""
    one, other = _pairs(words)
    near = np.minimum(0.3 * words.size, 0.5 * (words.right - words.left))[one]
    is_near = (abs(words.left[one] - words.left[other]) < near) & (
        abs(words.baseline[one] - words.baseline[other]) < near
    )
    pairs = zip(one[is_near].tolist(), other[is_near].tolist(), strict=True)
    repeats = {max(pair) for pair in pairs if words.texts[pair[0]] == words.texts[pair[1]]}
    return words.at(np.setdiff1d(np.arange(len(words)), list(repeats))) if repeats else words


def are_under_others(words: Words, frame: Frame, draw_without: Draw) -> np.ndarray:
    """(n,) whether the page looks the same where they stand without them: others are seen there."""
    is_under = np.zeros(len(words), bool)
    is_word = np.array([len(text) > 1 for text in words.texts], bool)
    pairs = [pair[is_word[one] & is_word[other]] for one, other in [_pairs(words)] for pair in (one, other)]
    for suspects in (np.minimum(*pairs), np.maximum(*pairs)):
        if not len(suspects):
            return is_under
        suspects = np.unique(suspects)
        is_same = frame.turned(draw_without(words.objects[suspects])) == frame.picture
        for number in suspects.tolist():
            left, top, right, bottom = frame.letters(words, number)
            is_under[number] = is_same[top:bottom, left:right].all()
    return is_under


def _pairs(words: Words) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (one, other) of words that share much of their place."""
    found = [np.zeros((2, 0), int)]
    if len(words) > 1:
        band = 0.6 * float(np.median(words.size)) or 1.0
        for offset in (0.0, 0.5):  # what the edge of a band parts is in one band of the other kind
            order = np.lexsort((words.left, np.floor(words.baseline / band + offset)))
            found += [np.stack([order[:-lag], order[lag:]]) for lag in range(1, _NEIGHBOURS + 1)]
    one, other = np.concatenate(found, axis=1)
    left, right, baseline = words.left, words.right, words.baseline
    shared = np.minimum(right[one], right[other]) - np.maximum(left[one], left[other])
    shorter = np.minimum(right[one] - left[one], right[other] - left[other])
    is_shared = (shared > _OVERLAP * shorter) & (abs(baseline[one] - baseline[other]) < 0.5 * words.size[one])
    return one[is_shared], other[is_shared]
