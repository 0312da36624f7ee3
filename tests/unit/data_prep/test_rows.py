"""Passages in rows: what is cut where, and that a row shows it with type of one size."""

from itertools import pairwise

import numpy as np
import pypdfium2
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from data_prep.config import ReadingConfig
from data_prep.cutting import LongestLine, parts_of
from data_prep.printed_lines import printed_rows
from data_prep.rows import stacked
from tests.unit.data_prep.raw_pdf import LONG_BLOCKS, Pdf, read, text, width

CONFIG = ReadingConfig()
ROW = CONFIG.pixel_multiple
LONG_LINE = "The ferry to the small island leaves at nine in the morning and again at half past noon"


def pixels(sample) -> np.ndarray:
    return np.asarray(sample.image())


def page_of(*runs: str) -> bytes:
    pdf = Pdf()
    pdf.page("".join(runs), "/MediaBox [0 0 900 300]")
    return pdf.bytes()


@given(
    words=some.lists(some.tuples(some.integers(1, 30), some.booleans()), min_size=2, max_size=40),
    characters=some.integers(5, 60),
    ems=some.floats(3, 40),
)
def test_parts_hold_every_word_once_and_are_too_long_only_where_one_word_is(words, characters, ems):
    letters, is_spaced = [count for count, _ in words], [space for _, space in words[:-1]]
    rights = np.cumsum(letters) * 0.5
    spans = [(right - 0.5 * count, right) for right, count in zip(rights.tolist(), letters, strict=True)]
    longest = LongestLine(characters, ems)
    parts = parts_of(letters, is_spaced, spans, 1.0, longest)
    assert [number for part in parts for number in part] == list(range(len(words)))
    for part in parts:
        of_part = sum(letters[number] for number in part) + sum(is_spaced[number] for number in part[:-1])
        if not longest.holds(of_part, spans[part[-1]][1] - spans[part[0]][0], 1.0):
            assert len(part) <= 2  # a word, and what a space that is no character may add


def test_a_long_line_is_rows_of_similar_length_cut_between_words():
    [block] = read(page_of(text(30, 150, LONG_LINE)), **LONG_BLOCKS).samples
    assert block.text == LONG_LINE
    assert block.height == 2 * ROW
    upper, lower = np.split(pixels(block), 2)
    ends = [np.flatnonzero((row < 128).any(axis=0))[-1] for row in (upper, lower)]
    assert abs(ends[0] - ends[1]) < 4 * ROW
    halves = [LONG_LINE[: LONG_LINE.index(" in the")], LONG_LINE[LONG_LINE.index("in the") :]]
    for row, words in zip((upper, lower), halves, strict=True):
        [alone] = read(page_of(text(30, 150, words))).samples
        shown = pixels(alone)
        wide = min(row.shape[1], shown.shape[1])
        assert np.corrcoef(row[:, :wide].ravel(), shown[:ROW, :wide].ravel())[0, 1] > 0.8


def test_a_line_that_is_longer_than_a_block_becomes_blocks_with_boxes_of_their_own():
    blocks = read(page_of(text(30, 150, LONG_LINE)), max_block_characters=40).samples
    assert " ".join(block.text for block in blocks) == LONG_LINE
    assert all(len(block.text) < 40 for block in blocks)
    edges = [(block.box[0], block.box[2]) for block in blocks]
    assert all(before < after for (_, before), (after, _) in pairwise(edges))
    assert all(block.trainable for block in blocks)


@pytest.mark.parametrize("size", [7, 9, 14, 24])
def test_type_of_any_size_is_drawn_in_one_size(size):
    words = "Winter garden"
    [small] = read(page_of(text(30, 150, words, size=size))).samples
    [usual] = read(page_of(text(30, 150, words, size=10))).samples
    assert (small.width, small.height) == (usual.width, usual.height) == (small.width, ROW)
    assert np.corrcoef(pixels(small).ravel(), pixels(usual).ravel())[0, 1] > 0.8


def test_a_visual_token_shows_about_one_character():
    [block] = read(page_of(text(30, 150, LONG_LINE[:47]))).samples
    assert 0.9 < 47 / (block.width / ROW) < 1.5


def test_a_word_without_a_gap_is_cut_between_its_characters():
    address = "https://example.org/" + "/".join(f"folder{number}" for number in range(12))
    blocks = read(page_of(text(30, 150, address))).samples
    assert "".join(block.text for block in blocks) == address
    assert all(block.width <= CONFIG.row_characters * ROW for block in blocks)


def test_lines_found_in_a_picture_are_the_rows_of_its_text_layer():
    lines = ["The ferry leaves at nine", "from the old pier", LONG_LINE[:70]]
    content = page_of(*(text(30, 150 - 14 * number, line) for number, line in enumerate(lines)))
    [block] = read(content, **LONG_BLOCKS).samples
    with pypdfium2.PdfDocument(content) as document:
        page = document[0].render(scale=2, grayscale=True).to_pil()
    crop = page.crop((50, 200, 60 + int(2 * width(lines[2])) + 10, 380))
    rows = printed_rows(np.asarray(crop), CONFIG)
    assert len(rows) == block.height // ROW == 4
    found, right = stacked(crop, rows, CONFIG), pixels(block)
    for one, other in zip(np.split(found, 4), np.split(right, 4), strict=True):
        ends = [np.flatnonzero((row < 128).any(axis=0))[-1] for row in (one, other)]
        assert ends[0] == pytest.approx(ends[1], rel=0.06)
        assert (one < 128).sum() == pytest.approx((other < 128).sum(), rel=0.15)


@pytest.mark.parametrize("picture", [np.full((40, 200), 255), np.zeros((40, 200)), np.eye(90) * 255])
def test_a_picture_without_lines_has_no_rows_or_some_and_never_fails(picture):
    rows = printed_rows(picture.astype(np.uint8), CONFIG)
    if rows:
        assert stacked(Image.fromarray(picture.astype(np.uint8)), rows, CONFIG).shape[0] == len(rows) * ROW
