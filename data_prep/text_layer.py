"""Read a PDF page's text layer from pdfium as words and where they stand.

pdfium finds the characters and where words end. Asking it for anything costs a foreign call, so that it is
asked for the first and the last character of each word only. A word whose ends do not fit together (a raised
mark, a backward move, vertical writing) is taken apart into its characters. What words make is
`data_prep.lines`'s."""

import ctypes
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium

from data_prep.config import ReadingConfig
from data_prep.limits import check_characters
from data_prep.plain_text import UNKNOWN

BOLD_WEIGHT = 600
SLANTED = -1  # the turn of a word that stands neither upright nor on one of its sides
_FONT_NAME_BYTES = 128
_STRAIGHT = np.cos(np.radians(3))
_IS_SPACE = np.array([chr(code).isspace() for code in range(0x3002)])  # the last space is U+3000
_ALEFS, _LAM = (0x622, 0x623, 0x625, 0x627), 0x644
_HYPHEN = 0x02  # pdfium's code for one at a line's end
_WITHOUT_INK = (pdfium.FPDF_TEXTRENDERMODE_INVISIBLE, pdfium.FPDF_TEXTRENDERMODE_CLIP)
_ASCENT_OF_GLYPHS = 0.85  # of the type size: what the highest glyphs of a text reach, about


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words of a page (n of them) in the order of its content. Lengths in points.

    Each stands in the frame of its turn: the page as displayed from its lower left, turned back so that the
    word is upright; x goes to the right, y up."""

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
    objects: np.ndarray
    """(n,) handles of the text objects that draw them."""

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, places: np.ndarray) -> "Words":
        """Return those at these places, in their order."""
        arrays = {name: array[places] for name, array in vars(self).items() if name != "texts"}
        return Words(texts=[self.texts[place] for place in places.tolist()], **arrays)


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
        return {
            0: (x - self.left, y - self.bottom),
            90: (y - self.bottom, self.right - x),
            180: (self.right - x, self.top - y),
            270: (self.top - y, x - self.left),
        }[self.turn]

    def shows(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (self.left <= x) & (x <= self.right) & (self.bottom <= y) & (y <= self.top)


def in_frame(x: np.ndarray, y: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return displayed points in the frames of `turn`."""
    return np.choose(turn % 4, (x, y, -x, -y)), np.choose(turn % 4, (y, -x, -y, x))


def read_words(page: pypdfium2.PdfPage, config: ReadingConfig) -> Words:
    """Return the words in a page's visible box, seen or not.

    Raises UnreadableDocument when the page has more characters.
    """
    with closing(page.get_textpage()) as textpage:
        check_characters(textpage.count_chars(), config)
        characters, view = _Characters(textpage), View.of(page)
        codes, is_guessed = characters.codes()
        first, last = _ends_of_words(codes)
        # A guess is for a whole word: letters among known ones are not what the font's codes say.
        is_part = _count(is_guessed, first) < last - first + 1
        start = first[0] if len(first) else len(codes)
        is_lone = is_guessed[start:] & np.repeat(is_part, np.diff(first, append=len(codes)))
        codes[start:][is_lone] = ord(UNKNOWN)
        words, fits, is_shown = _measured(characters, codes, is_guessed, first, last, view)
        if not fits.all():
            first, last = _taken_apart(first, last, ~fits)
            words, _, is_shown = _measured(characters, codes, is_guessed, first, last, view)
        return words.at(np.flatnonzero(is_shown))


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
    characters: "_Characters",
    codes: np.ndarray,
    is_guessed: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    view: View,
) -> tuple[Words, np.ndarray, np.ndarray]:
    """Return n words by their ends, (n,) whether their ends fit together and (n,) whether they begin in the
    view."""
    count, indices = len(first), np.concatenate([first, last]).tolist()
    objects, index, look_of = np.unique(characters.objects(indices), return_index=True, return_inverse=True)
    looks = characters.looks(objects, [indices[one] for one in index.tolist()], view)
    turn, look = looks.turn[look_of], looks.at(look_of)
    boxes = characters.boxes(indices, ~look.has_room)
    is_shown = view.shows((boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2)
    (x0, y0), (x1, y1) = (in_frame(*view.place(boxes[:, k], boxes[:, k + 1]), turn) for k in (0, 2))
    left, right, bottom, top = np.minimum(x0, x1), np.maximum(x0, x1), np.minimum(y0, y1), np.maximum(y0, y1)
    a, b, length = slice(count), slice(count, None), last - first + 1
    origins = np.stack([look.x, look.y], axis=1)
    alone = np.flatnonzero(length == 1)
    origins[alone] = characters.origins(first[alone].tolist())  # below each other they may be of one object
    baseline = in_frame(*view.place(*origins.T), turn)[1]
    size = _true_sizes(look, top - baseline)
    is_right_to_left = _count(_are_right_to_left(codes), first) > 0
    is_one_line = (
        (turn[a] == turn[b])
        & (abs(baseline[a] - baseline[b]) < 0.1 * size[a])
        & (abs(size[a] - size[b]) < 0.1 * size[a])
        & (abs(bottom[a] - bottom[b]) < 0.6 * size[a])
    )
    is_straight = np.where(is_right_to_left, left[b] <= left[a], left[b] >= left[a])
    is_near = abs(right[b] - left[a]) < (1.3 * length + 1) * size[a]
    fits = (is_one_line & is_straight & is_near & (is_shown[a] == is_shown[b])) | (length == 1)
    text = codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass").replace(chr(_HYPHEN), "-")
    left, right = np.minimum(left[a], left[b]), np.maximum(right[a], right[b])
    words = Words(
        texts=[text[start : end + 1] for start, end in zip(first.tolist(), last.tolist(), strict=True)],
        turn=turn[a],
        left=left,
        right=np.where(look.has_room[a], right, _up_to_next(left, right, baseline[a], size[a], first, last)),
        baseline=baseline[a],
        size=size[a],
        is_bold=look.is_bold[a],
        is_invisible=look.is_invisible[a],
        is_guessed=_count(is_guessed, first) == length,
        is_apart=np.diff(last, prepend=-2) > length,
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


def _are_right_to_left(codes: np.ndarray) -> np.ndarray:
    """Whether code points are letters of Hebrew, Arabic and their neighbours."""
    is_digit = ((codes >= 0x660) & (codes < 0x66D)) | ((codes >= 0x6F0) & (codes < 0x6FA))
    is_letter = (codes >= 0x590) & (codes < 0x900) & ~is_digit
    return is_letter | ((codes >= 0xFB1D) & (codes < 0xFE00)) | ((codes >= 0xFE70) & (codes < 0xFEFF))


def _true_sizes(look: "_Looks", height: np.ndarray) -> np.ndarray:
    """Return type sizes; of a font that says nothing of its height (Type 3), by what its glyphs reach.

    Args:
        height: of each character's glyph above the baseline, where the font says nothing.
    """
    sizes = look.size.copy()
    for font in np.unique(look.font[~look.has_height]):
        of_font = look.font == font
        seen = height[of_font].max() / _ASCENT_OF_GLYPHS
        said = np.median(sizes[of_font])
        if seen > 0 and not 0.6 < said / seen < 1.6:
            sizes[of_font] *= seen / said if said else 1.0
    return sizes


@dataclass(frozen=True, kw_only=True)
class _Looks:
    """What text objects, or their characters, have in common. Arrays of one length."""

    x: np.ndarray
    y: np.ndarray
    """Where a character stands on the baseline, in the page's own coordinates."""
    turn: np.ndarray
    has_room: np.ndarray
    """Whether pdfium knows the room of its characters, and not only their glyphs: where the line goes
    straight along the page's own x axis and the font says how high it is."""
    size: np.ndarray
    font: np.ndarray
    has_height: np.ndarray
    is_bold: np.ndarray
    is_invisible: np.ndarray

    def at(self, places: np.ndarray) -> "_Looks":
        return _Looks(**{name: array[places] for name, array in vars(self).items()})


def _function(name: str, result: type) -> Callable:
    """A pdfium function for many calls: without declared arguments, and keeping Python's lock, one costs a
    third less."""
    return ctypes.PYFUNCTYPE(result)(ctypes.cast(getattr(pdfium, name), ctypes.c_void_p).value)


_GET_TEXT = _function("FPDFText_GetText", ctypes.c_int)
_GET_UNICODE = _function("FPDFText_GetUnicode", ctypes.c_uint)
_HAS_NO_CHARACTER = _function("FPDFText_HasUnicodeMapError", ctypes.c_int)
_GET_OBJECT = _function("FPDFText_GetTextObject", ctypes.c_size_t)
_GET_ROOM = _function("FPDFText_GetLooseCharBox", ctypes.c_int)
_GET_GLYPH_BOX = _function("FPDFText_GetCharBox", ctypes.c_int)
_GET_ORIGIN = _function("FPDFText_GetCharOrigin", ctypes.c_int)
_GET_MATRIX = _function("FPDFText_GetMatrix", ctypes.c_int)
_GET_SIZE = _function("FPDFText_GetFontSize", ctypes.c_double)
_GET_FONT = _function("FPDFTextObj_GetFont", ctypes.c_size_t)
_GET_MODE = _function("FPDFTextObj_GetTextRenderMode", ctypes.c_int)


# Where pdfium writes numbers: making a pointer takes as long as a call.
_WRITTEN = np.zeros((8192, 32), np.uint8)
_POINTERS = [ctypes.c_void_p(_WRITTEN.ctypes.data + place) for place in range(0, _WRITTEN.nbytes, 32)]


class _Characters:
    """Questions about many characters of a text page at once; answers are arrays over what was asked."""

    def __init__(self, textpage: pypdfium2.PdfTextPage) -> None:
        self._textpage = textpage
        self._handle = ctypes.c_void_p(ctypes.cast(textpage.raw, ctypes.c_void_p).value)

    def codes(self) -> tuple[np.ndarray, np.ndarray]:
        """(characters,) code points, or halves of one, `UNKNOWN` where the file names none that exists; and
        (characters,) whether one is guessed: a printable ASCII code of a font that names no character for it.
        """
        count = self._textpage.count_chars()
        units = np.zeros(count + 1, np.uint16)
        given = _GET_TEXT(self._handle, 0, count, ctypes.c_void_p(units.ctypes.data))
        codes = units[:-1].astype(np.uint32)
        # The bulk text has 16 bits a character, and one code for what has none and for a hyphen at a line's
        # end.
        asked = np.flatnonzero(codes >= 0x80) if given == count + 1 else np.arange(count)
        codes[asked] = self._each(_GET_UNICODE, asked.tolist(), np.uint32)
        is_unnamed = self._each(_HAS_NO_CHARACTER, range(count), bool)
        is_guessed = is_unnamed & (codes > 0x20) & (codes < 0x7F)
        is_high, is_low = codes >> 10 == 0xD800 >> 10, codes >> 10 == 0xDC00 >> 10
        is_half = (is_high & ~np.append(is_low[1:], False)) | (is_low & ~np.insert(is_high[:-1], 0, False))
        codes[(is_unnamed & ~is_guessed) | is_half | (codes == 0) | (codes > 0x10FFFF)] = ord(UNKNOWN)
        self._turn_ligatures(codes)
        return codes, is_guessed

    def _turn_ligatures(self, codes: np.ndarray) -> None:
        """Turn ALEF LAM of one glyph: pdfium turns right-to-left letters, those of a ligature too."""
        first = np.flatnonzero(np.isin(codes[:-1], _ALEFS) & (codes[1:] == _LAM))
        if len(first):
            is_room = np.zeros(len(first), bool)
            boxes = [self.boxes(some.tolist(), is_room) for some in (first, first + 1)]
            ligatures = first[(boxes[0] == boxes[1]).all(axis=1)]
            codes[ligatures + 1], codes[ligatures] = codes[ligatures], _LAM

    def objects(self, indices: Sequence[int]) -> np.ndarray:
        """(n,) the handle of the text object that draws each character; 0 where pdfium made one up."""
        return self._each(_GET_OBJECT, indices, np.uint64)

    def boxes(self, indices: Sequence[int], is_tight: np.ndarray) -> np.ndarray:
        """(n, 4) left, bottom, right and top: of a character's room, or of its glyph where `is_tight`."""
        left, top, right, bottom = self._filled(_GET_ROOM, indices, np.float32, 1, 4).T
        boxes = np.stack([np.minimum(left, right), bottom, np.maximum(left, right), top], axis=1).astype(
            float
        )
        if is_tight.any():
            places = np.flatnonzero(is_tight)
            glyphs = self._filled(_GET_GLYPH_BOX, [indices[one] for one in places.tolist()], np.float64, 4, 1)
            boxes[places] = glyphs[:, [0, 2, 1, 3]]  # pdfium: left, right, bottom, top
        return boxes

    def origins(self, indices: Sequence[int]) -> np.ndarray:
        """(n, 2) where the characters stand on their baseline."""
        return self._filled(_GET_ORIGIN, indices, np.float64, 2, 1)

    def looks(self, objects: np.ndarray, indices: Sequence[int], view: View) -> _Looks:
        """Return the looks of text objects, by a character of each."""
        handles = [ctypes.c_void_p(one) for one in objects.tolist()]
        fonts = [_GET_FONT(one) if one else 0 for one in handles]
        modes = [_GET_MODE(one) if one else 0 for one in handles]
        x, y = self.origins(indices).T
        a, b, c, d, _, _ = self._filled(_GET_MATRIX, indices, np.float32, 1, 6).T.astype(float)
        sizes, scale = self._each(_GET_SIZE, indices, np.float64), np.hypot(c, d)
        along_x, along_y = np.sign(sizes) * a, np.sign(sizes) * b
        one_of = dict(zip(fonts, indices, strict=True))
        of_font = {font: self._font(font, index) for font, index in one_of.items()}
        has_height = np.array([of_font[font][0] for font in fonts], bool)
        return _Looks(
            x=x,
            y=y,
            # Mirrored text has no turn; but a font of glyph programs (Type 3) may turn it back.
            turn=np.where((a * d < b * c) & has_height, SLANTED, _turns(along_x, along_y, view.turn)),
            has_room=has_height & (abs(b) < 0.01 * abs(a)) & (abs(c) < 0.01 * abs(d)),
            size=abs(sizes) * np.where(scale > 0, scale, 1.0),
            font=np.array(fonts, np.uint64),
            has_height=has_height,
            is_bold=np.array([of_font[font][1] for font in fonts], bool),
            is_invisible=np.isin(modes, _WITHOUT_INK),
        )

    def _font(self, font: int, index: int) -> tuple[bool, bool]:
        """Return whether a font says how high it is, and whether it is bold."""
        ascent, descent = ctypes.c_float(), ctypes.c_float()
        handle = ctypes.cast(font, pdfium.FPDF_FONT)
        pdfium.FPDFFont_GetAscent(handle, 1000, ascent)
        pdfium.FPDFFont_GetDescent(handle, 1000, descent)
        return 500 < ascent.value - descent.value < 5000, self._is_bold(index)

    def _is_bold(self, index: int) -> bool:
        weight = pdfium.FPDFText_GetFontWeight(self._textpage, index)
        if weight != 0:
            return weight >= BOLD_WEIGHT
        # A font that is not embedded has no weight, but a name such as Helvetica-Bold.
        name = ctypes.create_string_buffer(_FONT_NAME_BYTES)
        pdfium.FPDFText_GetFontInfo(self._textpage, index, name, _FONT_NAME_BYTES, ctypes.c_int())
        return b"bold" in name.value.lower()

    def _each(self, function: Callable, indices: Sequence[int], kind: type) -> np.ndarray:
        """(n,) what `function` returns for each character."""
        return np.fromiter(map(function, repeat(self._handle), indices), kind, len(indices))

    def _filled(
        self, function: Callable, indices: Sequence[int], kind: type, arguments: int, numbers: int
    ) -> np.ndarray:
        """(n, arguments * numbers) what `function` writes for each character: so many numbers by each
        pointer."""
        answers = np.empty((len(indices), arguments * numbers), kind)
        most = len(_POINTERS) // arguments
        for start in range(0, len(indices), most):
            some = indices[start : start + most]
            columns = (_POINTERS[one : arguments * len(some) : arguments] for one in range(arguments))
            deque(map(function, repeat(self._handle), some, *columns), maxlen=0)
            written = _WRITTEN[: arguments * len(some)].view(kind)[:, :numbers]
            answers[start : start + most] = written.reshape(len(some), -1)
        return answers


def _turns(along_x: np.ndarray, along_y: np.ndarray, page_turn: int) -> np.ndarray:
    """Return the turns of lines that go in these directions on a page displayed with a clockwise turn."""
    quarters = np.round(np.arctan2(along_y, along_x) / (np.pi / 2))
    straight = np.cos(np.arctan2(along_y, along_x) - quarters * (np.pi / 2)) >= _STRAIGHT
    return np.where(straight, (quarters - page_turn // 90) % 4, SLANTED).astype(np.int64)
