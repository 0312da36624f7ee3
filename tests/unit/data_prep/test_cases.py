"""The small documents that reading must get right (cases/README.md)."""

from pathlib import Path

import pytest

from tests.unit.data_prep.raw_pdf import Read, read

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.name for path in CASES.iterdir() if path.suffix in (".pdf", ".jpg"))
WITHOUT_TEXT = ("control_characters.pdf", "replacement_characters.pdf")


def read_case(name: str, **settings) -> Read:
    path = CASES / name
    beside = path.with_suffix(".txt")
    text = beside.read_bytes() if beside.exists() else None
    return read(path.read_bytes(), name=name, beside=text, **settings)


def expected(name: str) -> list[str]:
    """The lines of the right text."""
    text = (CASES / name).with_suffix(".expected.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line]


def test_there_are_twenty_cases():
    assert len(NAMES) == 20 and all(expected(name) for name in set(NAMES) - set(WITHOUT_TEXT))


@pytest.mark.parametrize("unit", ["block", "page"])
@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_the_printed_one_in_its_order(name, unit):
    read, right = read_case(name, unit=unit).text.split(), " ".join(expected(name)).split()
    assert (sorted(read), sorted(right)) == (sorted(right), sorted(read))
    assert read == right or name == "form_values.pdf"


@pytest.mark.parametrize("name", NAMES)
def test_no_line_is_cut(name):
    """A line of the right text is one of running text: it is made of whole blocks."""
    texts = read_case(name, max_block_characters=40).texts
    for line in expected(name):
        own = [text for text in texts if text in line]
        assert sorted(" ".join(own).split()) == sorted(line.split())
    assert all(any(text in line for line in expected(name)) for text in texts)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(WITHOUT_TEXT) - {"letter_without_character.pdf"}))
def test_what_is_read_whole_is_trained_on(name):
    read = read_case(name, min_characters=1)
    assert read.trained == read.text


def test_a_block_with_a_letter_without_a_character_is_searched_and_not_trained_on():
    [block] = read_case("letter_without_character.pdf").samples
    assert (block.trainable, block.reason) == (False, "a letter in it has no known character")


@pytest.mark.parametrize("name", WITHOUT_TEXT)
def test_a_page_without_usable_text_says_so(name):
    read = read_case(name)
    [page] = read.samples
    assert (page.text, page.block, page.trainable) == ("", None, False)
    assert page.reason.startswith("no usable text: ")
    assert read.left_out > 0


@pytest.mark.parametrize("name", ["white_text.pdf", "invisible_text.pdf"])
def test_text_that_nobody_sees_is_counted(name):
    assert read_case(name).left_out > 10


def test_one_bad_page_is_named_and_costs_no_other():
    read = read_case("one_page_without_area.pdf")
    assert list(read.refused) == [2] and "page 2 has no area" in read.refused[2]
    assert [one.page for one in read.samples] == [1, 3]


def test_a_telephones_picture_is_one_page_with_the_text_beside_it():
    [page] = read_case("telephone.jpg").samples
    assert (page.page, page.text, page.trainable) == (1, "Bus to the airport", True)


def test_vertical_writing_is_cut_upright_in_its_columns():
    blocks = read_case("vertical_japanese.pdf").samples
    for block in blocks:
        left, top, right, bottom = block.box
        assert bottom - top > right - left
