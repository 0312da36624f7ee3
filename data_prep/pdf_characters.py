"""Ask pdfium about many characters of a page at once."""

import ctypes
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium

from data_prep.plain_text import UNKNOWN

BOLD_WEIGHT = 600
SLANTED = -1  # the turn of a word that stands neither upright nor on one of its sides
_FONT_NAME_BYTES = 128
_STRAIGHT = np.cos(np.radians(1.2))  # beyond that the words of a line stand on different baselines
_ALEFS, _LAM = (0x622, 0x623, 0x625, 0x627), 0x644
_WITHOUT_INK = (pdfium.FPDF_TEXTRENDERMODE_INVISIBLE, pdfium.FPDF_TEXTRENDERMODE_CLIP)


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What text objects, or their characters, have in common. Arrays of one length."""

    x: np.ndarray
    y: np.ndarray
    """Where a character stands on the baseline, in the page's own coordinates."""
    turn: np.ndarray
    has_room: np.ndarray
    """Whether pdfium knows the room of its characters, and not only their glyphs: where the line goes
    straight along the page's own x axis and the font says how high it is.
    """
    size: np.ndarray
    font: np.ndarray
    has_height: np.ndarray
    is_bold: np.ndarray
    is_invisible: np.ndarray

    def at(self, places: np.ndarray) -> "Looks":
        return Looks(**{name: array[places] for name, array in vars(self).items()})


def _function(name: str, result: type) -> Callable:
    """A pdfium function for many calls: without declared arguments, and keeping Python's lock, one costs a
    third less.
    """
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


class Characters:
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
        first = np.flatnonzero(codes[1:] == _LAM)
        first = first[np.isin(codes[first], _ALEFS)]
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

    def looks(self, objects: np.ndarray, indices: Sequence[int], page_turn: int) -> Looks:
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
        return Looks(
            x=x,
            y=y,
            # Mirrored text has no turn; but a font of glyph programs (Type 3) may turn it back.
            turn=np.where((a * d < b * c) & has_height, SLANTED, _turns(along_x, along_y, page_turn)),
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
        pointer.
        """
        answers = np.empty((len(indices), arguments * numbers), kind)
        most = len(_POINTERS) // arguments
        for start in range(0, len(indices), most):
            some = indices[start : start + most]
            columns = (_POINTERS[one : arguments * len(some) : arguments] for one in range(arguments))
            _WRITTEN[: arguments * len(some)] = 0  # what pdfium does not write is no earlier answer
            deque(map(function, repeat(self._handle), some, *columns), maxlen=0)
            written = _WRITTEN[: arguments * len(some)].view(kind)[:, :numbers]
            answers[start : start + most] = written.reshape(len(some), -1)
        return answers


def _turns(along_x: np.ndarray, along_y: np.ndarray, page_turn: int) -> np.ndarray:
    """Return the turns of lines that go in these directions on a page displayed with a clockwise turn."""
    quarters = np.round(np.arctan2(along_y, along_x) / (np.pi / 2))
    straight = np.cos(np.arctan2(along_y, along_x) - quarters * (np.pi / 2)) >= _STRAIGHT
    return np.where(straight, (quarters - page_turn // 90) % 4, SLANTED).astype(np.int64)
