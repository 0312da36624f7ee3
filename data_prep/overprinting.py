"""Words that stand over each other: the same again, or others of which not all may be seen."""

from collections.abc import Callable

import numpy as np

from data_prep.frame import Frame
from data_prep.text_layer import Words

_OVERLAP = 1 / 3  # of the shorter of two words
_NEIGHBOURS = 3  # in a line, that are looked at

Draw = Callable[[np.ndarray], np.ndarray]
"""(n,) handles of text objects -> the picture of the page without them."""


def overprinted(words: Words, frame: Frame, draw_without: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) which words are drawn again where they stand, and (n,) which others hide."""
    is_repeat, is_under = np.zeros((2, len(words)), bool)
    one, other = _pairs(words)
    if not len(one):
        return is_repeat, is_under
    near = np.minimum(0.3 * words.size, 0.5 * (words.right - words.left))[one]
    is_near = (abs(words.left[one] - words.left[other]) < near) & (
        abs(words.baseline[one] - words.baseline[other]) < near
    )
    texts = zip(one.tolist(), other.tolist(), strict=True)
    is_same = np.array([words.texts[first] == words.texts[second] for first, second in texts], bool) & is_near
    is_repeat[np.maximum(one, other)[is_same]] = True
    is_word = np.array([len(text) > 1 for text in words.texts], bool)
    differ = ~is_same & is_word[one] & is_word[other]
    for suspects in (np.minimum(one, other)[differ], np.maximum(one, other)[differ]):
        is_under |= _change_nothing(words, np.unique(suspects), frame, draw_without)
    return is_repeat, is_under


def _change_nothing(words: Words, suspects: np.ndarray, frame: Frame, draw_without: Draw) -> np.ndarray:
    """(n,) which of the suspects stand where the page looks the same without them: others are seen there."""
    change_nothing = np.zeros(len(words), bool)
    if len(suspects):
        is_same = frame.turned(draw_without(words.objects[suspects])) == frame.picture
        for number in suspects.tolist():
            left, top, right, bottom = frame.letters(words, number)
            change_nothing[number] = is_same[top:bottom, left:right].all()
    return change_nothing


def _pairs(words: Words) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (one, other) of words that share much of their place."""
    found = [np.zeros((2, 0), int)]
    if len(words) > 1:
        band = 0.6 * float(np.median(words.size)) or 1.0
        for offset in (0.0, 0.5):  # what the edge of a band parts is in one band of the other kind
            order = np.lexsort((words.left, np.floor(words.baseline / band + offset)))
            left, right, baseline = words.left[order], words.right[order], words.baseline[order]
            width, near = right - left, 0.5 * words.size[order]
            for lag in range(1, _NEIGHBOURS + 1):
                shared = np.minimum(right[:-lag], right[lag:]) - np.maximum(left[:-lag], left[lag:])
                is_shared = shared > _OVERLAP * np.minimum(width[:-lag], width[lag:])
                is_shared &= abs(baseline[:-lag] - baseline[lag:]) < near[:-lag]
                found.append(np.stack([order[:-lag][is_shared], order[lag:][is_shared]]))
    one, other = np.concatenate(found, axis=1)
    return one, other
