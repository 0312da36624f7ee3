"""The text of a page, compared with its picture: blocks in reading order, each with the box that shows it."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, groupby

import numpy as np

from data_prep.config import ReadingConfig
from data_prep.frame import Frame
from data_prep.ink import LEAST_INK, are_seen
from data_prep.lines import Line
from data_prep.overprinting import Draw, overprinted
from data_prep.paragraphs import Paragraph, blocks, paragraphs, text_of
from data_prep.pdf_characters import SLANTED
from data_prep.plain_text import UNKNOWN
from data_prep.samples import Box
from data_prep.scripts import (
    brackets_are_turned,
    is_east_asian,
    is_no_word,
    is_right_to_left,
    turn_brackets,
    unknown_characters,
)
from data_prep.text_layer import Words

UNSEEN = "no ink where they stand"
SLANTING = "neither upright nor sideways, or mirrored"
UNKNOWN_LETTERS = "no known character"
_UNUSABLE_SHARE = 0.25  # of a page's letters or words
_PLAUSIBLE_SHARE = 0.6  # of guessed letters
_PARTS_OF_WORDS, _VOWELS = (
    re.compile("[A-Z]?[a-z]{2,18}(?![a-z])|[A-Z]{3,18}(?![A-Za-z])"),
    re.compile("[aeiouyAEIOUY]"),
)
_DOUBTFUL_SHARE = 0.01  # of the letters of a page that is trained on as a whole
_EDGE = 2.25  # points
_AT_ONCE = 1_000  # words, or blocks: what is compared with a page of thousands takes memory
_WITHOUT_GLYPHS = "\u200b\u200c\u200d\u2060\ufeff"  # zero-width spaces and joiners


@dataclass(frozen=True, kw_only=True)
class Block:
    """A paragraph, or a part of one, and where the page shows it."""

    text: str
    box: Box
    """In the picture of the page."""
    pixels: np.ndarray
    """(height, width) grey: its rows, upright."""
    ink: tuple[int, int]
    """Darkest and lightest grey that its box shows."""
    is_heading: bool
    unknown: int
    """How many of its letters nobody knows; they are not in `text`."""
    is_overprinted: bool
    """Whether words of it stand over each other."""
    shows_others: bool
    """Whether its box shows another block's line."""

    @property
    def has_ink(self) -> bool:
        """Whether its box shows anything; type of no size shows nothing."""
        darkest, lightest = self.ink
        return lightest - darkest >= LEAST_INK

    @property
    def doubt(self) -> str | None:
        """Why its text may not be what its box shows."""
        if self.unknown:
            return "a letter in it has no known character"
        if self.is_overprinted:
            return "words in it stand over each other"
        if self.shows_others:
            return "its box shows another block's line"
        if not self.text.isascii() and any(map(is_no_word, self.text.split())):
            return "a word in it is of no script"
        return None


@dataclass(frozen=True, kw_only=True)
class PageText:
    """What can be read on a page."""

    paragraphs: list[tuple[Frame, Paragraph]]
    """In reading order."""
    left_out: dict[str, int]
    """How many of its characters are in no paragraph, for each reason."""
    why_unusable: str | None
    """Why there is no paragraph though there are characters."""

    @property
    def text(self) -> str:
        return " ".join(text_of(paragraph) for _, paragraph in self.paragraphs)

    @property
    def doubt(self) -> str | None:
        """Why the text of the whole page may not be what it shows."""
        lines = [line for _, paragraph in self.paragraphs for line in paragraph]
        most, unknown = _DOUBTFUL_SHARE * len(self.text), sum(line.unknown for line in lines)
        if unknown > most:
            return f"{unknown:,} letters in it have no known character"
        if sum(len(line.text) for line in lines if line.is_overprinted) > most:
            return "words in it stand over each other"
        return self.why_unusable


def read_page_text(
    words: Words,
    picture: np.ndarray,
    draw_without: Draw,
    page_size: tuple[float, float],
    scale: float,
    config: ReadingConfig,
) -> PageText:
    """Return what of the words the picture shows.

    Args:
        picture: (height, width) the page as displayed, grey; `scale` pixels a point.
        page_size: width and height in points.
    """
    left_out: Counter[str] = Counter()
    read: list[tuple[Frame, Words]] = []
    for (turn, is_vertical), of_direction in _directions(words):
        if turn == SLANTED:
            left_out[SLANTING] += _letters(of_direction)
            continue
        frame = Frame.of(turn, is_vertical, picture, page_size, scale)
        is_repeat, is_under = overprinted(of_direction, frame, draw_without)
        is_seen = are_seen(of_direction, frame) & ~_are_inkless_among_others(of_direction) & ~is_under
        left_out[UNSEEN] += _letters(of_direction.where(~is_seen & ~is_repeat))
        seen = _known(of_direction.where(is_seen & ~is_repeat))
        if len(seen):
            read.append((frame, seen))
    found = [(frame, group) for frame, seen in read for group in paragraphs(seen, config)]
    why_unusable = _why_unusable([text for _, seen in read for text in seen.texts], found)
    if why_unusable:
        left_out[UNKNOWN_LETTERS] += sum(_letters(seen) for _, seen in read)
        found = []
    known = _without_unknown(_with_brackets(found), left_out)
    return PageText(paragraphs=known, left_out=dict(+left_out), why_unusable=why_unusable)


def _letters(words: Words) -> int:
    return sum(len(text.strip(_WITHOUT_GLYPHS)) for text in words.texts)


def _directions(words: Words) -> Iterator[tuple[tuple[int, bool], Words]]:
    """Yield the words of each direction that there is, (turn, whether it is vertical writing); most words
    first.
    """
    is_vertical = _are_vertical(words)
    directions, counts = np.unique(2 * words.turn + is_vertical, return_counts=True)
    for number in np.argsort(-counts, kind="stable").tolist():
        turn, vertical = divmod(int(directions[number]), 2)
        chosen = words.where((words.turn == turn) & (is_vertical == vertical))
        yield (3 if vertical else turn, bool(vertical)), _in_columns(chosen) if vertical else chosen


def _are_vertical(words: Words) -> np.ndarray:
    """(n,) whether they are characters of East Asian writing, or digits in it, that go straight down."""
    is_asian = np.array([len(text) == 1 and is_east_asian(text) for text in words.texts], bool)
    if not is_asian.any():
        return is_asian
    is_one = np.array([len(text) == 1 for text in words.texts], bool)
    middle, size, step = (words.left + words.right) / 2, words.size, -np.diff(words.baseline)
    follows = (
        is_one[:-1] & is_one[1:] & (words.turn[:-1] == 0) & (words.turn[1:] == 0)
        & (abs(np.diff(middle)) < 0.3 * size[1:]) & (step > 0.5 * size[1:]) & (step < 1.8 * size[1:])
    )  # fmt: skip
    chain = np.append(0, (~follows).cumsum())
    characters = np.bincount(chain)
    return ((characters > 1) & (2 * np.bincount(chain, is_asian) >= characters))[chain]


def _in_columns(characters: Words) -> Words:
    """Return upright characters in the frame of turn 3, where their columns are lines."""
    top, bottom = characters.baseline + 0.88 * characters.size, characters.baseline - 0.12 * characters.size
    values = vars(characters) | {
        "left": -top,
        "right": -bottom,
        "baseline": characters.left + 0.12 * characters.size,
    }
    return Words(**values)


def _are_inkless_among_others(words: Words) -> np.ndarray:
    """(n,) whether they are drawn without ink where others are drawn with it: what is seen there is not
    theirs.
    """
    is_under = words.is_invisible.copy()
    middle, with_ink = (words.left + words.right) / 2, ~words.is_invisible
    for number in np.flatnonzero(is_under).tolist():
        is_under[number] = (
            with_ink
            & (words.left < middle[number]) & (middle[number] < words.right)
            & (abs(words.baseline - words.baseline[number]) < 0.5 * words.size)
        ).any()  # fmt: skip
    return is_under


def _known(words: Words) -> Words:
    """Return words without letters that are only guessed, unless most of those make words."""
    guessed = " ".join(words.texts[number] for number in np.flatnonzero(words.is_guessed).tolist())
    if not guessed:
        return words
    # Neighbours in a word of which some letters are known count against it: there the font names some, and
    # not these.
    letters = sum(map(str.isalpha, guessed)) + sum(text.count(UNKNOWN) for text in words.texts)
    spelled = sum(len(part) for part in _PARTS_OF_WORDS.findall(guessed) if _VOWELS.search(part))
    if letters and spelled >= _PLAUSIBLE_SHARE * letters:
        return words
    pairs = zip(words.texts, words.is_guessed.tolist(), strict=True)
    texts = [UNKNOWN * len(text) if is_guessed else text for text, is_guessed in pairs]
    return Words(**vars(words) | {"texts": texts})


def _why_unusable(texts: list[str], found: list[tuple[Frame, Paragraph]]) -> str | None:
    """Return why the words of a page, and the lines that they make, are no text, or None.

    Signs of which none is known (notes of music, icons) do not count beside words.
    """
    letters, unknown = sum(map(len, texts)), unknown_characters("".join(texts))
    if unknown:
        partly = [text for text in texts if unknown_characters(text) < len(text)]
        if unknown_characters("".join(partly)) >= _UNUSABLE_SHARE * sum(map(len, partly)):
            return f"no usable text: {unknown:,} of its {letters:,} characters are none of any script"
    lines = [line.text for _, paragraph in found for line in paragraph if not line.text.isascii()]
    none = [word for text in lines for word in text.split() if len(word) > 2 and is_no_word(word)]
    if none and sum(map(len, none)) > _UNUSABLE_SHARE * letters:
        return f"no usable text: {len(none):,} of its words are of no script"
    return None


def _with_brackets(found: list[tuple[Frame, Paragraph]]) -> list[tuple[Frame, Paragraph]]:
    """Turn the brackets of right-to-left lines, where they are turned."""
    if not brackets_are_turned(line.text for _, paragraph in found for line in paragraph):
        return found

    def turned(line: Line, *, within: bool = False) -> Line:
        if not (within or is_right_to_left(line.text)):
            return line
        parts = tuple(turned(part, within=True) for part in line.parts)
        return replace(line, text=turn_brackets(line.text), parts=parts)

    return [(frame, list(map(turned, paragraph))) for frame, paragraph in found]


def _without_unknown(
    found: list[tuple[Frame, Paragraph]], left_out: Counter[str]
) -> list[tuple[Frame, Paragraph]]:
    """Leave out lines of which at least half the letters are unknown."""
    kept = []
    for frame, paragraph in found:
        known = [line for line in paragraph if line.unknown < len(line.text)]
        if known:
            kept.append((frame, known))
        if len(known) < len(paragraph):
            lost = [line for line in paragraph if line.unknown >= len(line.text)]
            left_out[UNKNOWN_LETTERS] += sum(line.unknown + len(line.text) for line in lost)
    return kept


def cut_blocks(page: PageText, config: ReadingConfig) -> list[Block]:
    """Return the blocks of a page, in reading order, with what the picture shows."""
    cut = [
        (frame, block, paragraph[0].is_bold and len(paragraph) <= 2)
        for frame, paragraph in page.paragraphs
        for block in blocks(paragraph, config)
    ]
    boxes = [frame.box(block) for frame, block, _ in cut]
    displayed = [frame.displayed(box) for (frame, _, _), box in zip(cut, boxes, strict=True)]
    show_others = _show_others(displayed, [(frame, block) for frame, block, _ in cut])
    return [
        Block(
            text=text_of(block),
            box=on_page,
            pixels=frame.drawn(block, config),
            ink=(int((shown := frame.cut(box)).min()), int(shown.max())),
            is_heading=is_heading,
            unknown=sum(line.unknown for line in block),
            is_overprinted=any(line.is_overprinted for line in block),
            shows_others=shows_others,
        )
        for (frame, block, is_heading), box, on_page, shows_others in zip(
            cut, boxes, displayed, show_others, strict=True
        )
    ]


def _show_others(boxes: list[Box], cut: list[tuple[Frame, Paragraph]]) -> list[bool]:
    """Return for each block whether its box shows more than the edge of lines that are not its own."""
    own = np.repeat(np.arange(len(cut)), [len(block) for _, block in cut])
    middles, edge = _middles(cut), _EDGE * max((frame.scale for frame, _ in cut), default=0)
    found: list[bool] = []
    for start in range(0, len(boxes), _AT_ONCE):
        some = boxes[start : start + _AT_ONCE]
        left, top, right, bottom = np.array(some).T[:, :, None]  # (blocks, 1)
        shows = (
            (np.minimum(middles[:, 2], right) - np.maximum(middles[:, 0], left) > edge)
            & (middles[:, 3] > top)
            & (middles[:, 1] < bottom)
            & (own != np.arange(start, start + len(some))[:, None])
        )  # (blocks, lines)
        found += shows.any(axis=1).tolist()
    return found


def _middles(cut: list[tuple[Frame, Paragraph]]) -> np.ndarray:
    """(lines, 4) where the page shows the middle of each line's letters, as boxes without height."""
    middles = [np.zeros((0, 4))]
    for _, of_frame in groupby(cut, key=lambda one: id(one[0])):
        frames, some = zip(*of_frame, strict=True)
        frame, lines = frames[0], chain.from_iterable(some)
        left, right, baseline, size = np.array(
            [(line.left, line.right, line.baseline, line.size) for line in lines]
        ).T
        height = (frame.top - baseline - 0.25 * size) * frame.scale
        box = ((left - frame.left) * frame.scale, height, (right - frame.left) * frame.scale, height)
        middles.append(np.stack(frame.displayed(box), axis=1))
    return np.concatenate(middles)
