"""The judge of the reader of PDFs (tests.bench.reading_accuracy) finds what is wrong, and nothing else."""

import numpy as np
import pytest
from PIL import Image

from tests.bench.poppler import Word, bare, rejoined, words_of
from tests.bench.reading_accuracy import Block, foreign_lines, is_blank

FIRST, SECOND = "the river runs below the bridge", "a market opens in the morning"
UPPER, BOTH = (10, 10, 330, 22), (10, 10, 330, 36)  # boxes, in points, of one line and of two


def printed(text: str, top: float) -> list[Word]:
    """A line as poppler places it: every word 50 points wide and 12 high."""
    return [
        Word(text=bare(word), left=10 + 52 * place, top=top, right=60 + 52 * place, bottom=top + 12)
        for place, word in enumerate(text.split())
    ]


LINES = [printed(FIRST, 10), printed(SECOND, 24)]


def block(number: int, text: str, box: tuple[float, float, float, float]) -> Block:
    return Block(number=number, text=text, box=box, trainable=True)


def test_a_block_that_says_all_that_it_shows_shows_nothing_foreign() -> None:
    assert foreign_lines(1, [block(0, f"{FIRST} {SECOND}", BOTH)], LINES) == []
    assert foreign_lines(1, [block(0, FIRST, UPPER), block(1, SECOND, (10, 24, 330, 36))], LINES) == []


def test_a_block_whose_box_holds_another_blocks_line_shows_it() -> None:
    found = foreign_lines(1, [block(0, FIRST, BOTH), block(1, SECOND, (10, 24, 330, 36))], LINES)
    assert [(one.block, one.of_another) for one in found] == [(0, True)]
    assert found[0].words == "a market opens in morning"  # its text has a `the` too


def test_a_line_that_no_block_says_is_unread() -> None:
    assert [one.of_another for one in foreign_lines(1, [block(0, FIRST, BOTH)], LINES)] == [False]


@pytest.mark.parametrize(("bottom", "shown"), [(32, False), (33, True)])
def test_a_line_is_shown_from_three_quarters_of_its_height(bottom: int, shown: bool) -> None:
    assert bool(foreign_lines(1, [block(0, FIRST, (10, 10, 330, bottom))], LINES)) == shown


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("hyphenated word", "hyphen- ated word"),
        ("hyphenated", "a word is hyphen-"),
        ("ﬁnest oﬃce", "finest office"),
        ("resume", "résumé"),
        ("contrôleur", "contrˆoleur"),
        ("twice twice", "twice"),
        ("الإشتقاق"[::-1], "الإشتقاق"),
    ],
)
def test_another_way_to_write_the_same_words_is_not_foreign(theirs: str, ours: str) -> None:
    assert foreign_lines(1, [block(0, ours, UPPER)], [printed(theirs, 10)]) == []


def test_words_are_compared_in_one_form_and_letter_by_letter_where_there_are_no_spaces() -> None:
    assert list(words_of("The e-mail, Ｆｕｌｌ 東京都 ﬁn.")) == [
        "the",
        "e",
        "mail",
        "full",
        "東",
        "京",
        "都",
        "fin",
    ]


@pytest.mark.parametrize(
    ("paper", "ink", "blank"), [(255, 255, True), (255, 230, False), (200, 200, True), (0, 255, False)]
)
def test_a_crop_is_blank_without_ink_whatever_its_padding(paper: int, ink: int, blank: bool) -> None:
    grey = np.full((32, 64), 255, dtype=np.uint8)
    grey[:20, :50] = paper
    grey[5:10, 5:30] = ink
    assert is_blank(Image.fromarray(grey)) == blank


def test_a_word_divided_at_a_lines_end_is_one_where_the_other_reader_has_it_whole() -> None:
    assert rejoined("Di- vided, pre- and post-war", {"divided"}) == "Divided, pre- and post-war"
