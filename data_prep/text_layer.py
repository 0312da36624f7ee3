"""Read a PDF page's text layer from pdfium as words and where they stand.

pdfium finds the characters and where words end. Asking it for anything costs a foreign call, so that it is
asked for the first and the last character of each word only. A word whose ends do not fit together (a raised
mark, a backward move, vertical writing) is taken apart into its characters. What words make is
`data_prep.lines`'s.
"""

from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pypdfium2

from data_prep.config import ReadingConfig
from data_prep.limits import check_characters
from data_prep.pdf_characters import Characters, Looks
from data_prep.plain_text import UNKNOWN
from data_prep.scripts import is_right_to_left, unknown_characters

_IS_SPACE = np.array([chr(code).isspace() for code in range(0x3002)])  # the last space is U+3000
_HYPHEN = 0x02  # pdfium's code for one at a line's end
_LONGEST_WORD = 24  # that is kept whole: lines are cut between words
_ASCENT_OF_GLYPHS = 0.85  # of the type size: what the highest glyphs of a text reach, about


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words of a page (n of them) in the order of its content. Lengths in points.

    Each stands in the frame of its turn: the page as displayed from its lower left, turned back so that the
    word is upright; x goes to the right, y up.
    """

    texts: list[str]
    turn: np.ndarray
    """(n,) quarter turns to the left in which the word is displayed, or `SLANTED`."""
    left: np.ndarray
    right: np.ndarray
    baseline: np.ndarray
    size: np.ndarray
    is_bold: np.ndarray
    is_invisible: np.ndarray
    """(n,) whether it is drawn without ink, as the text of a scan is."""
    is_guessed: np.ndarray
    """(n,) whether its font names no characters, so that codes of the font are taken for them."""
    is_apart: np.ndarray
    """(n,) whether white space stands between it and the word before it."""
    is_inside: np.ndarray
    """(n,) whether it goes on a word that is taken apart only because it is long: no space parts the two."""
    objects: np.ndarray
    """(n,) handles of the text objects that draw them."""

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, places: np.ndarray) -> "Words":
        """Return those at these places, in their order."""
        arrays = {name: array[places] for name, array in vars(self).items() if name != "texts"}
        return Words(texts=[self.texts[place] for place in places.tolist()], **arrays)

    def where(self, which: np.ndarray) -> "Words":
        """Return those that `which`, (n,) bool, says."""
        return self if which.all() else self.at(np.flatnonzero(which))


@dataclass(frozen=True, kw_only=True)
class View:
    """How a page is displayed: its visible box in its own coordinates, and the clockwise turn in degrees."""

    left: float
    bottom: float
    right: float
    top: float
    turn: int

    @classmethod
    def of(cls, page: pypdfium2.PdfPage) -> "View":
        left, bottom, right, top = page.get_bbox()
        return cls(left=left, bottom=bottom, right=right, top=top, turn=page.get_rotation())

    def place(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return points of the page in displayed coordinates."""
        if self.turn == 90:
            return y - self.bottom, self.right - x
        if self.turn == 180:
            return self.right - x, self.top - y
        if self.turn == 270:
            return self.top - y, x - self.left
        return x - self.left, y - self.bottom

    def shows(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (self.left <= x) & (x <= self.right) & (self.bottom <= y) & (y <= self.top)


def in_frame(x: np.ndarray, y: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return displayed points in the frames of `turn`."""
    if not turn.any():
        return x, y
    return np.choose(turn % 4, (x, y, -x, -y)), np.choose(turn % 4, (y, -x, -y, x))


def read_words(page: pypdfium2.PdfPage, config: ReadingConfig) -> Words:
    """Return the words in a page's visible box, seen or not.

    Raises UnreadableDocument when the page has more characters.
    """
    with closing(page.get_textpage()) as textpage:
        check_characters(textpage.count_chars(), config)
        characters, view = Characters(textpage), View.of(page)
        codes, is_guessed = characters.codes()
        first, last = _ends_of_words(codes)
        if is_guessed.any():
            # A guess is for a whole word: letters among known ones are not what the font's codes say.
            is_part = _count(is_guessed, first) < last - first + 1
            start = first[0] if len(first) else len(codes)
            is_lone = is_guessed[start:] & np.repeat(is_part, np.diff(first, append=len(codes)))
            codes[start:][is_lone] = ord(UNKNOWN)
        words, fits, is_shown = _measured(characters, codes, is_guessed, first, last, view)
        is_long = fits & (last - first >= _LONGEST_WORD)
        for number in np.flatnonzero(is_long).tolist():
            is_long[number] = not unknown_characters(words.texts[number])  # of a word they tell what it is
        if not fits.all() or is_long.any():
            long = first[is_long], last[is_long]
            first, last = _taken_apart(first, last, ~fits | is_long)
            words, _, is_shown = _measured(characters, codes, is_guessed, first, last, view)
            words = Words(**vars(words) | {"is_inside": _behind_the_first(first, *long)})
        return words.where(is_shown)


def _behind_the_first(places: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """(n,) which of the characters are in one of the words, from its first to its last, and not its first."""
    word = np.searchsorted(first, places, side="right") - 1
    return (word >= 0) & (places > first[word]) & (places <= last[word]) if len(first) else word >= 0


def _count(which: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(n,) how many of the characters up to the next word are such ones."""
    return np.add.reduceat(which, first, dtype=int) if len(first) else np.zeros(0, int)


def _ends_of_words(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the first and (n,) the last character of each word."""
    is_printed = ~_IS_SPACE[np.minimum(codes, len(_IS_SPACE) - 1)]
    goes_on = is_printed[1:] & is_printed[:-1] & (codes[:-1] != _HYPHEN)
    is_first, is_last = is_printed.copy(), is_printed.copy()
    is_first[1:] &= ~goes_on
    is_last[:-1] &= ~goes_on
    return np.flatnonzero(is_first), np.flatnonzero(is_last)


def _taken_apart(first: np.ndarray, last: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the words with a word for each character of those."""
    pieces = np.where(which, last - first + 1, 1)
    within = np.arange(pieces.sum()) - np.repeat(pieces.cumsum() - pieces, pieces)
    start, is_piece = np.repeat(first, pieces) + within, np.repeat(which, pieces)
    return start, np.where(is_piece, start, np.repeat(last, pieces))


def _measured(
    characters: Characters,
    codes: np.ndarray,
    is_guessed: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    view: View,
) -> tuple[Words, np.ndarray, np.ndarray]:
    """Return n words by their ends, (n,) whether their ends fit together and (n,) whether they begin in the
    view.
    """
    count, indices = len(first), np.concatenate([first, last]).tolist()
    objects, index, look_of = np.unique(characters.objects(indices), return_index=True, return_inverse=True)
    looks = characters.looks(objects, [indices[one] for one in index.tolist()], view.turn)
    turn, look = looks.turn[look_of], looks.at(look_of)
    boxes = characters.boxes(indices, ~look.has_room)
    is_shown = view.shows((boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2)
    (x0, y0), (x1, y1) = (in_frame(*view.place(boxes[:, k], boxes[:, k + 1]), turn) for k in (0, 2))
    left, right, bottom, top = np.minimum(x0, x1), np.maximum(x0, x1), np.minimum(y0, y1), np.maximum(y0, y1)
    a, b, length = slice(count), slice(count, None), last - first + 1
    origins = np.stack([look.x, look.y], axis=1)
    # Characters of one object may stand below each other, and those of a line that rises on other baselines.
    alone = np.flatnonzero((length == 1) | ~look.has_room[a])
    origins[alone] = characters.origins(first[alone].tolist())
    origins[count + alone] = characters.origins(last[alone].tolist())
    baseline = in_frame(*view.place(*origins.T), turn)[1]
    size = _true_sizes(look, top - baseline)
    text = codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass").replace(chr(_HYPHEN), "-")
    texts = [text[start : end + 1] for start, end in zip(first.tolist(), last.tolist(), strict=True)]
    from_the_right = np.array(list(map(is_right_to_left, texts)), bool) if is_right_to_left(text) else False
    is_one_line = (
        (turn[a] == turn[b])
        & (abs(baseline[a] - baseline[b]) < 0.1 * size[a])
        & (abs(size[a] - size[b]) < 0.1 * size[a])
        & (abs(bottom[a] - bottom[b]) < 0.6 * size[a])
    )
    is_straight = np.where(from_the_right, left[b] <= left[a], left[b] >= left[a])
    is_near = abs(right[b] - left[a]) < (1.3 * length + 1) * size[a]
    fits = (is_one_line & is_straight & is_near & (is_shown[a] == is_shown[b])) | (length == 1)
    left, right = np.minimum(left[a], left[b]), np.maximum(right[a], right[b])
    words = Words(
        texts=texts,
        turn=turn[a],
        left=left,
        right=np.where(look.has_room[a], right, _up_to_next(left, right, baseline[a], size[a], first, last)),
        baseline=baseline[a],
        size=size[a],
        is_bold=look.is_bold[a],
        is_invisible=look.is_invisible[a],
        is_guessed=_count(is_guessed, first) == length,
        is_apart=np.diff(last, prepend=-2) > length,
        is_inside=np.zeros(count, bool),
        objects=objects[look_of[a]],
    )
    return words, fits, is_shown[a]


def _up_to_next(
    left: np.ndarray,
    right: np.ndarray,
    baseline: np.ndarray,
    size: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
) -> np.ndarray:
    """(n,) `right`, cut where the next word of the line begins: glyphs may lean over it."""
    is_apart = first[1:] > last[:-1] + 1
    room = left[1:] - 0.2 * size[1:] * is_apart
    is_next = (abs(np.diff(baseline)) < 0.1 * size[1:]) & (left[1:] > left[:-1])
    cut = np.where(is_next, np.minimum(right[:-1], room), right[:-1])
    return np.append(np.maximum(cut, left[:-1]), right[-1:])


def _true_sizes(look: Looks, height: np.ndarray) -> np.ndarray:
    """Return type sizes; of a font that says nothing of its height (Type 3), by what its glyphs reach.

    Args:
        height: of each character's glyph above the baseline, where the font says nothing.
    """
    if look.has_height.all():
        return look.size
    sizes = look.size.copy()
    for font in np.unique(look.font[~look.has_height]):
        of_font = look.font == font
        seen = height[of_font].max() / _ASCENT_OF_GLYPHS
        said = np.median(sizes[of_font])
        if seen > 0 and not 0.6 < said / seen < 1.6:
            sizes[of_font] *= seen / said if said else 1.0
    return sizes
