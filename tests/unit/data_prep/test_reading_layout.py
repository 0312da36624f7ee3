"""Words become lines, columns and blocks as they are printed, in whatever order a file draws them."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.data_prep.making import WORDS
from tests.unit.data_prep.raw_pdf import (
    HELVETICA,
    LONG_BLOCKS,
    BoxFont,
    Pdf,
    Read,
    at,
    pdf_of,
    read,
    text,
    width,
)

MILL = ("Our old mill stands by", "the river and grinds", "oats for the village.")
BRIDGE = ("New bridges were built", "of steel last summer", "for the night trains.")
BAKER = ("Every baker in town", "opens before six on", "market days only.")
OTHER = "Other words stay as they are."


def column(
    lines: Sequence[str], left: float, top: float = 170, pitch: float = 13, size: float = 10
) -> list[str]:
    return [text(left, top - number * pitch, line, size=size) for number, line in enumerate(lines)]


def drawn(*runs: str, seed: int | None = None, **page: object) -> Read:
    """Read a page of these runs, drawn in this order or in a chance one."""
    runs = list(runs) if seed is None else random.Random(seed).sample(runs, len(runs))
    return read(pdf_of("".join(runs), **page), **LONG_BLOCKS)


def flat(*groups: Sequence[str]) -> str:
    return " ".join(line for group in groups for line in group)


# Columns, tables, lists


def test_columns_of_one_text_object_are_parted_by_wide_kerns():
    pdf = Pdf()
    pdf.fonts += " /C << /Type /Font /Subtype /Type1 /BaseFont /Courier >>"
    rows = "".join(
        f"[({left}) -{(30 - len(left)) * 600} ({right})] TJ T*\n"
        for left, right in zip(MILL, BRIDGE, strict=True)
    )
    pdf.page(f"BT /C 10 Tf 13 TL 1 0 0 1 30 160 Tm\n{rows}ET")
    assert read(pdf.bytes(), **LONG_BLOCKS).texts == [flat(MILL), flat(BRIDGE)]


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_a_heading_and_a_foot_over_all_columns_stand_before_and_behind_them(seed):
    heading = text(30, 185, "The village paper of the third of May, read by everybody here.")
    foot = text(30, 110, "Printed in the old town by the widow Moreau and her daughters.")
    read = drawn(heading, *column(MILL, 30), *column(BRIDGE, 210), foot, seed=seed)
    assert read.texts[1:3] == [flat(MILL), flat(BRIDGE)]
    assert read.texts[0].startswith("The village") and read.texts[3].startswith("Printed in")


@pytest.mark.parametrize("seed", [None, 4, 5, 6])
def test_columns_of_different_pitches_are_read_one_after_the_other(seed):
    pitches = ((MILL, 20, 11), (BRIDGE, 150, 12.5), (BAKER, 280, 14))
    runs = [run for lines, left, pitch in pitches for run in column(lines, left, pitch=pitch)]
    assert drawn(*runs, seed=seed).texts == [flat(MILL), flat(BRIDGE), flat(BAKER)]


def test_a_narrow_gutter_of_little_more_than_an_em_parts_columns():
    lines = ["mmmmm mmmmm mmmmm"] * 4  # each as wide as its column
    read = drawn(*column(lines, 30, size=10), *column(lines, 30 + 17 * 8.33 + 2 + 12, size=10))
    assert read.texts == [flat(lines), flat(lines)]


@pytest.mark.parametrize("size", [10.95, 11.95])
@pytest.mark.parametrize("seed", [None, 1])
def test_the_gutter_of_a_paper_of_11_or_12_points_parts_its_columns(size, seed):
    """It is of 10 points, and lines reach from edge to edge."""
    lines = ("the grey boats of the town", "their long white sails up", "wait for a wind from west")
    wide = max(width(line, size=size) for line in lines)

    def full(line: str, left: float, row: int) -> str:
        space = (wide - width(line, size=size)) / line.count(" ")
        return f"BT /F1 {size} Tf {space:.3f} Tw {left} {170 - 13 * row} Td ({line}) Tj ET\n"

    runs = [full(line, left, row) for left in (20, 30 + wide) for row, line in enumerate(lines)]
    assert drawn(*runs, seed=seed).texts == [flat(lines), flat(lines)]


@pytest.mark.parametrize("seed", [None, 1])
def test_a_heading_between_columns_parts_those_above_it_from_those_below(seed):
    rain = ("Rain fell on the roofs", "of the quiet town all", "through the long night.")
    heading = "The harbour and its boats in the last winter of the war, by a reader"
    runs = [*column(MILL, 30, top=185), *column(BRIDGE, 210, top=185), text(30, 135, heading, size=11)]
    runs += [*column(BAKER, 30, top=110), *column(rain, 210, top=110)]
    assert drawn(*runs, seed=seed).texts == [flat(MILL), flat(BRIDGE), heading, flat(BAKER), flat(rain)]


@pytest.mark.parametrize("pitch", [13, 20, 40])
@pytest.mark.parametrize("seed", [None, 7])
def test_no_block_of_a_table_has_words_of_two_columns_unless_it_is_of_one_row(pitch, seed):
    rows = [("Kiel", "12 ships", "windy"), ("Bonn", "7 barges", "mild"), ("Trier", "3 boats", "dry")]
    runs = [
        text(30 + 120 * number, 170 - pitch * row, cell)
        for row, cells in enumerate(rows)
        for number, cell in enumerate(cells)
    ]
    read = drawn(*runs, seed=seed)
    whole = {" ".join(row[number] for row in rows) for number in range(3)}
    whole |= {" ".join(row[start:stop]) for row in rows for start in range(3) for stop in range(start + 1, 4)}
    assert set(read.texts) <= whole
    assert sorted(read.text.split()) == sorted(" ".join(flat(row) for row in rows).split())


def test_the_two_ends_of_a_header_stand_before_the_body():
    header = text(30, 185, "Chapter four", size=9) + text(310, 185, "217", size=9)
    body = [f"{line} {line} {line}" for line in BRIDGE]
    texts = drawn(*column(body, 30, top=160), header).texts
    assert texts[-1] == flat(body)
    assert " ".join(texts[:-1]) == "Chapter four 217"


@pytest.mark.parametrize("lower", [1, 6.5])
def test_columns_whose_lines_are_not_level_are_read_one_after_the_other(lower):
    read = drawn(*column(MILL, 30), *column(BRIDGE, 210, top=170 - lower), seed=4)
    assert read.texts == [flat(MILL), flat(BRIDGE)]


def test_backward_moves_in_one_text_are_put_right():
    assert (
        drawn("BT /F1 12 Tf 150 150 Td [(right part) 15000 (Left part)] TJ ET").text == "Left part right part"
    )
    assert drawn("BT /F1 12 Tf 100 150 Td [(world) 5200 (hello)] TJ ET").text == "hello world"


@pytest.mark.parametrize("seed", [None, 8, 9])
@pytest.mark.parametrize(("marker", "gap"), [("\\225", 14), ("3.", 20), ("\\(b\\)", 24), ("-", 10)])
def test_a_bullet_belongs_to_the_line_it_stands_before(marker, gap, seed):
    lines = ("Grind the oats", "Open the gate", "Ring the bell")
    tops = [170, 148, 126]
    runs = [text(40, top, marker) for top in tops]
    runs += [text(40 + gap, top, line) for top, line in zip(tops, lines, strict=True)]
    shown = {"\\225": "•", "\\(b\\)": "(b)"}.get(marker, marker)
    assert drawn(*runs, seed=seed).text == " ".join(f"{shown} {line}" for line in lines)


def test_a_justified_line_with_wide_gaps_stays_one_line():
    full = "The ferry to the island leaves at nine and at noon"
    gaps = "[(Nobody) -1300 (took) -1300 (the) -1300 (early) -1300 (boat,) -1300 (though)] TJ"
    wide = f"BT /F1 10 Tf 1 0 0 1 40 157 Tm {gaps} ET\n"
    [block] = drawn(text(40, 170, full, size=10), wide, text(40, 144, full, size=10)).texts
    assert block == f"{full} Nobody took the early boat, though {full}"


def test_a_drop_cap_stands_before_the_paragraph_it_begins():
    cap = text(30, 146, "O", size=36)
    runs = [
        text(60, 160, "nce upon a time there was", size=12),
        text(60, 146, "an old mill by the river", size=12),
    ]
    runs.append(text(30, 132, "that ground all the oats of the town.", size=12))
    for seed in (None, 1, 2):
        letters = drawn(cap, *runs, seed=seed).text.replace(" ", "")
        assert letters == "Onceuponatimetherewasanoldmillbytheriverthatgroundalltheoatsofthetown."


@pytest.mark.parametrize("seed", [None, 3])
def test_parts_of_a_line_are_read_from_left_to_right_in_whatever_order_they_are_drawn(seed):
    words = ("The long grey", "barge passes", "under the bridge")
    places = [40, 40 + width("The long grey "), 40 + width("The long grey barge passes ")]
    parts = [text(places[number], 150, words[number]) for number in (2, 0, 1)]
    read = drawn(*parts, text(40, 60, OTHER), seed=seed)
    assert read.texts == ["The long grey barge passes under the bridge", OTHER]


def test_a_word_of_which_each_letter_is_placed_alone_is_one_word():
    pdf = Pdf()
    pdf.fonts += " /C << /Type /Font /Subtype /Type1 /BaseFont /Courier >>"
    word = "lanterns shine"
    runs = [text(40 + 6 * place, 150, one, size=10, font="C") for place, one in enumerate(word) if one != " "]
    pdf.page("".join(random.Random(2).sample(runs, len(runs))))
    assert read(pdf.bytes()).texts == [word]


def test_words_without_spaces_between_them_are_parted_by_their_gaps():
    assert drawn("BT /F1 12 Tf 40 150 Td [(Wind) -280 (from) -280 (the) -280 (sea)] TJ ET").texts == [
        "Wind from the sea"
    ]


def test_letterspaced_words_are_not_cut_into_letters():
    [block] = drawn("BT /F1 12 Tf 40 150 Td 1 Tc (Winter market) Tj ET").texts
    assert block == "Winter market"


def test_paragraphs_apart_are_blocks_of_their_own():
    read = drawn(*column(MILL, 30, top=185), *column(BAKER, 30, top=120))
    assert read.texts == [flat(MILL), flat(BAKER)]


def test_two_lines_of_two_sizes_are_no_paragraph():
    assert drawn(text(40, 160, "Of rivers", size=20), *column(MILL, 40, top=140)).texts == [
        "Of rivers",
        flat(MILL),
    ]


@st.composite
def pages_of_columns(draw) -> tuple[list[list[str]], int]:
    """Lines of columns, each as wide as its column or nearly, and how the runs are shuffled."""
    count = draw(st.integers(1, 4))
    words = st.sampled_from(WORDS)
    lines = st.lists(words, min_size=2, max_size=2).map(" ".join)
    return draw(st.lists(st.lists(lines, min_size=2, max_size=5), min_size=count, max_size=count)), draw(
        st.integers(0, 99)
    )


@settings(deadline=None)
@given(pages_of_columns())
def test_a_page_of_any_columns_is_read_column_by_column_in_any_drawing_order(page):
    columns, seed = page
    runs = [run for place, lines in enumerate(columns) for run in column(lines, 20 + 130 * place)]
    assert drawn(*runs, seed=seed, size=(560, 200)).text == flat(*columns)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_drawing_order_of_runs_changes_no_block(seed, other):
    chance = random.Random(seed)
    runs = [
        text(30 + 180 * (place % 2), 175 - 14 * (place // 2), " ".join(chance.sample(WORDS, 3)), size=10)
        for place in range(12)
        if chance.random() < 0.8
    ]
    if runs:
        assert drawn(*runs, seed=seed).texts == drawn(*runs, seed=other).texts


# Directions

MIXED = f"{text(30, 170, MILL[0])}{text(30, 60, OTHER)}"


@pytest.mark.parametrize("c", [0.21, -0.21, 0.5, -0.5, 0.9])
def test_sheared_text_is_read_as_upright(c):
    read = drawn(at(f"1 0 {c} 1 60 150", MILL[0]), at(f"12 0 {12 * c} 12 60 136", MILL[1], size=1))
    assert (read.text, read.left_out) == (flat(MILL[:2]), 0)


@pytest.mark.parametrize("b", [0.01, -0.01, 0.02])
def test_text_of_a_scan_that_leans_a_little_is_read(b):
    lines = [at(f"1 {b} {-b} 1 40 {150 - 14 * number}", line) for number, line in enumerate(MILL)]
    assert drawn(*lines).text == flat(MILL)


@pytest.mark.parametrize(
    ("matrix", "shown"), [("2 0 0 1 40 150", "Stretched"), ("1 0 0 2 40 150", "Drawn out")]
)
def test_stretched_text_is_read(matrix, shown):
    assert drawn(at(matrix, f"{shown} words"), text(40, 60, OTHER)).texts == [f"{shown} words", OTHER]


@pytest.mark.parametrize("state", ["50 Tz", "200 Tz", "10 Tw", "6 Tc"])
def test_text_set_narrow_or_wide_is_read(state):
    line = f"q BT /F1 12 Tf {state} 40 150 Td (Words of the sea) Tj ET Q\n"
    assert drawn(line, text(40, 60, OTHER)).texts == ["Words of the sea", OTHER]


def test_text_flipped_twice_is_upright():
    flipped = "q 1 0 0 -1 0 200 cm BT /F1 12 Tf 1 0 0 -1 40 50 Tm (Seen from below) Tj ET Q\n"
    read = drawn(flipped, text(40, 60, OTHER))
    assert (read.texts, read.left_out) == (["Seen from below", OTHER], 0)


def test_text_of_a_flipped_form_is_upright():
    pdf = Pdf()
    form = pdf.form(
        "BT /F1 12 Tf 1 0 0 -1 40 50 Tm (Seen from below) Tj ET",
        "/BBox [0 0 400 200] /Matrix [1 0 0 -1 0 200]",
    )
    pdf.page("/X Do", resources=f"/XObject << /X {form} >>")
    assert read(pdf.bytes()).texts == ["Seen from below"]


@pytest.mark.parametrize(
    "upright",
    ["/F1 -12 Tf -1 0 0 -1 40 150 Tm", "/F1 -1 Tf -12 0 0 -12 40 150 Tm", "/F1 1 Tf 12 0 0 12 40 150 Tm"],
)
def test_a_negative_size_in_a_negative_matrix_is_upright(upright):
    [block] = drawn(f"BT {upright} (Winter garden) Tj ET").samples
    [right] = drawn(text(40, 150, "Winter garden")).samples
    assert (block.text, block.box, block.png) == (right.text, right.box, right.png)


def test_a_negative_size_alone_is_text_upside_down():
    [block] = drawn("BT /F1 -12 Tf 1 0 0 1 240 150 Tm (Winter garden) Tj ET").samples
    [turned] = drawn(at("-1 0 0 -1 240 150", "Winter garden")).samples
    assert block.text == turned.text == "Winter garden"
    assert block.png == turned.png


@pytest.mark.parametrize(
    "matrix", ["-1 0 0 1 200 150", "1 0 0 -1 40 150", "0 1 1 0 200 30", "0 -1 -1 0 200 180"]
)
def test_mirrored_text_is_left_out_and_counted(matrix):
    read = drawn(at(matrix, "poppy copper"), text(240, 60, OTHER))
    assert (read.texts, read.left_out) == ([OTHER], len("poppycopper"))


QUARTERS = {90: "0 1 -1 0 {x} {y}", 180: "-1 0 0 -1 {x} {y}", 270: "0 -1 1 0 {x} {y}"}
PLACES = {90: (201, 30), 180: (300, 99), 270: (201, 180)}


def pixels(sample) -> np.ndarray:
    return np.asarray(sample.image())


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_turned_text_beside_upright_text_is_read_and_its_crop_is_turned_upright(turn):
    x, y = PLACES[turn]
    turned = at(QUARTERS[turn].format(x=x, y=y), "Turned garden")
    read = drawn(text(20, 180, OTHER), turned)
    assert sorted(read.texts) == sorted([OTHER, "Turned garden"])
    block = next(one for one in read.samples if one.text == "Turned garden")
    [upright] = drawn(text(40, 150, "Turned garden")).samples
    assert block.trainable and block.height == upright.height
    assert block.width == pytest.approx(upright.width, abs=16)  # a token
    ink, right = pixels(block) < 128, pixels(upright) < 128
    assert ink.sum() == pytest.approx(right.sum(), rel=0.25)
    width = min(block.width, upright.width)
    shifts = (np.roll(ink, shift, axis=1)[:, :width].sum(axis=0) for shift in (-2, -1, 0, 1, 2))
    right = right[:, :width].sum(axis=0)
    assert max(np.corrcoef(shifted, right)[0, 1] for shifted in shifts) > 0.7
    left, top, right_edge, bottom = block.box
    assert (bottom - top > right_edge - left) == (turn != 180)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_turned_lines_below_each_other_are_a_paragraph(turn):
    steps = {90: (13, 0), 180: (0, 13), 270: (-13, 0)}[turn]
    x, y = PLACES[turn]
    lines = [
        at(QUARTERS[turn].format(x=x + steps[0] * number, y=y + steps[1] * number), line, size=10)
        for number, line in enumerate(MILL)
    ]
    assert drawn(*lines).texts == [flat(MILL)]


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_page_turned_by_any_quarter_has_the_same_blocks(turn):
    runs = "".join((*column(MILL, 30), *column(BRIDGE, 210), text(30, 60, OTHER)))
    straight, turned = (read(pdf_of(runs, f"/Rotate {one}"), **LONG_BLOCKS) for one in (0, turn))
    assert [one.text for one in turned.samples] == [one.text for one in straight.samples]
    for one, right in zip(turned.samples, straight.samples, strict=True):
        assert one.image().size == right.image().size
        assert (pixels(one) < 128).sum() == pytest.approx((pixels(right) < 128).sum(), rel=0.25)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_text_turned_on_a_page_that_is_displayed_turned_back_is_upright(turn):
    x, y = PLACES[turn]
    page = pdf_of(at(QUARTERS[turn].format(x=x, y=y), "Winter garden"), f"/Rotate {turn}")
    [block] = read(page).samples
    left, top, right, bottom = block.box
    assert block.text == "Winter garden" and right - left > bottom - top


@pytest.mark.parametrize("angle", [20, 45, -30, 60])
def test_a_slanted_mark_is_counted_and_leaves_the_body_as_it_is(angle):
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    mark = at(
        f"{cosine:.4f} {sine:.4f} {-sine:.4f} {cosine:.4f} 120 {40 if angle > 0 else 180}", "COPY", size=50
    )
    body = "".join((*column(MILL, 30), text(30, 60, OTHER)))
    read = drawn(f"q 0.9 g {mark} Q ", body)
    assert read.texts == [flat(MILL), OTHER]
    assert read.left_out == 4


def askew(angle: float, y: float, shown: str) -> str:
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return at(f"{cosine:.5f} {sine:.5f} {-sine:.5f} {cosine:.5f} 20 {y}", shown)


@pytest.mark.parametrize("angle", [0.6, -0.6, 1.0, -1.0])
def test_lines_a_little_askew_are_whole_and_their_boxes_follow(angle):
    lines = [
        "The quick brown fox jumps over the lazy dog and runs away",
        "Another line of the same paragraph stands",
    ]
    read = drawn(askew(angle, 100, lines[0]), askew(angle, 80, lines[1]))
    assert sorted(" ".join(read.texts).split()) == sorted(" ".join(lines).split())
    assert read.left_out == 0


@pytest.mark.parametrize("angle", [2.0, -2.9])
def test_lines_askew_beyond_that_are_counted_and_not_read(angle):
    read = drawn(askew(angle, 100, "The quick brown fox jumps over the lazy dog"))
    assert (read.text, read.left_out > 30) == ("", True)


# Sizes and marks


def type3(pdf: Pdf, scale: float, *, matrix: str, tight: bool = True, is_down: bool | None = None) -> None:
    """Add the font /T: boxes for a to z; `scale` units an em; upright in upright text unless told."""
    width, height = 0.5 * scale, 0.7 * scale
    glyph = f"{width} 0 0 0 {0.8 * width} {height} d1 0 0 {0.8 * width} {height} re f"
    if matrix.split()[3].startswith("-") if is_down is None else is_down:
        glyph = f"{width} 0 0 {-height} {0.8 * width} 0 d1 0 {-height} {0.8 * width} {height} re f"
    procedure = pdf.stream(glyph)
    names = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    procedures = " ".join(f"/{name} {procedure}" for name in names)
    box = f"[0 0 {width} {height}]" if tight else "[0 0 0 0]"
    encoding = f"<< /Type /Encoding /Differences [97 {' '.join('/' + name for name in names)}] >>"
    font = pdf.add(
        f"<< /Type /Font /Subtype /Type3 /FontBBox {box} /FontMatrix [{matrix}] /FirstChar 97 /LastChar 122 "
        f"/Widths [{' '.join([str(width)] * 26)}] /CharProcs << {procedures} >> /Encoding {encoding} >>"
    )
    pdf.fonts += f" /T {font}"


@pytest.mark.parametrize("tight", [True, False])
@pytest.mark.parametrize(
    ("scale", "matrix", "size"),
    [
        (1000, "0.001 0 0 0.001 0 0", 12),
        (100, "0.01 0 0 0.01 0 0", 12),
        (1, "1 0 0 1 0 0", 12),
        (1000, "0.001 0 0 -0.001 0 0", 12),
        (12, "1 0 0 1 0 0", 1),
        (50, "0.24 0 0 0.24 0 0", 1),  # as dvips: in dots of its printer
        (50, "0.24 0 0 -0.24 0 0", 1),
    ],
)
def test_the_size_of_a_type_3_font_is_that_of_its_glyphs(scale, matrix, size, tight):
    pdf = Pdf()
    type3(pdf, scale, matrix=matrix, tight=tight)
    pdf.page(
        at("1 0 0 1 40 150", "winter", font="T", size=size)
        + at("1 0 0 1 40 60", "garden", font="T", size=size)
    )
    read_ = read(pdf.bytes())
    assert read_.texts == ["winter", "garden"]
    for block in read_.samples:
        _, top, _, bottom = block.box
        assert 0.9 * 16 <= bottom - top <= 1.6 * 16  # 12 points are 16 pixels
        ink = np.flatnonzero((pixels(block) < 128).any(axis=1))
        assert 10 <= len(ink) <= 13, "the crop shows the glyphs from foot to head"


def test_a_flipped_type_3_font_in_a_flipped_text_is_upright():
    pdf = Pdf()
    type3(pdf, 1000, matrix="0.001 0 0 -0.001 0 0", is_down=False)
    pdf.page(at("1 0 0 -1 40 150", "winter", font="T"))
    [block] = read(pdf.bytes()).samples
    assert block.text == "winter" and 10 <= (pixels(block) < 128).any(axis=1).sum() <= 13


def test_the_size_of_a_type_3_font_may_be_in_the_text_matrix():
    pdf = Pdf()
    type3(pdf, 1000, matrix="0.001 0 0 0.001 0 0")
    pdf.page(at("12 0 0 12 40 150", "winter", font="T", size=1))
    [block] = read(pdf.bytes()).samples
    assert block.text == "winter" and 14 <= block.box[3] - block.box[1] <= 26


@pytest.mark.parametrize(("rise", "size"), [(5, 7), (4, 6), (-2.5, 7), (-1.5, 8)])
@pytest.mark.parametrize("how", ["Ts", "Tm"])
def test_a_raised_or_lowered_mark_is_in_its_line(rise, size, how):
    if how == "Ts":
        line = f"BT /F1 12 Tf 40 150 Td (The level of CO) Tj /F1 {size} Tf {rise} Ts (2) Tj "
        line += "/F1 12 Tf 0 Ts ( rose in the last winter) Tj ET\n"
    else:
        end = 40 + width("The level of CO")
        line = text(40, 150, "The level of CO") + text(end, 150 + rise, "2", size=size)
        line += text(end + width("2", size=size) + 3.3, 150, "rose in the last winter")
    [block, other] = drawn(line, text(40, 60, OTHER)).samples
    assert (block.text, other.text) == ("The level of CO2 rose in the last winter", OTHER)


@pytest.mark.parametrize(("pitch", "rise", "size"), [(10, 5, 6), (10.5, 5.2, 7), (9.5, 4.5, 6)])
def test_a_mark_in_closely_set_lines_is_in_its_own(pitch, rise, size):
    lines = "BT /F1 10 Tf 40 170 Td (First line of the note ends here and) Tj "
    lines += (
        f"0 -{pitch} Td (second note) Tj {rise} Ts /F1 {size} Tf (8) Tj 0 Ts /F1 10 Tf ( begins here and) Tj "
    )
    lines += f"0 -{pitch} Td (third line of it closes the page.) Tj ET"
    assert drawn(lines).text == (
        "First line of the note ends here and second note8 begins here and third line of it closes the page."
    )


def test_a_lowered_mark_and_a_raised_one_behind_it_are_in_their_line():
    line = "BT /F1 12 Tf 40 150 Td (of SO) Tj /F1 8 Tf -3 Ts (4) Tj 5 Ts (2-) Tj "
    line += "/F1 12 Tf 0 Ts ( ions in H) Tj /F1 8 Tf -3 Ts (2) Tj /F1 12 Tf 0 Ts (O here) Tj ET\n"
    assert drawn(line, text(40, 60, OTHER)).texts == ["of SO42- ions in H2O here", OTHER]


@pytest.mark.parametrize(
    ("parts", "right"),
    [
        ([("The age of ", 12, 0), ("14", 8, 5), ("C is known", 12, 0)], "The age of 14C is known"),
        ([("a value e", 12, 0), ("x", 8, 5), ("2", 6, 8.5), (" grows", 12, 0)], "a value ex2 grows"),
        ([("On the 1", 12, 0), ("st", 8, 4), (" and 22", 12, 0), ("nd", 8, 4)], "On the 1st and 22nd"),
        (
            [("Old ", 12, 0), ("1", 7, 5), ("School and ", 12, 0), ("2", 7, 5), ("College", 12, 0)],
            "Old 1School and 2College",
        ),
    ],
)
def test_marks_of_many_kinds_are_in_their_line(parts, right):
    shown = "".join(f"/F1 {size} Tf {rise} Ts ({part}) Tj " for part, size, rise in parts)
    assert drawn(f"BT 40 150 Td {shown} ET ", text(40, 60, OTHER)).texts == [right, OTHER]


def test_marks_in_two_lines_stay_in_theirs():
    lines = "BT /F1 10 Tf 40 150 Td (First note) Tj 4 Ts /F1 6 Tf (7) Tj 0 Ts /F1 10 Tf ( ends and) Tj "
    lines += "0 -12 Td (second note) Tj 4 Ts /F1 6 Tf (8) Tj 0 Ts /F1 10 Tf ( begins here.) Tj ET"
    assert drawn(lines).texts == ["First note7 ends and second note8 begins here."]


def test_a_fraction_is_in_its_line():
    line = text(40, 150, "Take") + text(70, 155, "3", size=7) + text(70, 146, "4", size=7)
    line += "69 152.8 m 75 152.8 l S " + text(78, 150, "of the flour and stir it")
    read = drawn(line, text(40, 60, OTHER))
    assert read.texts == ["Take 3 4 of the flour and stir it", OTHER]


def test_a_footnotes_number_is_in_the_notes_first_line():
    note = text(40, 153, "12", size=5) + text(46.5, 150, "See the register of ships,", size=8)
    note += text(40, 140, "kept in the harbour office.", size=8)
    texts = drawn(text(40, 180, OTHER), note).texts
    assert (
        " ".join(texts).replace("12 See", "12See")
        == f"{OTHER} 12See the register of ships, kept in the harbour office."
    )
    assert not {"12", "1", "2"} & set(texts)


def test_a_name_set_on_three_levels_is_one_word():
    line = "BT /F1 12 Tf 40 150 Td (Set in T) Tj -3 Ts [170 (E) 60] TJ 0 Ts (X by hand.) Tj ET"
    assert drawn(line, text(40, 60, OTHER)).texts == ["Set in TEX by hand.", OTHER]


# Letters nobody knows

KNOWN = "abcdefghijklmnopqrstuvwxyz "


def with_boxes(*lines: Sequence[str | None], top: float = 170, pitch: float = 40, **page: object) -> bytes:
    """A page of lines, each far from the next one; of a letter None the file does not tell what it is."""
    pdf, font = Pdf(), BoxFont.of([*KNOWN, None])
    font.add_to(pdf, "B")
    pdf.page(
        "".join(text(30, top - pitch * row, font.shown(line), font="B") for row, line in enumerate(lines)),
        **page,
    )
    return pdf.bytes()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ([None, *"opula"], "opula"),
        ([*"copul", None], "copul"),
        ([*"co", None, *"ula approach"], "coula approach"),
        ([*"many words ", None, *" here"], "many words here"),
    ],
)
def test_a_block_with_a_letter_nobody_knows_is_searched_and_not_trained_on(line, shown):
    bad, good = read(with_boxes(line, "the good line")).samples
    assert (bad.text, bad.reason) == (shown, "a letter in it has no known character")
    assert (good.text, good.trainable) == ("the good line", True)


# Of the code of a hyphen at a line's end (45 and 173) pdfium does not tell whether the font named it.
@pytest.mark.parametrize(
    "code", [1, 2, 9, 10, 13, 28, 31, 33, 48, 65, 97, 120, 127, 0x85, 0xA0, 0xC5, 0x3000]
)
def test_a_letter_nobody_knows_is_not_taken_for_the_character_of_its_code(code):
    """In a font that names the others, inside a word and as a word of its own."""
    pdf = Pdf()
    others = [chr(0x4E00 + number) for number in range(code - 1)]
    font = BoxFont.of([*others, None, *KNOWN])
    font.add_to(pdf, "B")
    lines = ([*"sh", None, *"ips of the town"], [*"all ", None, *" ships of it"], [*"ships", None])
    pdf.page(
        "".join(text(30, 170 - 40 * row, font.shown(line), font="B") for row, line in enumerate(lines))
        + text(30, 30, "Good words of another font.")
    )
    made = read(pdf.bytes())
    assert made.texts == ["ships of the town", "all ships of it", "ships", "Good words of another font."]
    assert made.trained == "Good words of another font."


def test_a_line_of_letters_nobody_knows_is_left_out_and_counted():
    unknown = [None] * 5
    made = read(with_boxes("the first line of the page", unknown, "the other line of the page"))
    assert made.texts == ["the first line of the page", "the other line of the page"]
    assert made.left_out == 5


def test_a_page_of_letters_nobody_knows_has_no_text_and_says_why():
    [page] = read(with_boxes([None] * 8, [None] * 9)).samples
    assert page.text == "" and page.reason.startswith("no usable text")


# Drawn twice


@pytest.mark.parametrize(
    "shifts", [((0.3, 0),), ((0.3, 0.3),), ((0, 0),), ((0.2, 0), (0.4, 0)), ((0, 0.4), (0.4, 0), (0.4, 0.4))]
)
def test_a_text_drawn_again_with_a_small_shift_is_read_once(shifts):
    runs = [text(40 + x, 150 + y, "WINTER MARKET IN TOWN") for x, y in ((0, 0), *shifts)]
    assert drawn(*runs, text(40, 60, OTHER)).texts == ["WINTER MARKET IN TOWN", OTHER]


@pytest.mark.parametrize("shift", [0.5, 1, 2])
def test_a_paragraph_drawn_again_whole_is_read_once(shift):
    again = [text(40 + shift, 170 - 13 * row, line, size=10) for row, line in enumerate(MILL)]
    assert drawn(*column(MILL, 40), *again).texts == [flat(MILL)]


def test_a_text_drawn_again_in_bold_is_read_once():
    pdf = Pdf()
    pdf.fonts += f" /H {HELVETICA.replace('Helvetica', 'Helvetica-Bold')}"
    pdf.page("".join(text(40, 150, "WINTER MARKET IN TOWN", font=font) for font in ("F1", "H")))
    assert read(pdf.bytes()).texts == ["WINTER MARKET IN TOWN"]


def test_a_shadow_below_a_text_is_read_once():
    shadow = f"0.7 g {text(41, 149, 'WINTER MARKET', size=18)} 0 g "
    assert drawn(shadow, text(40, 150, "WINTER MARKET", size=18)).texts == ["WINTER MARKET"]


def test_a_text_of_which_each_letter_is_drawn_twice_is_read_once():
    pdf = Pdf()
    pdf.fonts += " /C << /Type /Font /Subtype /Type1 /BaseFont /Courier >>"
    word = "ANNUAL BALL"
    runs = [
        text(40 + 7.2 * place + shift, 150, one, font="C")
        for place, one in enumerate(word)
        if one != " "
        for shift in (0, 0.3)
    ]
    pdf.page("".join(runs))
    assert read(pdf.bytes()).texts == [word]


def test_a_text_drawn_again_in_other_pieces_is_read_once():
    word = "WINTERMARKET"
    pieces = text(40.3, 150, word[:4]) + text(40.3 + width(word[:4]), 150, word[4:])
    assert drawn(text(40, 150, word), pieces, text(40, 60, OTHER)).texts == [word, OTHER]


@pytest.mark.parametrize(
    "printed",
    [
        "no no no",
        "all will fall still",
        "Chapter one ........... 12",
        "ha ha ha",
        "iiii llll",
        "1111 11",
        "--- ---",
    ],
)
def test_what_is_printed_twice_is_read_twice(printed):
    for size in (6, 12, 24):
        assert drawn(text(20, 150, printed, size=size)).text == printed


def test_equal_lines_below_each_other_are_read_twice():
    lines = ("the same words", "the same words", "the same words")
    assert drawn(*column(lines, 40)).text == flat(lines)


def test_a_text_drawn_again_a_letter_further_is_no_repeat():
    assert drawn(text(40, 150, "ma"), text(70, 150, "ma")).text.replace(" ", "") == "mama"


def test_a_font_that_no_file_holds_is_drawn_as_helvetica():
    pdf = Pdf()
    pdf.fonts += f" /X {HELVETICA.replace('Helvetica', 'NoSuchTypeface')}"
    pdf.page(text(40, 150, "Drawn by a substitute", font="X"))
    [block] = read(pdf.bytes()).samples
    assert (block.text, block.trainable) == ("Drawn by a substitute", True)
