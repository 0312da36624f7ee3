"""A fault of one page costs no other page, and what viewers open is read; what was cut off is refused."""

import re

import pytest
from fpdf import FPDF
from fpdf.enums import EncryptionMethod
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import UnreadableDocument
from tests.unit.data_prep.raw_pdf import BoxFont, Pdf, at, pdf_of, read, text

FIRST, LAST = "First page of the manual.", "Last page of the manual."


def around(*bad: tuple) -> Pdf:
    """A file whose first and last page are good; `bad`: what the pages between them are made of."""
    pdf = Pdf()
    pdf.page(text(40, 150, FIRST))
    for page in bad:
        pdf.page(*page)
    pdf.page(text(40, 150, LAST))
    return pdf


def is_read(content: bytes, **settings) -> bool:
    made = read(content, **settings)
    return made.text == f"{FIRST} {LAST}" and made.trained == made.text and not made.notes


# Pages


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ("[0 0 0.1 200]", "page 2 has no area"),
        ("[0 0 400 0.1]", "page 2 has no area"),
        ("[0 0 90000 90000]", "oversized: page 2 has"),
    ],
)
def test_a_page_of_an_impossible_size_is_named_and_costs_no_other(box, reason):
    made = read(around((text(40, 150, "Lost"), f"/MediaBox {box}")).bytes())
    assert made.texts == [FIRST, LAST] and [one.page for one in made.samples] == [1, 3]
    assert list(made.refused) == [2] and reason in made.refused[2]


@pytest.mark.parametrize("kid", ["99 0 R", "null", "(no page)"])
def test_a_page_that_is_missing_is_named_and_costs_no_other(kid):
    pdf = around()
    pdf.kid(kid)
    pdf.page(text(40, 150, "Behind the missing one."))
    made = read(pdf.bytes())
    assert made.texts == [FIRST, LAST, "Behind the missing one."]
    assert list(made.refused) in ([3], []) and [one.page for one in made.samples][:2] == [1, 2]
    assert made.refused or kid != "99 0 R"


def test_pages_that_the_tree_counts_and_does_not_have_cost_no_other():
    content = around().bytes().replace(b"/Type /Pages /Count 2", b"/Type /Pages /Count 4")
    made = read(content)
    assert made.texts == [FIRST, LAST]


def test_a_page_with_too_many_characters_is_named_and_costs_no_other():
    wordy = "".join(text(40, 150 - 20 * row, "x" * 60) for row in range(3))
    made = read(around((wordy,)).bytes(), max_page_characters=100)
    assert made.texts == [FIRST, LAST]
    assert made.refused == {2: "a page has 184 characters, the limit is 100"}


@pytest.mark.parametrize(
    "content",
    [
        b"BT /F1 12 Tf (never ended",
        b"\x00\xff\xfe broken \x80\x81 q q q q Q Q",
        b"BT /Missing 12 Tf 40 150 Td (A font that is not named) Tj ET",
        b"Q Q Q ET ET EMC",
        b"1 0 0 1 1e39 1e39 cm BT /F1 12 Tf (Far away) Tj ET",
        b"BT /F1 1e30 Tf 40 150 Td (Immense) Tj ET",
        b"0 0 0 0 0 0 cm BT /F1 12 Tf 40 150 Td (Flat) Tj ET",
    ],
)
def test_a_broken_page_costs_no_other(content):
    made = read(around((content,)).bytes())
    assert made.texts[0] == FIRST and made.texts[-1] == LAST
    assert {one.page for one in made.samples} | set(made.refused) == {1, 2, 3}


def test_a_broken_stream_costs_no_other_page():
    pdf = around(("%",))
    content = pdf.bytes().replace(
        b"/Length 1 >>\nstream\n%\nendstream", b"/Length 1/Filter/FlateDecode >>\nstream\n%\nendstream"
    )
    made = read(content)
    assert made.texts == [FIRST, LAST]


@pytest.mark.parametrize(
    "entries",
    [
        "/MediaBox [400 200 0 0]",
        "/MediaBox [-100 -50 300 150]",
        "/MediaBox [0 0 400 200] /CropBox [-50 -50 900 900]",
        "/Rotate 360",
        "/Rotate -360",
        "/MediaBox [0 0 400 200] /CropBox [10 20 390 180]",
        "/UserUnit 2",
    ],
)
def test_boxes_of_a_page_may_be_odd(entries):
    [block] = read(pdf_of(text(40, 100, FIRST), entries)).samples
    assert (block.text, block.trainable) == (FIRST, True)


@pytest.mark.parametrize("turn", [90, -90, 270, 450])
def test_a_turn_of_a_page_may_be_any_quarter(turn):
    [block] = read(pdf_of(text(40, 100, FIRST), f"/Rotate {turn}")).samples
    assert (block.text, block.trainable) == (FIRST, True)


# Letters


@pytest.mark.parametrize("code", ["7fffffff", "00110000", "ffffffff"])
def test_a_code_that_no_character_has_costs_its_block_only(code):
    pdf, font = Pdf(), BoxFont.of([*"abcdefghi ", "\ue000\ue000"])
    font.add_to(pdf, "B")
    pdf.page(text(40, 150, font.shown(["a", "\ue000\ue000", "b", "c"]), font="B") + text(40, 60, FIRST))
    content = pdf.bytes().replace(b"<e000e000>", f"<{code}>".encode())
    made = read(content, min_characters=1)
    assert made.texts[-1] == FIRST and made.trained == FIRST


@pytest.mark.parametrize("half", ["\ud83d", "\ude00"])
def test_half_a_character_costs_its_block_only(half):
    pdf, font = Pdf(), BoxFont.of([*"abcdefghi ", half])
    font.add_to(pdf, "B")
    pdf.page(text(40, 150, font.shown(["a", "b", half, "c", "d"]), font="B") + text(40, 60, FIRST))
    made = read(pdf.bytes(), min_characters=1)
    assert made.texts == ["abcd", FIRST] and made.trained == FIRST


def test_characters_above_u_ffff_are_read_whole():
    pdf, letters = Pdf(), "𝒜𝒷𠀀😀"
    font = BoxFont.of(letters)
    font.add_to(pdf, "B")
    pdf.page(text(40, 150, font.shown(letters), font="B"))
    assert read(pdf.bytes()).texts == [letters]


@pytest.mark.parametrize("shown", [" First page of the manual.", "   ", " "])
def test_a_page_that_begins_with_a_space_is_read(shown):
    assert read(pdf_of(text(40, 150, shown))).text == shown.strip()


# Files


@pytest.mark.parametrize(
    "before", [b"\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\xef\xbb\xbf", b"\x00" * 128, b"x" * 1000]
)
def test_bytes_before_a_file_are_no_fault(before):
    assert is_read(before + around().bytes())


@pytest.mark.parametrize(
    "after",
    [b"\x00" * 5000, b"\r\n\x1a", b"<html>end of message</html>\n" * 90, b"%%EOF\n%%EOF\n", b"\xff" * 2000],
)
def test_bytes_after_a_file_are_no_fault(after):
    assert is_read(around().bytes() + after)


@pytest.mark.parametrize("lost", [b"%%EOF\n", b"EOF\n", b"\n"])
def test_a_file_that_lacks_only_its_last_mark_is_read(lost):
    content = around().bytes()
    assert content.endswith(lost)
    assert is_read(content.removesuffix(lost))


@settings(deadline=None)
@given(st.integers(20, 10**6))
def test_a_file_cut_before_its_table_is_refused(place):
    content = around((text(40, 150, "x" * 500),)).bytes()
    cut = content[: 20 + place % (content.index(b"xref\n") - 20)]
    with pytest.raises(UnreadableDocument):
        read(cut)


@pytest.mark.parametrize("lost", [30, 60, 100, 200])
def test_a_file_cut_in_its_table_is_refused(lost):
    with pytest.raises(UnreadableDocument, match="truncated PDF"):
        read(around().bytes()[:-lost])


def test_a_table_whose_places_are_wrong_is_repaired():
    content = around().bytes()
    start = content.rindex(b"startxref")
    assert is_read(content[:start] + b"startxref\n7\n%%EOF\n")
    assert is_read(content.replace(b"%PDF-1.7\n", b"%PDF-1.7\n%longer than it was\n"))


@pytest.mark.parametrize("length", [b"/Length 9 ", b"/Length 99999 ", b""])
def test_a_stream_whose_length_is_wrong_is_read(length):
    content = pdf_of(text(40, 150, FIRST))
    assert read(re.sub(rb"/Length \d+ ", length, content)).texts == [FIRST]


def test_a_file_behind_another_one_is_read():
    assert is_read(pdf_of(text(40, 150, "An older file.")) + around().bytes())


def updated(content: bytes, number: int, body: bytes) -> bytes:
    """The file with an update behind it that gives an object another content."""
    previous = content.rindex(b"startxref\n") + 10
    place = len(content)
    update = b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"xref\n%d 1\n%010d 00000 n \n" % (number, place)
    size = content.count(b" 0 obj\n") + 1
    trailer = b"trailer\n<< /Size %d /Root 1 0 R /Prev %d >>\n" % (size, int(content[previous:].split()[0]))
    return content + update + table + trailer + b"startxref\n%d\n%%%%EOF\n" % (place + len(update))


def test_the_last_update_of_a_file_is_read():
    content = pdf_of(text(40, 150, "As it was at first."))
    for words in ("As it was then.", FIRST):
        shown = text(40, 150, words).encode()
        content = updated(content, 3, b"<< /Length %d >>\nstream\n%s\nendstream" % (len(shown), shown))
    assert read(content).texts == [FIRST]


def test_a_file_whose_update_is_cut_off_is_refused():
    content = pdf_of(text(40, 150, "As it was at first."))
    shown = text(40, 150, FIRST).encode()
    whole = updated(content, 3, b"<< /Length %d >>\nstream\n%s\nendstream" % (len(shown), shown))
    for lost in (30, 80, 100):
        with pytest.raises(UnreadableDocument, match="truncated PDF"):
            read(whole[:-lost])


def test_a_file_arranged_for_the_web_is_read():
    """Its first table, of the first page, stands before most objects and ends as a file does."""
    plain = around().bytes()
    pieces = plain[: plain.index(b"xref\n0 ")].split(b"endobj\n")[:-1]
    bodies = [piece.removeprefix(b"%PDF-1.7\n") + b"endobj\n" for piece in pieces]
    count = len(bodies) + 1
    head = b"%PDF-1.7\n"
    first = (
        b"xref\n3 %d\n" + b"%s" + b"trailer\n<< /Size %d /Root 1 0 R /Prev %010d >>\nstartxref\n0\n%%%%EOF\n"
    )
    length = len(first % (count - 3, b"x" * 20 * (count - 3), count, 0))
    places, place = [], len(head) + length
    for body in bodies:
        places.append(place)
        place += len(body)
    rows = [b"%010d 00000 n \n" % one for one in places]
    content = head + first % (count - 3, b"".join(rows[2:]), count, place) + b"".join(bodies)
    content += b"xref\n0 3\n0000000000 65535 f \n" + b"".join(rows[:2])
    content += b"trailer\n<< /Size 3 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(head)
    assert is_read(content)
    with pytest.raises(UnreadableDocument, match="truncated PDF"):
        read(content[: len(content) - 150])


@pytest.mark.parametrize("method", list(EncryptionMethod))
def test_a_file_that_anyone_may_open_is_read_though_it_is_encrypted(method):
    pdf = FPDF()
    pdf.set_encryption(owner_password="owner", user_password="", encryption_method=method)
    for words in (FIRST, LAST):
        pdf.add_page()
        pdf.set_font("Helvetica", size=12)
        pdf.text(20, 50, words)
    assert is_read(bytes(pdf.output()))


def test_the_text_of_streams_that_part_it_is_read_whole():
    pdf = Pdf()
    first, second = pdf.stream("BT /F1 12 Tf 40 150 Td"), pdf.stream(f"({FIRST}) Tj ET")
    pdf.page("", f"/Contents [{first} {second}] /None")
    content = pdf.bytes().replace(b"/None /Contents", b"/None")
    assert read(content).texts == [FIRST]


@pytest.mark.parametrize("unit", ["page", "block"])
def test_a_page_without_content_is_a_page_without_text(unit):
    pdf = around(("",))
    made = read(pdf.bytes(), unit=unit)
    assert [(one.page, one.text) for one in made.samples] == [(1, FIRST), (2, ""), (3, LAST)]
    assert made.samples[1].reason == "no text"


ODD = [
    *"ab 1(",
    None,
    "\u0e33",
    "\u05d0",
    "\u0628",
    "中",
    "\ufffd",
    "\ue000",
    "\x03",
    "\ud83d",
    "\u0301",
    "\u202e",
    "ﬁ",
]
NUMBERS = st.sampled_from([0, 1, -1, 0.5, -0.3, 1e-6, 3, -1e4, 1e9])
RUNS = st.tuples(
    st.tuples(*[NUMBERS] * 4, st.integers(-50, 450), st.integers(-50, 250)),
    st.sampled_from([0, 0.001, 1, 7, 12, -12, 300, 1e7]),
    st.lists(st.sampled_from(ODD), min_size=1, max_size=8),
    st.sampled_from([0, 1, 3, 7]),
)


@settings(deadline=None)
@given(st.lists(RUNS, min_size=1, max_size=8), st.sampled_from([0, 90, 180, 270]), st.sampled_from("HV"))
def test_no_page_is_too_odd_to_be_read(runs, turn, direction):
    """Whatever the matrices, sizes and meanings: it is read or refused, and what is trained on is seen."""
    pdf, font = Pdf(), BoxFont.of(ODD, encoding=f"Identity-{direction}")
    font.add_to(pdf, "B")
    content = "".join(
        f"BT {mode} Tr ET {at(' '.join(map(str, matrix)), font.shown(meanings), size=size, font='B')}"
        for matrix, size, meanings, mode in runs
    )
    pdf.page(content, f"/Rotate {turn}")
    made = read(pdf.bytes(), min_characters=1)
    assert made.samples or made.refused
