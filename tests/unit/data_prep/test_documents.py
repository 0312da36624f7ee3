"""A document is read into crops with exactly their own text, however the page is turned or cut."""

import io
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from fpdf import FPDF
from PIL import Image

from data_prep.config import ReadingConfig
from data_prep.documents import read_document
from data_prep.frame import Frame
from data_prep.lines import Line
from data_prep.parts import fit_to_grid
from tests.unit.data_prep.making import column, prose, write_pdf
from tests.unit.data_prep.raw_pdf import LONG_BLOCKS

FIRST = ("The quick river bends around", "the old stone market and the", "bridge of iron.")
SECOND = ("Winter letters arrive by cart", "when the garden gate is shut.")
BESIDE = ("A second column stands here", "with other words in it, and", "it never mixes.")
TWO_PARAGRAPHS = column(*FIRST) + column(*SECOND, top=60)
TWO_COLUMNS = TWO_PARAGRAPHS + column(*BESIDE, left=110)


def units_of(path, **settings):
    beside = path.with_suffix(".txt")
    text = beside.read_bytes() if beside.exists() else None
    return tuple(read_document(path.name, path.read_bytes(), text, ReadingConfig(**settings)))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize(
    ("page", "paragraphs"),
    [(TWO_PARAGRAPHS, (FIRST, SECOND)), (TWO_COLUMNS, (FIRST, SECOND, BESIDE))],
    ids=["paragraphs", "columns"],
)
def test_a_crop_shows_its_own_text_and_nothing_else(tmp_path, page, paragraphs):
    """A page that holds only a block's lines, at their places, gives the same image as the whole page."""
    units = units_of(write_pdf(tmp_path / "all.pdf", [page]), **LONG_BLOCKS)
    assert [unit.text for unit in units] == [" ".join(lines) for lines in paragraphs]
    assert [(unit.page, unit.block) for unit in units] == [(1, block) for block in range(len(paragraphs))]
    for number, unit in enumerate(units_of(tmp_path / "all.pdf", max_block_characters=60)):
        own = [line for line in page if line[2] in unit.text]
        assert " ".join(text for _, _, text in own) == unit.text
        (alone,) = units_of(write_pdf(tmp_path / f"{number}.pdf", [own]), max_block_characters=60)
        assert alone.png == unit.png
        assert pixels(unit.png).min() < 100


@pytest.mark.parametrize(
    ("longest", "texts"),
    [
        (58, [" ".join(FIRST[:2]), FIRST[2], *SECOND, " ".join(BESIDE[:2]), BESIDE[2]]),
        (5, " ".join([*FIRST, *SECOND, *BESIDE]).split()),  # a word that is longer stays whole
    ],
)
def test_a_long_paragraph_is_cut_between_lines_and_a_long_line_between_words(tmp_path, longest, texts):
    units = units_of(write_pdf(tmp_path / "a.pdf", [TWO_COLUMNS]), max_block_characters=longest)
    assert [unit.text for unit in units] == texts


def test_crops_fill_the_grid_of_the_backbone(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", [TWO_COLUMNS])
    for unit in units_of(path, pixel_multiple=28, max_pixels=28 * 28 * 20):
        assert unit.width % 28 == 0 == unit.height % 28 and unit.width * unit.height <= 28 * 28 * 20
        image = Image.open(io.BytesIO(unit.png))
        assert (image.size, image.mode, image.format) == ((unit.width, unit.height), "L", "PNG")


@pytest.mark.parametrize("most", [320 * 96, 1_000_000])
@pytest.mark.parametrize(
    "size",
    [(640, 480), (5000, 20), (20, 5000), (60_000, 1), (17, 16), (1, 1), (3500, 8), (8, 3500), (330, 93)],
)
def test_an_image_of_any_shape_is_shrunk_to_what_the_backbone_takes_and_keeps_its_ink(size, most):
    fitted = fit_to_grid(np.zeros(size[::-1], np.uint8), multiple=16, max_pixels=most)
    height, width = fitted.shape
    assert width % 16 == 0 == height % 16
    assert width * height <= most
    assert max(width, height) <= 190 * min(width, height)
    ink = fitted < 128
    assert max(ink.sum(axis=0)) >= min(size[1] * width / size[0] * 0.7, height * 0.7, size[1])


def test_an_image_that_fits_is_padded_and_a_larger_one_keeps_its_shape():
    assert fit_to_grid(np.zeros((90, 310), np.uint8), multiple=16, max_pixels=320 * 96).shape == (96, 320)
    shrunk = fit_to_grid(np.zeros((93, 330), np.uint8), multiple=16, max_pixels=320 * 96)
    assert shrunk.shape == (96, 320)
    assert ((shrunk < 128).any(axis=1).sum(), (shrunk < 128).any(axis=0).sum()) == (90, 320)


@pytest.mark.parametrize("baseline", [0.0, 50.0, 100.0])
def test_type_of_no_size_still_gets_a_pixel(baseline):
    line = Line(text="a", left=10, right=10, baseline=baseline, size=0.0, is_bold=False)
    left, top, right, bottom = Frame.of(0, False, np.zeros((100, 100), np.uint8), (100.0, 100.0), 1.0).box(
        [line]
    )
    assert 0 <= left < right <= 100
    assert 0 <= top < bottom <= 100


def test_a_bold_short_paragraph_is_a_heading(tmp_path):
    heading, *others = units_of(write_pdf(tmp_path / "a.pdf", [TWO_PARAGRAPHS], heading="Of rivers"))
    assert (heading.text, heading.is_heading) == ("Of rivers", True)
    assert not any(unit.is_heading for unit in others)


def test_the_unit_page_and_a_page_without_text_are_one_sample_a_page(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", [TWO_PARAGRAPHS, []])
    units = units_of(path, unit="page")
    assert [(unit.page, unit.block) for unit in units] == [(1, None), (2, None)]
    assert [unit.text for unit in units] == [" ".join(FIRST + SECOND), ""]
    blocks = units_of(path, **LONG_BLOCKS)
    assert [(unit.page, unit.block) for unit in blocks] == [(1, 0), (1, 1), (2, None)]
    assert blocks[2].text == ""


def test_a_page_that_is_stored_small_is_read_as_its_blocks_are(tmp_path):
    """What the picture shows is looked at in full size: short words have little contrast in a small one."""
    path = write_pdf(tmp_path / "a.pdf", [prose(7, lines=24) + column("a I of it - . to", top=250)])
    (page,) = units_of(path, unit="page", max_pixels=160 * 192)
    assert page.text == " ".join(unit.text for unit in units_of(path))
    assert (page.width * page.height, page.box) == (pytest.approx(160 * 192, rel=0.2), (0, 0, 794, 1123))


def changed_page(path: Path, change: Callable[[pypdfium2.PdfPage], None]) -> Path:
    """Change the page of a PDF, and save it beside it."""
    document = pypdfium2.PdfDocument(path)
    change(document[0])
    document.save(str(path.with_name("changed.pdf")))
    return path.with_name("changed.pdf")


def ink(unit) -> int:
    return int((pixels(unit.png) < 128).sum())


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turned_page_is_read_as_it_is_displayed(tmp_path, turn):
    """A text that was written turned, on a page that is displayed turned back; across it, its crops are
    turned."""
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", "", 11)
    with pdf.rotation(turn, 100, 100):
        for left, top, text in TWO_PARAGRAPHS:
            pdf.text(left + 60, top + 60, text)
    pdf.output(str(tmp_path / "turned.pdf"))
    turned = changed_page(tmp_path / "turned.pdf", lambda page: page.set_rotation(turn))
    units = units_of(turned, **LONG_BLOCKS)
    assert [unit.text for unit in units] == [" ".join(FIRST), " ".join(SECOND)]
    straight = write_pdf(tmp_path / "a.pdf", [TWO_PARAGRAPHS])
    assert ink(units[0]) == pytest.approx(ink(units_of(straight, **LONG_BLOCKS)[0]), rel=0.2)
    across = units_of(changed_page(straight, lambda page: page.set_rotation(turn)), **LONG_BLOCKS)
    assert [unit.text for unit in across] == [unit.text for unit in units]
    for unit, upright in zip(across, units_of(straight, **LONG_BLOCKS), strict=True):
        assert unit.image().size == upright.image().size
        assert ink(unit) == pytest.approx(ink(upright), rel=0.2)


def test_only_what_the_crop_box_shows_is_read(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", [TWO_COLUMNS])
    whole = units_of(path, **LONG_BLOCKS)
    left_column = changed_page(path, lambda page: page.set_cropbox(40, 640, 290, 800))
    cut = units_of(left_column, **LONG_BLOCKS)
    assert [unit.text for unit in cut] == [" ".join(FIRST), " ".join(SECOND)]
    for before, after in zip(whole, cut, strict=False):
        assert ink(before) == pytest.approx(ink(after), rel=0.2)


def test_a_printed_hyphen_at_a_lines_end_stays(tmp_path):
    (unit,) = units_of(write_pdf(tmp_path / "a.pdf", [column("A well-", "known river.")]))
    assert unit.text == "A well- known river."


def test_an_image_takes_the_text_beside_it(tmp_path, scan):
    scan.save(tmp_path / "page.png")
    decomposed = unicodedata.normalize("NFD", "Tiếng  Việt\nở đây")
    (tmp_path / "page.txt").write_text("\ufeff" + decomposed, encoding="utf-8")
    (unit,) = units_of(tmp_path / "page.png")
    assert unit.text == "Tiếng Việt ở đây"
    assert unicodedata.is_normalized("NFC", unit.text)
    assert pixels(unit.png)[15, 30] == 0
    scan.save(tmp_path / "other.jpg")
    assert [unit.text for unit in units_of(tmp_path / "other.jpg")] == [""]


def test_every_frame_of_a_tiff_is_a_page(tmp_path, scan):
    scan.save(tmp_path / "pages.tiff", save_all=True, append_images=[scan.rotate(180), scan])
    units = units_of(tmp_path / "pages.tiff")
    assert [unit.page for unit in units] == [1, 2, 3]
    assert units[0].png == units[2].png != units[1].png


def transparent(scan: Image.Image) -> Image.Image:
    alpha = Image.fromarray(255 - np.asarray(scan))
    return Image.merge("RGBA", [*(Image.new("L", scan.size, 0),) * 3, alpha])


def of_16_bits(scan: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(scan).astype(np.uint16) // 2 * 257)


@pytest.mark.parametrize(
    ("made", "suffix", "paper"),
    [(transparent, "png", 255), (of_16_bits, "png", 127), (of_16_bits, "tiff", 127)],
)
def test_transparent_paper_is_white_and_16_bits_keep_their_greys(tmp_path, scan, made, suffix, paper):
    made(scan).save(tmp_path / f"a.{suffix}")
    (unit,) = units_of(tmp_path / f"a.{suffix}")
    assert (pixels(unit.png)[15, 30], pixels(unit.png)[100, 150]) == (0, paper)
