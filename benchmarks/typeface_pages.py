"""The kinds of pages of benchmarks.typeface_documents: single lines, running text, lists, tables and code."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from benchmarks.typeface_setting import Columns, Setter, Style
from benchmarks.typeface_texts import Texts
from benchmarks.typeface_words import cell_text, pseudo_code, pseudo_text

_SAMPLE = "The quick onset of rain on these thirteen islands is no great surprise, as related above."
_MARGIN_POINTS = 34.0
_SHORT = 56  # characters of a paragraph that runs over no second line
_HYPHENATED = 0.3  # of the paragraphs


class Supply:
    """Texts without end, each of the real ones once before any comes again."""

    def __init__(self, texts: Texts, real_share: float, rng: random.Random) -> None:
        self._rng, self._real_share = rng, real_share
        self._long = [text for text in texts.paragraphs if len(text) > _SHORT]
        self._short = [text for text in texts.paragraphs if len(text) <= _SHORT]
        self._code = list(texts.code)
        self._next: dict[int, int] = {}

    def paragraph(self, can_print: Callable[[str], bool]) -> str:
        length = self._rng.randint(70, 420)
        return self._one(self._long, lambda: pseudo_text(self._rng, length), can_print)[:1200].rstrip()

    def line(self, least: int, most: int, can_print: Callable[[str], bool]) -> str:
        """Return `least` to `most` characters: whole words of a paragraph."""
        for _ in range(50):
            pool = self._short if most <= _SHORT and self._rng.random() < 0.4 else self._long
            text = self._one(pool, lambda: pseudo_text(self._rng, most + 30), can_print)
            words, taken = text.split(" "), ""
            for word in words[self._rng.randrange(max(1, len(words) // 2)) :]:
                if len(taken) + 1 + len(word) > most:
                    break
                taken = f"{taken} {word}".lstrip()
                if len(taken) >= self._wish(least, most):
                    break
            if least <= len(taken) <= most:
                cased = self._cased(taken)
                return cased if can_print(cased) else taken
        return _printed(pseudo_text(self._rng, most), can_print)[:most].strip()

    def code(self, can_print: Callable[[str], bool]) -> str:
        return self._one(self._code, lambda: pseudo_code(self._rng), can_print)

    def cell(self, can_print: Callable[[str], bool]) -> str:
        return (
            self.line(2, 22, can_print)
            if self._rng.random() < 0.5
            else _printed(cell_text(self._rng), can_print)
        )

    def _wish(self, least: int, most: int) -> int:
        return self._rng.randint(least, most)

    def _one(self, pool: list[str], pseudo: Callable[[], str], can_print: Callable[[str], bool]) -> str:
        while pool and self._rng.random() < self._real_share:
            place = self._next.get(id(pool), 0)
            if place % len(pool) == 0:
                self._rng.shuffle(pool)
            self._next[id(pool)] = place + 1
            if can_print(text := pool[place % len(pool)]):
                return text
        return _printed(pseudo(), can_print)

    def _cased(self, text: str) -> str:
        chance = self._rng.random()
        return text.upper() if chance < 0.04 else text.title() if chance < 0.07 else text


def _printed(text: str, can_print: Callable[[str], bool]) -> str:
    """Leave out what the face has no glyph for."""
    return text if can_print(text) else "".join(one for one in text if can_print(one)) or "none"


@dataclass(frozen=True, kw_only=True)
class Page:
    """What one section of pages is set from."""

    setter: Setter
    supply: Supply
    style: Style
    bold: str
    """Name of the face for headings."""
    rng: random.Random

    def can_print(self, text: str) -> bool:
        return self.setter.can_print(self.style.face, text) and self.setter.can_print(self.bold, text)

    @property
    def em(self) -> float:
        return self.style.size


def columns_for(page: Page, measure: int, most_columns: int) -> Columns:
    """As many columns of `measure` characters as the page holds."""
    rng, style = page.rng, page.style
    page_width, page_height = page.setter.page_points
    room = page_width - 2 * _MARGIN_POINTS
    width = min(room, measure * page.setter.text_width(style, _SAMPLE) / len(_SAMPLE))
    gap = style.size * rng.uniform(2.0, 4.0)
    count = max(1, min(most_columns, int((room + gap) / (width + gap))))
    spare = room - count * width - (count - 1) * gap
    first = _MARGIN_POINTS + rng.random() * max(0.0, spare)
    lefts = tuple(first + number * (width + gap) for number in range(count))
    top = _MARGIN_POINTS + rng.uniform(0, 30)
    return Columns(lefts=lefts, width=width, top=top, bottom=page_height - _MARGIN_POINTS)


def set_single_lines(page: Page, ranges: Sequence[tuple[int, int]]) -> None:
    """Lines that stand alone."""
    rng, em = page.rng, page.em
    page.setter.start_page(columns_for(page, max(most for _, most in ranges) + 2, 3))
    pitch = rng.uniform(1.6, 2.3) * em
    while not page.setter.is_page_full:
        style = replace(_spaced(page), leading=pitch * rng.uniform(1.0, 1.15))
        text = page.supply.line(*rng.choice(ranges), page.can_print)
        line = page.setter.break_lines(style, text, page.setter.width * 1.1)[0]  # large type is wide
        page.setter.put_line(style, line, indent=rng.choice([0, 0, 0, 1]) * rng.uniform(0, 1.5) * em)


def set_running_text(page: Page, measure: int, *, most_columns: int = 3, lists: bool = False) -> None:
    """Paragraphs with headings now and then; with lists where asked for."""
    rng, em = page.rng, page.em
    page.setter.start_page(columns_for(page, measure, most_columns))
    indent = rng.uniform(1, 2) * em if rng.random() < 0.25 else 0.0
    gap = rng.uniform(0, 0.2) * em if indent else rng.uniform(0.45, 1.3) * em
    while not page.setter.is_page_full:
        chance = rng.random()
        if chance < (0.2 if lists else 0.07):
            _set_heading(page)
        elif lists and chance < 0.6:
            _set_list(page)
        else:
            _set_paragraph(page, page.supply.paragraph(page.can_print), first_indent=indent)
        page.setter.skip(gap)


def set_table(page: Page) -> None:
    """Tables with cells nearer than an em or farther apart, and the lines around them."""
    rng, em = page.rng, page.em
    page.setter.start_page(columns_for(page, rng.randint(60, 100), 1))
    while not page.setter.is_page_full:
        if rng.random() < 0.3:
            _set_paragraph(page, page.supply.paragraph(page.can_print))
        else:
            _set_rows(page)
        page.setter.skip(rng.uniform(1, 2) * em)


def set_code(page: Page) -> None:
    """Lines of code, some with wide gaps inside, shaded or not."""
    rng, em = page.rng, page.em
    page.setter.start_page(columns_for(page, rng.randint(60, 90), 1))
    while not page.setter.is_page_full:
        if rng.random() < 0.25:
            _set_paragraph(page, page.supply.paragraph(page.can_print))
        else:
            lines = rng.randint(1, 14)
            if rng.random() < 0.4:
                page.setter.put_tint(page.style, lines, rng.randint(228, 248))
            pitch = rng.choice([1.0, 1.0, 1.4]) * page.style.leading if lines < 8 else page.style.leading
            for _ in range(lines):
                _set_code_line(replace_style(page, leading=pitch))
        page.setter.skip(rng.uniform(0.8, 1.6) * em)


def set_contents(page: Page) -> None:
    """Tables of contents: headings, leaders of dots, page numbers."""
    rng, em, setter = page.rng, page.em, page.setter
    setter.start_page(columns_for(page, rng.randint(45, 90), 1))
    leader = rng.choice([" .", " .", ".", " . "])
    while not setter.is_page_full:
        for number in range(1, rng.randint(6, 20)):
            level = rng.choice([0, 0, 1, 1, 2])
            mark = ".".join(str(rng.randint(1, 19)) for _ in range(level + 1))
            title = f"{mark} {page.supply.line(4, 40, page.can_print)}" if rng.random() < 0.95 else "Index"
            last, indent = str(number * rng.randint(1, 40)), level * 1.5 * em
            room = setter.width - indent - setter.text_width(page.style, f"{title}  {last}")
            dots = leader * max(3, int(room / setter.text_width(page.style, leader)))
            setter.put_line(page.style, f"{title}{dots} {last}", indent=indent)
        setter.skip(rng.uniform(0.5, 2) * em)


def replace_style(page: Page, **changes: float) -> Page:
    return replace(page, style=replace(page.style, **changes))


def _spaced(page: Page) -> Style:
    """In a third of the paragraphs, words nearer to each other or farther apart."""
    rng = page.rng
    return replace(page.style, word_space=rng.uniform(0.85, 1.5)) if rng.random() < 1 / 3 else page.style


def _set_paragraph(page: Page, text: str, *, first_indent: float = 0.0, indent: float = 0.0) -> None:
    style, setter, rng = _spaced(page), page.setter, page.rng
    width = setter.width - indent
    lines = setter.break_lines(style, text, width - first_indent, hyphenates=rng.random() < _HYPHENATED)
    for number, line in enumerate(lines):
        slack = (width - first_indent - setter.text_width(style, line)) / max(1, line.count(" "))
        full = number + 1 < len(lines) and slack < 0.5 * page.em
        left = indent + (first_indent if number == 0 or style.is_justified else 0.0)
        setter.put_line(
            style,
            line,
            indent=left if number == 0 else indent,
            width=width - (first_indent if number == 0 else 0.0) if style.is_justified and full else 0.0,
        )
    if rng.random() < 0.02:
        end = setter.last_left() + indent + (first_indent if len(lines) == 1 else 0.0)
        setter.put_mark(style, str(rng.randint(1, 40)), end + setter.text_width(style, lines[-1]))


def _set_heading(page: Page) -> None:
    rng = page.rng
    size = page.em * rng.choice([1.0, 1.1, 1.2, 1.4, 1.6])
    style = replace(
        page.style, face=page.bold, size=size, leading=1.25 * size, is_justified=False, word_space=1.0
    )
    page.setter.skip(0.7 * size)
    text = page.supply.line(4, 60, page.can_print)
    for line in page.setter.break_lines(style, text, page.setter.width):
        page.setter.put_line(style, line)
    page.setter.skip(rng.uniform(0.2, 0.6) * size)


def _set_list(page: Page) -> None:
    rng, em, setter = page.rng, page.em, page.setter
    kind = rng.randrange(5)
    hang = rng.uniform(1.1, 2.2) * em
    for number in range(1, rng.randint(3, 8)):
        marks = ["•", "–", f"{number}.", f"({number})", f"{chr(96 + number)})"]
        mark = marks[kind] if page.can_print(marks[kind]) else "-"
        most = rng.choice([24, 40, 60, 160])
        text = page.supply.line(8, most, page.can_print)
        indent = max(hang, setter.text_width(page.style, mark) + 0.35 * em)
        lines = setter.break_lines(page.style, text, setter.width - indent)
        setter.put_line(page.style, mark)
        setter.put_words(page.style, lines[0], setter.last_left() + indent)
        for line in lines[1:]:
            setter.put_line(page.style, line, indent=indent)
        setter.skip(rng.choice([0, 0, 0.3, 0.6]) * em)


def _set_rows(page: Page) -> None:
    rng, em, setter = page.rng, page.em, page.setter
    columns, rows = rng.randint(2, 5), rng.randint(3, 12)
    cells = [[page.supply.cell(page.can_print) for _ in range(columns)] for _ in range(rows)]
    gap = rng.uniform(0.4, 1.0) * em if rng.random() < 0.3 else rng.uniform(1.0, 4.0) * em
    widths = [max(setter.text_width(page.style, row[number]) for row in cells) for number in range(columns)]
    while columns > 1 and sum(widths[:columns]) + gap * (columns - 1) > setter.width:
        columns -= 1
    offsets = [sum(widths[:number]) + gap * number for number in range(columns)]
    to_the_right = {number for number in range(1, columns) if rng.random() < 0.2}
    style = replace(page.style, leading=page.style.leading * rng.choice([1.0, 1.0, 1.3, 1.7]))
    ruled, header = rng.random() < 0.4, rng.random() < 0.5
    setter.make_room(min(rows, 8) * style.leading)
    for number, row in enumerate(cells):
        used = replace(style, face=page.bold) if header and number == 0 else style
        places = []
        for place in range(columns):
            spare = widths[place] - setter.text_width(used, row[place]) if place in to_the_right else 0.0
            places.append((offsets[place] + spare, row[place]))
        setter.put_cells(used, places)
        if ruled:
            setter.skip(0.3 * em)
            setter.put_rule(offsets[-1] + widths[columns - 1])


def _set_code_line(page: Page) -> None:
    rng, em, setter = page.rng, page.em, page.setter
    text = page.supply.code(page.can_print)
    indent = min(8, (len(text) - len(text.lstrip())) / 2) * em
    words = text.split()
    line = " ".join(words) if rng.random() < 0.7 else text.strip()
    if setter.text_width(page.style, line) + indent > setter.width:
        line, indent = setter.break_lines(page.style, line, setter.width)[0], 0.0
        words = line.split()
    if len(words) > 1 and rng.random() < 0.3:
        cuts = sorted(rng.sample(range(1, len(words)), min(len(words) - 1, rng.choice([1, 1, 2]))))
        edges = [0, *cuts, len(words)]
        pieces = [" ".join(words[a:b]) for a, b in pairwise(edges)]
        gaps = [0.0, *(rng.uniform(0.6, 4.0) * em for _ in cuts)]
        setter.put_pieces(page.style, list(zip(gaps, pieces, strict=True)), indent=indent)
    else:
        setter.put_line(page.style, line, indent=indent)
