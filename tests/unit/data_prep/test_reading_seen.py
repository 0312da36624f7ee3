"""What is seen on a page is read, forms and notes too; what nobody sees is left out and counted."""

from collections.abc import Sequence

import pytest

from data_prep.page_text import UNSEEN
from tests.unit.data_prep.raw_pdf import BoxFont, Pdf, Read, at, pdf_of, read, text, width

SEEN = text(40, 60, "Public words stay as they are.")
SECRET = text(40, 150, "Secret")


def only_the_seen_text(made: Read, count: int = 6) -> bool:
    return (made.texts, dict(made.reasons)) == (["Public words stay as they are."], {UNSEEN: count})


# Unseen


@pytest.mark.parametrize(
    "hidden",
    [
        f"1 g {SECRET} 0 g ",
        f"BT 3 Tr ET {SECRET} BT 0 Tr ET ",
        f"q BT 7 Tr ET {SECRET} Q ",
        f"q 0 0 10 10 re W n {SECRET} Q ",
        f"{SECRET} 1 g 30 140 100 30 re f 0 g ",
        f"{SECRET} 0 g 30 140 100 30 re f ",
        f"0.2 0.5 0.9 rg 30 140 100 30 re f {SECRET} 0 g ",
        f"0 g 30 140 100 30 re f {SECRET}",
        f"1 0.99 1 rg {SECRET} 0 g ",
        f"q 0 0 0 0 k {SECRET} Q ",
        text(40, 150, "Secret", size=0.01),
    ],
    ids=[
        "white", "invisible", "clip only", "clipped away", "behind white", "behind black", "own colour",
        "black on black", "nearly white", "no ink of four", "of no size",
    ],
)  # fmt: skip
def test_text_that_nobody_sees_is_left_out_and_counted(hidden):
    assert only_the_seen_text(read(pdf_of(hidden + SEEN)))


def test_text_of_no_opacity_is_left_out_and_counted():
    page = pdf_of(f"q /G gs {SECRET} Q {SEEN}", resources="/ExtGState << /G << /ca 0 /CA 0 >> >>")
    assert only_the_seen_text(read(page))


@pytest.mark.parametrize("how", ["marked", "form"])
@pytest.mark.parametrize("is_hidden", [True, False])
def test_text_of_a_hidden_layer_is_left_out_and_of_a_shown_one_read(how, is_hidden):
    pdf = Pdf()
    layer = pdf.add("<< /Type /OCG /Name (Notes) >>")
    off = f"/OFF [{layer}]" if is_hidden else ""
    pdf.catalog = f"/OCProperties << /OCGs [{layer}] /D << /Order [{layer}] {off} >> >>"
    if how == "marked":
        pdf.page(f"/OC /L BDC {SECRET} EMC {SEEN}", resources=f"/Properties << /L {layer} >>")
    else:
        form = pdf.form(SECRET, f"/BBox [0 0 400 200] /OC {layer}")
        pdf.page(f"/X Do {SEEN}", resources=f"/XObject << /X {form} >>")
    made = read(pdf.bytes())
    if is_hidden:
        assert only_the_seen_text(made)
    else:
        assert made.texts[0] == "Secret" and not made.left_out


def test_text_outside_the_crop_box_is_not_read():
    made = read(pdf_of(SECRET + SEEN, "/CropBox [0 0 400 100]"))
    assert made.texts == ["Public words stay as they are."]


def test_text_outside_the_page_is_not_read():
    assert read(pdf_of(text(40, 250, "Secret") + text(500, 60, "Secret") + SEEN)).texts == [
        "Public words stay as they are."
    ]


def picture(pdf: Pdf, rows: Sequence[str], entries: str = "") -> str:
    """A picture of grey rows, in hexadecimal digits."""
    size = f"/Width {len(rows[0]) // 2} /Height {len(rows)}"
    return pdf.stream(
        bytes.fromhex("".join(rows)),
        f"/Type /XObject /Subtype /Image {size} /ColorSpace /DeviceGray /BitsPerComponent 8 {entries}",
    )


def test_text_behind_a_picture_is_left_out_and_counted():
    pdf = Pdf()
    white = picture(pdf, ["ffff"])
    pdf.page(f"{SECRET} q 100 0 0 30 30 140 cm /P Do Q {SEEN}", resources=f"/XObject << /P {white} >>")
    assert only_the_seen_text(read(pdf.bytes()))


SCAN = ["ff00ff00ff00ff00"] * 8


def test_invisible_text_on_a_scan_is_read():
    pdf = Pdf()
    scan = picture(pdf, SCAN)
    content = f"q {width('Timetable')} 0 0 9 40 150 cm /P Do Q BT 3 Tr ET {text(40, 150, 'Timetable')}"
    pdf.page(content, resources=f"/XObject << /P {scan} >>")
    [block] = read(pdf.bytes()).samples
    assert (block.text, block.trainable) == ("Timetable", True)


def test_invisible_text_on_a_scans_paper_is_left_out_and_counted():
    pdf = Pdf()
    scan = picture(pdf, SCAN)
    content = f"q 60 0 0 9 240 150 cm /P Do Q BT 3 Tr ET {text(40, 150, 'Timetable')} BT 0 Tr ET {SEEN}"
    pdf.page(content, resources=f"/XObject << /P {scan} >>")
    assert only_the_seen_text(read(pdf.bytes()), 9)


@pytest.mark.parametrize("order", [1, -1])
def test_invisible_text_where_other_text_is_printed_is_left_out_and_counted(order):
    parts = [SEEN, f"BT 3 Tr ET {text(44, 60, 'Secret')} BT 0 Tr ET "]
    assert only_the_seen_text(read(pdf_of("".join(parts[::order]))))


def test_invisible_text_where_the_same_is_printed_is_read_once():
    again = f"BT 3 Tr ET {text(40, 60, 'Public words stay as they are.')}"
    assert read(pdf_of(SEEN + again)).texts == ["Public words stay as they are."]


def test_a_word_behind_a_black_box_is_left_out_of_its_line():
    left, wide = width("Pay "), width("seventy")
    box = f"0 g {40 + left - 1} 145 {wide + 2} 16 re f "
    made = read(pdf_of(text(40, 150, "Pay seventy euros to the bearer") + box + SEEN))
    assert made.texts == ["Pay euros to the bearer", "Public words stay as they are."]
    assert made.left_out == len("seventy")


@pytest.mark.parametrize(
    "shown",
    [
        f"0 g 20 140 200 30 re f 1 g {SECRET} 0 g ",
        f"0.8 g {SECRET} 0 g ",
        f"BT 1 Tr ET {SECRET} BT 0 Tr ET ",
        f"BT 2 Tr ET {SECRET} BT 0 Tr ET ",
        f"1 g 20 140 200 30 re f 0 g {SECRET}",
        f"0.9 0.9 0.2 rg 20 140 200 30 re f 0 g {SECRET}",
        f"q 20 140 200 30 re W n {SECRET} Q ",
        f"1 0 0 rg {SECRET} 0 g ",
    ],
    ids=[
        "white on black", "light grey", "outlined", "filled too", "on white", "on yellow", "clipped",
        "red",
    ],
)  # fmt: skip
def test_text_that_is_seen_is_read(shown):
    made = read(pdf_of(shown + SEEN))
    assert (made.texts, made.left_out) == (["Secret", "Public words stay as they are."], 0)
    assert made.trained == made.text


@pytest.mark.parametrize("sign", ["_____", ". . . . .", "''''", '"', "~", "-", "- 3 -", "^", "|"])
def test_signs_that_are_seen_are_read(sign):
    assert read(pdf_of(text(40, 150, sign) + SEEN)).texts == [sign, "Public words stay as they are."]


@pytest.mark.parametrize("rule", ["0 153 m 400 153 l S ", "0 149.5 m 400 149.5 l S 0 155 m 400 155 l S "])
def test_white_text_that_a_rule_crosses_is_left_out_and_counted(rule):
    assert only_the_seen_text(read(pdf_of(f"1 g {SECRET} 0 g {rule} {SEEN}")))


def test_white_text_close_over_printed_text_is_left_out_and_counted():
    assert only_the_seen_text(read(pdf_of(f"1 g {text(40, 67, 'Secret')} 0 g {SEEN}")))


def test_of_a_text_and_what_is_written_over_it_only_the_upper_one_is_read():
    upper = f"1 g 38 146 120 16 re f 0 g {text(40, 150, 'New price 15')}"
    made = read(pdf_of(text(40, 150, "Old price 12") + upper + SEEN))
    assert made.texts == ["New price 15", "Public words stay as they are."]
    assert made.left_out == len("Oldprice12")


@pytest.mark.parametrize("hidden", [0, 1])
def test_of_two_layers_at_one_place_only_the_shown_one_is_read(hidden):
    pdf, words = Pdf(), ("Good morning", "Guten Morgen")
    layers = [pdf.add(f"<< /Type /OCG /Name ({name}) >>") for name in ("en", "de")]
    pdf.catalog = f"/OCProperties << /OCGs [{' '.join(layers)}] /D << /OFF [{layers[hidden]}] >> >>"
    shown = "".join(f"/OC /L{n} BDC {text(40, 150, word)} EMC " for n, word in enumerate(words))
    pdf.page(shown + SEEN, resources=f"/Properties << /L0 {layers[0]} /L1 {layers[1]} >>")
    assert read(pdf.bytes()).texts == [words[1 - hidden], "Public words stay as they are."]


@pytest.mark.parametrize("unit", ["block", "page"])
def test_a_row_or_page_with_words_over_each_other_is_not_trained_on(unit):
    over = text(20, 100, "Amount due") + text(40, 100, "Balance paid") + text(170, 100, "1234 euros")
    [sample] = read(pdf_of(over), unit=unit).samples
    assert (sample.trainable, sample.reason) == (False, "words in it stand over each other")


def test_words_printed_over_each_other_are_not_trained_on():
    made = read(pdf_of(text(40, 150, "Old price 12") + text(42, 151, "New words 15") + SEEN))
    assert made.trained == "Public words stay as they are."


def test_text_that_is_struck_out_or_underlined_is_read():
    rules = "40 154 m 140 154 l S 40 148 m 140 148 l S "
    made = read(pdf_of(text(40, 150, "Struck out words") + rules + SEEN))
    assert made.texts[0] == "Struck out words" and made.trained == made.text


def test_of_a_word_that_the_pages_edge_cuts_only_the_letters_on_the_page_are_read():
    made = read(pdf_of(text(-30, 150, "Secret words of it") + SEEN))
    assert made.texts[0] in ("t words of it", "et words of it", "words of it")


def test_a_form_that_is_shown_twice_is_read_twice_unless_it_is_at_the_same_place():
    for move, times in ((-50, 2), (0.3, 1)):
        pdf = Pdf()
        form = pdf.form(SECRET)
        pdf.page(f"/X Do q 1 0 0 1 0 {move} cm /X Do Q {SEEN}", resources=f"/XObject << /X {form} >>")
        assert read(pdf.bytes()).texts == ["Secret"] * times + ["Public words stay as they are."]


@pytest.mark.parametrize("size", [3, 5, 40])
def test_small_and_large_print_is_read(size):
    made = read(pdf_of(text(20, 150, "Print of a size", size=size) + SEEN))
    assert made.texts[0] == "Print of a size" and made.trained == made.text


# Fonts that are not there


@pytest.mark.parametrize(
    ("font", "encoding", "ordering", "codes"),
    [
        ("STSong-Light", "UniGB-UCS2-H", "GB1", "<4e2d6587>"),
        ("HeiseiMin-W3", "UniJIS-UCS2-H", "Japan1", "<65e5672c>"),
    ],
)
def test_an_east_asian_font_that_is_not_there_is_left_out_and_counted(font, encoding, ordering, codes):
    pdf = Pdf()
    descendant = pdf.add(
        f"<< /Type /Font /Subtype /CIDFontType0 /BaseFont /{font} /DW 1000 /CIDSystemInfo << "
        "/Registry (Adobe) "
        f"/Ordering ({ordering}) /Supplement 2 >> /FontDescriptor << /Type /FontDescriptor "
        f"/FontName /{font} /Flags 4 /Ascent 880 /Descent -120 /CapHeight 880 /ItalicAngle 0 /StemV 93 "
        "/FontBBox [0 -120 1000 880] >> >>"
    )
    entries = f"/Encoding /{encoding} /DescendantFonts [{descendant}]"
    pdf.fonts += f" /C << /Type /Font /Subtype /Type0 /BaseFont /{font} {entries} >>"
    pdf.page(text(40, 150, codes, font="C") + SEEN)
    assert only_the_seen_text(read(pdf.bytes()), 2)


def test_letters_whose_glyphs_are_empty_are_left_out_and_counted():
    pdf, font = Pdf(), BoxFont.of("secrt", boxes=dict.fromkeys("secrt"))
    font.add_to(pdf, "B")
    pdf.page(text(40, 150, font.shown("secret"), font="B") + SEEN)
    assert only_the_seen_text(read(pdf.bytes()))


# Forms and notes

FIELD = "/Type /Annot /Subtype /Widget /F 4 /DA (/F1 12 Tf 0 g) /T (name) /Rect [140 142 340 162]"
LABEL = text(40, 146, "Applicant")


def with_notes(
    *notes: str, form: str | None = None, entries: str = "", content: str = LABEL, pdf=None
) -> bytes:
    """A page with these annotations; `form`: entries of the file's form."""
    pdf = pdf or Pdf()
    held = [pdf.add(f"<< {note} >>") for note in notes]
    if form is not None:
        pdf.catalog = (
            f"/AcroForm << /Fields [{' '.join(held)}] /DA (/F1 12 Tf 0 g) "
            f"/DR << /Font << {pdf.fonts} >> >> {form} >>"
        )
    pdf.page(LABEL, f"/Annots [{' '.join(held)}] {entries}")
    return pdf.bytes()


def look(pdf: Pdf, *lines: str) -> str:
    """The appearance of a field or note that is 200 wide and 20 high, or higher for more lines."""
    runs = "".join(text(2, 6 + 14 * (len(lines) - 1 - row), line) for row, line in enumerate(lines))
    return f"/AP << /N {pdf.form(f'/Tx BMC q {runs} Q EMC', f'/BBox [0 0 200 {20 * len(lines)}]')} >>"


def test_a_field_without_an_appearance_is_drawn_and_read():
    made = read(with_notes(f"{FIELD} /FT /Tx /V (Ingrid Vasquez)", form="/NeedAppearances true"))
    assert made.text == "Applicant Ingrid Vasquez" and made.trained == made.text


def test_a_choice_without_an_appearance_is_drawn_and_read():
    options = "/Opt [(Portmouth) (Northaven)] /Ff 131072"
    made = read(with_notes(f"{FIELD} /FT /Ch /V (Northaven) {options}", form="/NeedAppearances true"))
    assert "Northaven" in made.text and "Portmouth" not in made.text


def test_the_lines_of_a_field_are_read_in_their_order():
    pdf = Pdf()
    shown = look(pdf, "Four barrels of oil", "and a bag of flour")
    field = FIELD.replace("142 340 162", "122 340 162")
    made = read(with_notes(f"{field} /FT /Tx /Ff 4096 {shown}", form="", pdf=pdf))
    assert "Four barrels of oil and a bag of flour" in made.text


def test_a_filled_field_on_a_turned_page_is_read():
    pdf = Pdf()
    made = read(
        with_notes(f"{FIELD} /FT /Tx {look(pdf, 'Ingrid Vasquez')}", form="", entries="/Rotate 90", pdf=pdf)
    )
    assert sorted(made.text.split()) == ["Applicant", "Ingrid", "Vasquez"]
    assert made.trained == made.text


@pytest.mark.parametrize("form", [None, ""])
@pytest.mark.parametrize("kind", ["FreeText", "Stamp"])
def test_a_note_that_is_printed_on_the_page_is_read(kind, form):
    pdf = Pdf()
    note = (
        f"/Type /Annot /Subtype /{kind} /F 4 /Rect [140 142 340 162] /DA (/F1 12 Tf) /Contents (Looked over)"
    )
    made = read(with_notes(f"{note} {look(pdf, 'Looked over')}", form=form, pdf=pdf))
    assert made.text == "Applicant Looked over" and made.trained == made.text


HIDDEN, NO_VIEW = 2, 32


@pytest.mark.parametrize("flags", [HIDDEN, NO_VIEW, HIDDEN + NO_VIEW])
@pytest.mark.parametrize("kind", ["FreeText", "Stamp", "Widget"])
def test_a_hidden_note_is_not_read(kind, flags):
    pdf = Pdf()
    field = "/FT /Tx /T (name) /V (Looked over)" if kind == "Widget" else "/Contents (Looked over)"
    note = f"/Type /Annot /Subtype /{kind} /F {flags} /Rect [140 142 340 162] /DA (/F1 12 Tf 0 g) {field}"
    made = read(
        with_notes(f"{note} {look(pdf, 'Looked over')}", form="" if kind == "Widget" else None, pdf=pdf)
    )
    assert made.text == "Applicant"


def test_what_a_closed_note_says_and_where_a_link_leads_is_not_read():
    rest = "/Rect [140 142 160 162] /Contents (Looked over)"
    link = "/Type /Annot /Subtype /Link /Rect [30 140 100 160] /A << /S /URI /URI (https://example.org/) >>"
    for notes in (
        (f"/Type /Annot /Subtype /Text /F 4 {rest}",),
        (f"/Type /Annot /Subtype /Popup /F 4 {rest}",),
        (link,),
    ):
        assert read(with_notes(*notes)).text == "Applicant"


def test_a_note_without_an_appearance_is_never_trained_on_unseen():
    note = "/Type /Annot /Subtype /FreeText /F 4 /Rect [140 142 340 162] /Contents (Looked over)"
    for form in (None, ""):
        assert read(with_notes(note, form=form)).texts[0].startswith("Applicant")


@pytest.mark.parametrize("state", ["Yes", "Off"])
def test_the_mark_of_a_check_box_is_drawn_as_its_state_says(state):
    pdf = Pdf()
    on, off = pdf.form("2 2 10 10 re f", "/BBox [0 0 14 14]"), pdf.form("", "/BBox [0 0 14 14]")
    box = FIELD.replace("[140 142 340 162]", "[20 143 34 157]")
    looks = f"/AP << /N << /Yes {on} /Off {off} >> >>"
    page = with_notes(f"{box} /FT /Btn /V /{state} /AS /{state} {looks}", form="", pdf=pdf)
    made = read(page, unit="page", max_pixels=10**6)
    [page] = made.samples
    assert page.text == "Applicant"
    darkest, _ = page.image().crop((20 * 4 // 3, 60, 34 * 4 // 3, 74)).getextrema()
    assert (darkest < 100) == (state == "Yes")


def test_a_turned_stamp_is_read():
    pdf = Pdf()
    shown = pdf.form(text(2, 6, "Looked over"), "/BBox [0 0 200 20] /Matrix [0 1 -1 0 20 0]")
    note = f"/Type /Annot /Subtype /Stamp /F 4 /Rect [240 20 260 190] /AP << /N {shown} >>"
    made = read(with_notes(note, pdf=pdf))
    assert sorted(made.texts) == ["Applicant", "Looked over"] and made.trained == made.text


def test_text_under_a_note_that_covers_it_is_left_out_and_counted():
    pdf = Pdf()
    shown = pdf.form("0 g 0 0 100 30 re f", "/BBox [0 0 100 30]")
    note = f"/Type /Annot /Subtype /Square /F 4 /Rect [30 140 130 170] /AP << /N {shown} >>"
    made = read(with_notes(note, pdf=pdf))
    assert (made.text, made.left_out) == ("", len("Applicant"))


def test_a_label_under_a_filled_field_is_left_out_and_counted():
    pdf = Pdf()
    shown = pdf.form(f"1 g 0 0 200 20 re f 0 g {text(2, 6, 'Ingrid')}", "/BBox [0 0 200 20]")
    field = FIELD.replace("[140 142 340 162]", "[38 140 238 160]")
    made = read(with_notes(f"{field} /FT /Tx /AP << /N {shown} >>", form="", pdf=pdf))
    assert (made.texts, made.left_out) == (["Ingrid"], len("Applicant"))


def test_the_letters_of_a_password_are_not_read():
    made = read(with_notes(f"{FIELD} /FT /Tx /Ff 8192 /V (hidden)", form="/NeedAppearances true"))
    assert "hidden" not in made.text


def test_a_highlight_over_a_text_leaves_it_readable():
    quad = "/QuadPoints [38 158 100 158 38 143 100 143] /C [1 1 0]"
    note = f"/Type /Annot /Subtype /Highlight /F 4 /Rect [38 143 100 158] {quad}"
    made = read(with_notes(note))
    assert (made.text, made.trained) == ("Applicant", "Applicant")


def test_pages_of_a_form_are_read_one_by_one():
    pdf = Pdf()
    fields = [
        pdf.add(f"<< {FIELD} /FT /Tx /V ({name}) {look(pdf, name)} >>") for name in ("Ingrid", "Moreau")
    ]
    pdf.catalog = f"/AcroForm << /Fields [{' '.join(fields)}] >>"
    for field in fields:
        pdf.page(LABEL, f"/Annots [{field}]")
    made = read(pdf.bytes())
    assert made.text == "Applicant Ingrid Applicant Moreau"
    assert [one.page for one in made.samples] == [1, 1, 2, 2]


def test_a_turned_form_is_read_in_its_place():
    pdf = Pdf()
    form = pdf.form(
        at("1 0 0 1 0 0", "Turned in a form"), "/BBox [-10 -10 300 300] /Matrix [0 1 -1 0 240 30]"
    )
    pdf.page(f"/X Do {text(20, 180, 'Upright words beside it')}", resources=f"/XObject << /X {form} >>")
    made = read(pdf.bytes())
    assert sorted(made.texts) == ["Turned in a form", "Upright words beside it"]
