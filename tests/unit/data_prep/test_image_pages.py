"""A page image is read as a viewer shows it: one page a picture, dark on light, the right way up."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from data_prep.config import ReadingConfig
from data_prep.documents import ALL_PAGES
from data_prep.errors import UnreadableDocument
from data_prep.image_pages import count_image_pages, read_image_pages
from data_prep.parts import Part
from data_prep.samples import PageNote
from tests.unit.data_prep.making import tiff_of
from tests.unit.data_prep.pictures import bar, chunk, frame, ink_as_alpha, png, tiff

PAGE = Image.fromarray(bar())
SMALL = np.asarray(PAGE.resize((100, 60)))
TURNED = PAGE.rotate(180)


def picture_of(page: Part) -> Image.Image:
    return Image.fromarray(page.pixels)


def pages_of(content: bytes, beside: bytes | None = b"the text", **settings) -> list[Part | PageNote]:
    config = ReadingConfig(**settings)
    pages = list(read_image_pages(content, beside, config, ALL_PAGES))
    assert [page.page for page in pages] == list(range(1, count_image_pages(content, config) + 1))
    return pages


def saved(image: Image.Image, kind: str, **options) -> bytes:
    image.save(buffer := io.BytesIO(), format=kind, **options)
    return buffer.getvalue()


def shows_the_bar(image: Image.Image) -> bool:
    """Whether it is black on white but for what a lossy encoder adds."""
    assert image.mode == "L"
    return image.size == PAGE.size and np.abs(np.asarray(image, int) - bar()).mean() < 2


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def with_a_thumbnail() -> bytes:
    """A JPEG whose EXIF holds a smaller one."""
    small = saved(PAGE.resize((100, 60)).rotate(180), "JPEG")
    first = struct.pack("<2sHIHI", b"II", 42, 8, 0, 14)
    entries = struct.pack("<HHHIIHHIII", 2, 513, 4, 1, 44, 514, 4, 1, len(small), 0)
    return saved(PAGE, "JPEG", exif=b"Exif\0\0" + first + entries + small)


def with_smaller_ones_below() -> bytes:
    """A TIFF whose picture names a smaller one (SubIFDs) beside the chain."""
    content = tiff(frame(SMALL), frame(bar()))
    (below,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, below)
    (following,) = struct.unpack_from("<I", content, below + 2 + 12 * entries)
    return content[:4] + struct.pack("<I", following) + content[8:]


SEVERAL = {"save_all": True, "append_images": [TURNED, PAGE.resize((100, 60))]}
ANIMATED = {"save_all": True, "append_images": [TURNED, PAGE.rotate(90)]}
ONE_PAGE = {
    "a phone's JPEG with two more": saved(PAGE, "MPO", **SEVERAL),
    "one with a second that is not there": saved(PAGE, "MPO", **SEVERAL)[: len(saved(PAGE, "JPEG")) + 200],
    "a JPEG with a thumbnail": with_a_thumbnail(),
    "an animated PNG": saved(PAGE, "PNG", **ANIMATED),
    "one whose still picture is not in the film": saved(PAGE, "PNG", default_image=True, **ANIMATED),
    "one that ends in its second frame": saved(PAGE, "PNG", **ANIMATED)[:-150],
    "a TIFF with a smaller copy": tiff(frame(bar()), frame(SMALL, t254=1)),
    "one of pages": tiff(frame(bar(), t254=2), frame(SMALL, t254=3), frame(SMALL[::2, ::2], t254=1)),
    "one of old": tiff(frame(bar(), t255=1), frame(SMALL, t255=2)),
    "one with the thumbnail ahead": tiff(frame(SMALL, t254=1), frame(bar())),
    "one with a mask": tiff(frame(bar()), frame(bar(), 4, t254=4)),
    "one with a mask of greys": tiff(frame(bar()), frame(bar(), t254=4)),
    "one with a mask that only its pixels say": tiff(frame(bar()), frame(bar(), 4)),
    "one of Motorola's": tiff(frame(bar()), frame(SMALL, t254=1), order=">"),
    "a BigTIFF": tiff(frame(bar()), frame(SMALL, t254=1), frame(bar(), 4, t254=5), big=True),
    "one with smaller copies below": with_smaller_ones_below(),
    "one that is a copy only": tiff(frame(bar(), t254=1)),
}


@pytest.mark.parametrize("content", ONE_PAGE.values(), ids=ONE_PAGE)
def test_one_picture_is_one_page_whatever_else_its_file_holds_of_it(content):
    [page] = pages_of(content)
    assert (page.page, page.text) == (1, "the text")
    assert shows_the_bar(picture_of(page))


@pytest.mark.parametrize("big", [False, True])
def test_pages_of_a_tiff_stay_pages_and_their_copies_are_not_counted(big):
    content = tiff(frame(bar()), frame(SMALL, t254=1), frame(bar()[::-1]), frame(SMALL), big=big)
    pages = pages_of(content)
    assert [(page.page, page.text) for page in pages] == [(1, ""), (2, ""), (3, "")]
    assert np.array_equal(pages[1].pixels, bar()[::-1])
    assert np.array_equal(pages[2].pixels, SMALL)


@pytest.mark.parametrize("back_to", [0, 1, 2])
def test_a_chain_of_pages_that_ends_in_a_circle_ends(back_to):
    assert [page.page for page in pages_of(tiff_of(3, back_to=back_to))] == [1, 2, 3]


def in_lab(**options) -> bytes:
    colours = [Image.new("L", PAGE.size, 0)] * 2
    return saved(Image.merge("LAB", [PAGE, *colours]), "TIFF", **options)


def with_few_bits() -> bytes:
    """A TIFF of 12 bits a pixel, two of which fill three bytes."""
    pairs = bar(0, 4095, "u2").astype(int).reshape(120, 100, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    packed = np.dstack([first >> 4, (first & 15) << 4 | second >> 8, second & 255]).astype("u1")
    tags = frame(bar(), t258=12).tags
    return tiff((tags, packed.tobytes()))


def subsampled(**tags) -> bytes:
    """A TIFF of bare YCbCr: of two by two pixels four Y and one pair of colours."""
    light = bar().reshape(60, 2, 100, 2).transpose(0, 2, 1, 3).reshape(60, 100, 4)
    packed = np.dstack([light, np.full((60, 100, 2), 128, "u1")])
    return tiff((frame(bar(bands=3), 6, **tags).tags, packed.tobytes()))


def cmyk(*, by_adobe: bool) -> bytes:
    """A JPEG of inks; without Adobe's mark a high number is much ink."""
    inks = PAGE.convert("RGB").convert("CMYK")
    content = saved(inks if by_adobe else ImageChops.invert(inks), "JPEG")
    start = content.index(b"\xff\xee")
    return content if by_adobe else content[:start] + content[start + 16 :]


IN_COLOUR = PAGE.convert("RGB")
PALETTE = (b"PLTE", bytes(6))
LOOKS = {
    "LAB": in_lab(),
    "LAB packed": in_lab(compression="tiff_lzw"),
    "LAB big-endian": tiff(frame(np.dstack([bar(), np.zeros((120, 200, 2), "u1")]), 8), order=">"),
    "16-bit with a transparent level": png(bar(300, 0, "u2"), 0, (b"tRNS", struct.pack(">H", 0))),
    "16-bit with a transparent white": png(bar(0, 65535, "u2"), 0, (b"tRNS", struct.pack(">H", 65535))),
    "16-bit with a transparent colour": png(
        bar(300, 1000, "u2", bands=3), 2, (b"tRNS", struct.pack(">3H", 1000, 1000, 1000))
    ),
    "16-bit with an alpha": png(ink_as_alpha(1, "u2"), 4),
    "16-bit colours with an alpha": png(ink_as_alpha(3, "u2"), 6),
    "2-bit with a transparent level": png(bar(0, 1), 0, (b"tRNS", struct.pack(">H", 1)), bits=2),
    "4-bit with a transparent level": png(bar(0, 3), 0, (b"tRNS", struct.pack(">H", 3)), bits=4),
    "8-bit with a transparent level": png(bar(0, 3), 0, (b"tRNS", struct.pack(">H", 3))),
    "palette with a transparent entry": png(bar(1, 0), 3, PALETTE, (b"tRNS", b"\0\xff")),
    "palette with alphas": png(bar(1, 0), 3, PALETTE, (b"tRNS", b"\1\xfe")),
    "premultiplied grey": tiff(frame(ink_as_alpha(1), t338=1)),
    "grey with an alpha": tiff(frame(ink_as_alpha(1), t338=2)),
    "premultiplied colours": tiff(frame(ink_as_alpha(3), 2, t338=1)),
    "1-bit, white is zero": saved(PAGE.convert("1"), "TIFF", compression="group4"),
    "8-bit, white is zero": tiff(frame(bar(255, 0), 0)),
    "16-bit, white is zero": tiff(frame(bar(65535, 0, "u2"), 0)),
    "16-bit, white is zero, packed": tiff(frame(bar(65535, 0, "u2"), 0, deflated=True)),
    "float, white is zero": tiff(frame(bar(1, 0, "f4"), 0)),
    "float to 1": tiff(frame(bar(0, 1, "f4"))),
    "float to 255": tiff(frame(bar(0, 255, "f4"))),
    "float below zero": tiff(frame(bar(-7, 1e30, "f4"))),
    "float without numbers": tiff(frame(bar(0, np.nan, "f4"))),
    "float big-endian": tiff(frame(bar(0, 1, "f4", bands=1), order=">"), order=">"),
    "float big-endian packed": tiff(frame(bar(0, 1, "f4"), order=">", deflated=True), order=">"),
    "32-bit": tiff(frame(bar(0, 2**32 - 1, "u4"))),
    "32-bit to 255": tiff(frame(bar(0, 255, "i4"))),
    "32-bit signed": tiff(frame(bar(-(2**31), 2**31 - 1, "i4"))),
    "32-bit signed, big-endian packed": tiff(
        frame(bar(-9, 70_000, "i4"), order=">", deflated=True), order=">"
    ),
    "16-bit signed": tiff(frame(bar(-(2**15), 2**15 - 1, "i2"))),
    "16-bit signed, big-endian": tiff(frame(bar(-5, 1000, "i2"), order=">"), order=">"),
    "8-bit signed": tiff(frame(bar(-128, 127, "i1"))),
    "16-bit big-endian": tiff(frame(bar(0, 65535, "u2"), order=">"), order=">"),
    "16-bit colours": tiff(frame(bar(0, 65535, "u2", bands=3), 2)),
    "12-bit": with_few_bits(),
    "inks": saved(IN_COLOUR.convert("CMYK"), "TIFF"),
    "inks as JPEG by Adobe": cmyk(by_adobe=True),
    "inks as JPEG": cmyk(by_adobe=False),
    "YCbCr": saved(IN_COLOUR.convert("YCbCr"), "TIFF"),
    "YCbCr, fewer colours": subsampled(t530=(2, 2)),
    "YCbCr, fewer colours unsaid": subsampled(),
    "YCbCr as JPEG": saved(IN_COLOUR, "TIFF", compression="jpeg"),
    "bytes behind a JPEG": saved(PAGE, "JPEG") + b"behind" * 2000,
    "bytes behind a PNG": saved(PAGE, "PNG") + b"behind" * 2000,
    "bytes behind a TIFF": saved(PAGE, "TIFF") + b"behind" * 2000,
    "a PNG without its last mark": saved(PAGE, "PNG")[:-12],
    "a PNG whose EXIF is none": png(bar(), 0, (b"eXIf", b"no EXIF!")),
    "a PNG whose EXIF is cut": png(bar(), 0, (b"eXIf", b"II*\0")),
    "a JPEG whose EXIF is cut": saved(PAGE, "JPEG", exif=b"Exif\0\0II*\0"),
    "a JPEG whose EXIF is empty": saved(PAGE, "JPEG", exif=b"Exif\0\0M"),
}  # fmt: skip


@pytest.mark.parametrize("content", LOOKS.values(), ids=LOOKS)
def test_a_picture_of_any_kind_is_black_on_white(content):
    [page] = pages_of(content)
    assert page.text == "the text"
    assert shows_the_bar(picture_of(page))


@pytest.mark.parametrize("meaning", [0, 1])
@pytest.mark.parametrize("value", [-3.0, 300.0, np.nan, np.inf])
def test_a_picture_of_one_number_is_blank(value, meaning):
    [page] = pages_of(tiff(frame(bar(value, value, "f4"), meaning)))
    assert picture_of(page).getextrema() == (255, 255)


def test_numbers_between_black_and_white_are_greys():
    levels = np.linspace(0, 1, 256).astype("f4")[None, :].repeat(4, axis=0)
    for values in (levels, levels * 255, (levels * 65535).astype("u2"), levels * 4e9 - 1e9):
        [page] = pages_of(tiff(frame(values)))
        assert np.array_equal(np.asarray(picture_of(page))[0], np.arange(256))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "TIFF in strips"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_says_how_it_was_held_is_turned_upright(kind, orientation):
    methods = Image.Transpose
    away = {
        2: methods.FLIP_LEFT_RIGHT, 3: methods.ROTATE_180, 4: methods.FLIP_TOP_BOTTOM, 5: methods.TRANSPOSE,
        6: methods.ROTATE_90, 7: methods.TRANSVERSE, 8: methods.ROTATE_270,
    }  # fmt: skip
    held = PAGE.transpose(away[orientation]) if orientation > 1 else PAGE
    if kind == "TIFF in strips":
        turned = frame(np.asarray(held), t274=orientation)
        pages = pages_of(tiff(frame(bar()), turned, turned))
    else:
        pages = pages_of(saved(held, kind, exif=exif(orientation)))
    assert all(shows_the_bar(picture_of(page)) for page in pages)


GOOD, UNKNOWN = frame(bar()), frame(bar(), 99)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_bad_page_is_left_out_and_named_and_the_others_are_used(bad):
    frames = [GOOD, GOOD, GOOD]
    frames[bad] = UNKNOWN
    pages = pages_of(tiff(*frames))
    assert [page.page for page in pages] == [1, 2, 3]
    assert pages.pop(bad) == PageNote(page=bad + 1, refused="broken image: unknown pixel mode")
    assert all(shows_the_bar(picture_of(page)) for page in pages)


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (frame(bar(), t256=10**5, t257=10**5), "oversized: page 2 has 100,000 x 100,000 pixels"),
        (frame(bar(), t256=0), "broken image: "),
        (frame(bar(), t259=12345), "broken image: "),
        (frame(bar(), t273=10**6), "broken image: its data are cut short or broken"),
    ],
)
def test_what_is_wrong_with_one_page_is_said_of_it(last, reason):
    good, bad = pages_of(tiff(GOOD, last))
    assert shows_the_bar(picture_of(good))
    assert bad.page == 2 and bad.refused.startswith(reason)


@pytest.mark.parametrize("cut", [1, 100, 300])
def test_a_page_that_is_cut_off_is_left_out_and_named(cut):
    content = tiff(GOOD, GOOD, GOOD)
    pages = pages_of(content[: len(tiff(GOOD, GOOD)) - 4 - cut])
    assert [type(page) for page in pages] == [Part, PageNote]
    assert pages[1] == PageNote(page=2, refused="truncated image: the file ends before it")


def refusal(content: bytes, **settings) -> str:
    """Why a file, or its only page, is refused."""
    try:
        (page,) = pages_of(content, **settings)
    except UnreadableDocument as error:
        return str(error)
    return page.refused


def test_a_file_that_is_no_image_is_refused_and_a_bad_page_says_why():
    assert refusal(tiff(UNKNOWN)) == "broken image: unknown pixel mode"
    assert refusal(tiff()) == "broken image: a TIFF without pages"
    assert refusal(b"MM\0*") == "broken image: a TIFF without pages"
    assert refusal(b"GIF89a") == "broken image: it begins as no PNG, JPEG or TIFF"
    assert refusal(tiff(GOOD, GOOD, GOOD), max_pages_per_document=2) == "3 pages, the limit is 2"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_half_a_picture_is_no_page(kind, options):
    noise = saved(Image.effect_noise((200, 120), 80), kind, **options)
    assert refusal(noise[: len(noise) // 2]).startswith(("broken image: ", "truncated image: "))


def test_an_animated_png_without_its_still_picture_is_refused():
    assert refusal(saved(PAGE, "PNG", **ANIMATED)[:200]).startswith("broken image: ")
    header = png(bar(), 0)[:33]
    film = chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"IEND", b"")
    assert refusal(header + film) == "broken image: cannot load this image"


HOSTILE = [*ONE_PAGE.values(), *LOOKS.values(), tiff(GOOD, UNKNOWN, GOOD, order="<")]


@pytest.mark.filterwarnings("ignore")
@given(st.data())
def test_a_file_that_was_changed_anywhere_gives_pages_or_a_reason(data):
    content = bytearray(data.draw(st.sampled_from(HOSTILE)))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, min(len(content), 600)) | st.integers(-600, -1))
        end = start + data.draw(st.integers(1, 8))
        content[start:end] = data.draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, b"\0" * 4]))
    try:
        pages = pages_of(bytes(content), max_source_pixels=10**6)
    except UnreadableDocument as error:
        assert str(error)
        return
    assert [page.page for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        assert page.refused if isinstance(page, PageNote) else picture_of(page).mode == "L"
