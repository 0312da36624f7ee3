"""Passages in rows: what is cut where, and that a row shows it with type of one size."""

from itertools import pairwise

import numpy as np
import pypdfium2
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image, ImageOps

from data_prep.config import ReadingConfig
from data_prep.cutting import LongestLine, parts_of
from data_prep.printed_lines import drawn_in_rows
from tests.unit.data_prep.raw_pdf import LONG_BLOCKS, Pdf, read, text

CONFIG = ReadingConfig()
ROW = CONFIG.pixel_multiple
LONG_LINE = "The ferry to the small island leaves at nine in the morning and again at half past noon"


def pixels(sample) -> np.ndarray:
    return np.asarray(sample.image())


def page_of(*runs: str) -> bytes:
    pdf = Pdf()
    pdf.page("".join(runs), "/MediaBox [0 0 900 300]")
    return pdf.bytes()


def cut(words: list[tuple[int, bool]], longest: LongestLine) -> tuple[list[range], list[tuple[float, float]]]:
    """Parts of words of (letters, whether a space follows), half an em a letter, and their places."""
    letters, is_spaced = [count for count, _ in words], [space for _, space in words[:-1]]
    rights = np.cumsum([count + space for count, space in words]) * 0.5
    spans = [
        (right - 0.5 * (count + space), right - 0.5 * space)
        for right, (count, space) in zip(rights.tolist(), words, strict=True)
    ]
    return parts_of(letters, is_spaced, spans, 1.0, longest), spans


@given(
    words=some.lists(some.tuples(some.integers(1, 30), some.booleans()), min_size=1, max_size=40),
    characters=some.integers(5, 60),
    ems=some.floats(3, 40),
)
def test_parts_hold_every_word_once_and_are_too_long_only_where_one_word_is(words, characters, ems):
    longest = LongestLine(characters, ems)
    parts, spans = cut(words, longest)
    assert [number for part in parts for number in part] == list(range(len(words)))
    for part in parts:
        own = [words[number] for number in part]
        of_part = sum(count + space for count, space in own) - own[-1][1]
        assert len(part) == 1 or longest.holds(of_part, spans[part[-1]][1] - spans[part[0]][0], 1.0)


@given(count=some.integers(1, 400), characters=some.integers(20, 100))
def test_parts_are_few_and_of_similar_length(count, characters):
    parts, _ = cut([(4, True)] * count, LongestLine(characters, 1e9))
    fewest = int(np.ceil((5 * count - 1) / characters))
    assert len(parts) <= 2 * fewest
    lengths = list(map(len, parts))
    assert max(lengths) - min(lengths) <= 2


def test_a_hundred_thousand_words_are_cut_at_once_also_where_some_never_fit():
    words = [(4, True)] * 100_000
    words[::50] = [(90, True)] * 2_000
    parts, _ = cut(words, LongestLine(48, 30.0))
    assert sum(map(len, parts)) == 100_000
    assert sum(len(part) == 1 for part in parts) >= 2_000


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


@pytest.mark.parametrize("operators", ["", "1.5 Tc "])
def test_no_space_comes_into_a_long_word_that_is_spaced_out(operators):
    word = "internationalizationandlocalisations"
    made = read(page_of(f"BT {operators}/F1 12 Tf 30 150 Td ({word}) Tj ET"), **LONG_BLOCKS)
    assert made.texts == [word]


PICTURE_LINES = ["The ferry leaves at nine", "from the old pier", LONG_LINE[:70]]


def picture_of_lines(pitch: float = 14, margin: int = 5) -> Image.Image:
    """A crop of three printed lines, with so many pixels around the ink."""
    content = page_of(*(text(30, 150 - pitch * number, line) for number, line in enumerate(PICTURE_LINES)))
    with pypdfium2.PdfDocument(content) as document:
        page = document[0].render(scale=2, grayscale=True).to_pil()
    left, top, right, bottom = ImageOps.invert(page).getbbox()
    return page.crop((left - margin, top - margin, right + margin, bottom + margin))


@pytest.mark.parametrize("margin", [0, 5, 60])
def test_lines_found_in_a_picture_are_the_rows_of_its_text_layer(margin):
    content = page_of(*(text(30, 150 - 14 * number, line) for number, line in enumerate(PICTURE_LINES)))
    [block] = read(content, **LONG_BLOCKS).samples
    found, right = drawn_in_rows(np.asarray(picture_of_lines(margin=margin)), CONFIG), pixels(block)
    assert len(found) == len(right) == 4 * ROW
    for one, other in zip(np.split(found, 4), np.split(right, 4), strict=True):
        ends = [np.flatnonzero((row < 128).any(axis=0))[-1] for row in (one, other)]
        assert ends[0] == pytest.approx(ends[1], rel=0.06)
        assert (one < 128).sum() == pytest.approx((other < 128).sum(), rel=0.15)


def framed(picture: Image.Image) -> Image.Image:
    return ImageOps.expand(ImageOps.expand(picture, 6, 255), 2, 0)


@pytest.mark.parametrize(
    "picture",
    [
        framed(picture_of_lines()),
        picture_of_lines(pitch=10),
        Image.new("L", (200, 40), 255),
        Image.new("L", (200, 40), 0),
        Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 200), np.uint8)),
        Image.fromarray(np.tile(np.array([[0], [255]], np.uint8), (20_000, 16))),
    ],
    ids=["a frame", "lines that touch", "white", "black", "noise", "ten thousand bands"],
)
def test_what_is_no_lines_of_text_is_shown_as_it_is(picture):
    assert drawn_in_rows(np.asarray(picture), CONFIG) is None
