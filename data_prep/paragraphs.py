"""Lines as paragraphs, in reading order, and paragraphs as blocks."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np

from data_prep.config import ReadingConfig
from data_prep.cutting import LongestLine
from data_prep.lines import Line, lines_of
from data_prep.rows import fit_one_picture, longest_lines
from data_prep.scripts import goes_right_to_left, is_east_asian, joined_lines
from data_prep.text_layer import Words

_PITCH, _EAST_ASIAN_PITCH = 1.45, 1.8  # of the type size: from the first line of a paragraph to the next
_MOST_TO_ORDER = 2_000  # paragraphs of a page; a longer table is read by rows

Paragraph = list[Line]


def text_of(lines: Sequence[Line]) -> str:
    """Return the text that lines make below each other."""
    return joined_lines([line.text for line in lines])


def paragraphs(words: Words, config: ReadingConfig) -> list[Paragraph]:
    """Return the paragraphs that words of one direction make, in reading order."""
    lines = lines_of(words, longest_lines(config) if config.unit == "block" else ())
    groups = _joined_rows(_grouped(lines), config)
    return in_order(groups, goes_right_to_left(line.text for line in lines))


def _grouped(lines: list[Line]) -> list[Paragraph]:
    """Group lines, given from the top down, into paragraphs.

    A new paragraph starts at a wider gap than one line pitch, at a change of type size or weight, and where
    the line above or below is not the only one: there columns begin or end.
    """
    above = _only_neighbours(lines)
    group_of: dict[int, Paragraph] = {}
    groups: list[Paragraph] = []
    for number, line in enumerate(lines):
        group = group_of.get(above.get(number, -1))
        if group is None or not _continues(group, line):
            groups.append(group := [])
        group.append(line)
        group_of[number] = group
    return groups


def _only_neighbours(lines: list[Line]) -> dict[int, int]:
    """Return {line: the line above it} for pairs that have no other neighbour between and beside them."""
    below: dict[int, list[int]] = {}
    above: dict[int, list[int]] = {}
    for number, line in enumerate(lines):
        nearest = None
        for other in range(number + 1, len(lines)):
            pitch = line.baseline - lines[other].baseline
            if pitch > 2 * line.size or (nearest is not None and pitch > nearest + 0.3 * line.size):
                break
            if pitch > 0.5 * line.size and line.overlaps(lines[other]):
                nearest = pitch if nearest is None else nearest
                below.setdefault(number, []).append(other)
                above.setdefault(other, []).append(number)
    return {one: upper[0] for one, upper in above.items() if len(upper) == 1 and len(below[upper[0]]) == 1}


def _continues(group: Paragraph, line: Line) -> bool:
    previous = group[-1]
    pitch = previous.baseline - line.baseline
    most = _EAST_ASIAN_PITCH if is_east_asian(line.text[:1]) else _PITCH
    usual = group[0].baseline - group[1].baseline if len(group) > 1 else most * previous.size
    return (
        0.5 * previous.size < pitch <= 1.12 * usual
        and abs(line.size - previous.size) < 0.1 * previous.size
        and line.is_bold == previous.is_bold
    )


def _joined_rows(groups: list[Paragraph], config: ReadingConfig) -> list[Paragraph]:
    """Join the parts of a row that stands alone, such as a field's name and its value, to one line, where a
    block may be as long.

    Rows below each other are left apart: they may be the cells of a table or two columns.
    """
    of_block, of_row = longest_lines(config)
    lines = sorted((line for group in groups for line in group), key=lambda one: (-one.baseline, one.left))
    joined: list[Paragraph] = []
    for group in sorted(groups, key=lambda one: (-one[0].baseline, one[0].left)):
        right, left = group[0], joined[-1][0] if joined else None
        if (
            left is not None
            and len(joined[-1]) == len(group) == 1
            and abs(left.baseline - right.baseline) < 0.15 * right.size
            and abs(left.size - right.size) < 0.2 * right.size
            and 0 < right.left - left.right < 8 * right.size
            and of_block.holds(
                len(left.text) + 1 + len(right.text), right.right - left.left, max(left.size, right.size)
            )
            and not any(_is_near(line, one) for one in (left, right) for line in _within(lines, one))
        ):
            joined[-1] = [_joined(left, right, of_row)]
        else:
            joined.append(group)
    return joined


def _within(lines: list[Line], other: Line) -> list[Line]:
    """Return those of lines, from the top down, that may be near another one."""
    reach = 2.5 * other.size
    first = bisect_left(lines, -other.baseline - reach, key=lambda one: -one.baseline)
    return lines[first : bisect_right(lines, reach - other.baseline, key=lambda one: -one.baseline)]


def _is_near(line: Line, other: Line) -> bool:
    """Whether a line stands closely above or below another one."""
    return line.overlaps(other) and 0.5 * other.size < abs(line.baseline - other.baseline) < 2.5 * other.size


def _joined(left: Line, right: Line, of_row: LongestLine) -> Line:
    first, second = (right, left) if goes_right_to_left([left.text, right.text]) else (left, right)
    text, size = f"{first.text} {second.text}".strip(), max(left.size, right.size)
    is_row = of_row.holds(len(text), right.right - left.left, size)
    return Line(
        text=text,
        left=left.left,
        right=right.right,
        baseline=left.baseline,
        size=size,
        is_bold=left.is_bold and right.is_bold,
        unknown=left.unknown + right.unknown,
        is_overprinted=left.is_overprinted or right.is_overprinted,
        parts=() if is_row else (*first.rows, *second.rows),
    )


def in_order(groups: list[Paragraph], from_the_right: bool) -> list[Paragraph]:
    """Return paragraphs in reading order (Breuel 2003, High performance document layout analysis).

    One comes before another when it is above it in its column, or in an earlier column, unless something
    between them spans both columns.
    """
    if len(groups) > _MOST_TO_ORDER:
        return sorted(groups, key=lambda group: (-group[0].top, group[0].left))
    left = np.array([min(line.left for line in group) for group in groups])
    right = np.array([max(line.right for line in group) for group in groups])
    top = np.array([group[0].top for group in groups])
    middle = (top + np.array([group[-1].bottom for group in groups])) / 2
    if from_the_right:
        left, right = -right, -left
    first = np.lexsort((left, -top))
    groups = [groups[number] for number in first.tolist()]
    left, right, middle = left[first], right[first], middle[first]
    in_one_column = (left[:, None] < right) & (left < right[:, None])
    is_above = middle[:, None] > middle
    # between[a, b]: a paragraph lies lower than a, higher than b and in the columns of both.
    lower = (in_one_column & is_above).astype(np.float32)
    between = (lower @ lower) > 0
    is_left = right[:, None] <= left
    before = (in_one_column & is_above) | (is_left & ~between & ~between.T)
    waiting, order = before.sum(axis=0, dtype=float), []
    for _ in groups:
        # Overlapping paragraphs may wait for each other: then the one that waits for the fewest goes first.
        number = int(waiting.argmin())
        order.append(groups[number])
        waiting -= before[number]
        waiting[number] = np.inf
    return order


def blocks(paragraph: Paragraph, config: ReadingConfig) -> list[Paragraph]:
    """Cut a paragraph so that each block's text has less than `max_block_characters`, and its rows have room
    in `max_pixels`.

    A block is whole lines, or a part of one: then its box shows nothing else.
    """
    of_block, _ = longest_lines(config)
    cut: list[Paragraph] = []
    is_open = False  # whether the last block may get another line
    for line in paragraph:
        if line.parts and not of_block.holds(len(line.text), line.right - line.left, line.size):
            cut += [[part] for part in line.parts]
            is_open = False
        elif (
            is_open
            and of_block.characters >= len(text_of(longer := [*cut[-1], line]))
            and fit_one_picture(longer, config)
        ):
            cut[-1] = longer
        else:
            cut.append([line])
            is_open = True
    return cut
