"""Every script is read as it is printed; what is no text of any is not trained on."""

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest

from data_prep.page_text import UNKNOWN_LETTERS
from tests.unit.data_prep.raw_pdf import LONG_BLOCKS, BoxFont, Pdf, Read, at, read, text

LATIN = "abcdefghijklmnopqrstuvwxyz"
WIDE = 1000  # of East Asian letters


def lines_of(
    lines: Sequence[Sequence[str | None]],
    *,
    left: float = 30,
    top: float = 170,
    pitch: float = 15,
    widths: dict | None = None,
    boxes: dict | None = None,
) -> bytes:
    """A page of lines of one font; each item of a line is one glyph, drawn from left to right."""
    pdf, font = Pdf(), BoxFont.of([one for line in lines for one in line], boxes, widths)
    font.add_to(pdf, "B")
    pdf.page(
        "".join(text(left, top - row * pitch, font.shown(line), font="B") for row, line in enumerate(lines))
    )
    return pdf.bytes()


def wide(lines: Sequence[str]) -> dict:
    letters = "".join(lines)
    return {"boxes": dict.fromkeys(letters, (60, 0, 900, 800)), "widths": dict.fromkeys(letters, WIDE)}


# Line ends


@pytest.mark.parametrize(
    ("lines", "right"),
    [
        (("市場の価格はマク", "ロ経済で決まる。"), "市場の価格はマクロ経済で決まる。"),
        (("价格由市场决定，", "而不是由人决定。"), "价格由市场决定，而不是由人决定。"),
        (("𠀀𠀁𠀂𠀃", "𠀄𠀅𠀆。"), "𠀀𠀁𠀂𠀃𠀄𠀅𠀆。"),
        (("한국어는 낱말을", "띄어 쓴다."), "한국어는 낱말을 띄어 쓴다."),
        (("the words of a line", "and of the next"), "the words of a line and of the next"),
        (("слова строки и", "слова другой"), "слова строки и слова другой"),
    ],
)
def test_a_line_end_is_a_space_where_the_script_has_spaces(lines, right):
    looks = wide(lines) if ord(lines[0][0]) > 0x2000 else {"widths": {}}
    looks["widths"][" "] = 300
    assert read(lines_of(lines, **looks), **LONG_BLOCKS).texts == [right]


@pytest.mark.parametrize(
    ("lines", "right"),
    [
        (("ราคาตลาด", "กลางของ"), "ราคาตลาดกลางของ"),
        (("លើកកម្ពស់", "ជាតិ"), "លើកកម្ពស់ជាតិ"),
        (("ລາຄາຕະ", "ຫຼາດ"), "ລາຄາຕະຫຼາດ"),
        (("မြန်မာ", "စာ"), "မြန်မာစာ"),
    ],
)
def test_a_line_end_of_a_script_without_spaces_is_none(lines, right):
    assert read(lines_of(lines, pitch=18), **LONG_BLOCKS).texts == [right]


def test_a_gap_between_east_asian_letters_is_no_space_and_their_own_space_is_one():
    line = "市場の　価格は"
    pdf, font = Pdf(), BoxFont.of(line, {**wide([line])["boxes"], "　": None}, wide([line])["widths"])
    font.add_to(pdf, "B")
    shown = "".join(f"{font.shown(one)} -250 " for one in line)  # justified: a quarter of an em between all
    pdf.page(text(30, 150, f"[{shown}]", font="B"))
    assert read(pdf.bytes()).texts == ["市場の 価格は"]


def test_thai_phrases_stay_apart():
    assert read(lines_of(["ราคาตลาด กลางปี"])).texts == ["ราคาตลาด กลางปี"]


# Vertical writing

COLUMNS = ("春の海、終日", "のたりかな。")


def vertical(
    columns: Sequence[str], how: str, *, left: float = 330, top: float = 170, more: str = ""
) -> Read:
    """Columns from the right to the left, as a font's own vertical writing or letter by letter."""
    letters = "".join(columns)
    looks = dict.fromkeys(letters, (100, 0, 900, 780)) | dict.fromkeys("、。", (600, 500, 900, 800))
    pdf = Pdf()
    encoding = "Identity-V" if how == "font" else "Identity-H"
    font = BoxFont.of(letters, looks, dict.fromkeys(letters, WIDE), encoding)
    font.add_to(pdf, "V")
    runs = []
    for number, column in enumerate(columns):
        x = left - 18 * number
        if how == "font":
            runs.append(text(x, top, font.shown(column), font="V"))
        else:
            runs += [
                text(x - 6, top - 10.5 - 12 * row, font.shown(one), font="V")
                for row, one in enumerate(column)
            ]
    pdf.page("".join(runs) + more)
    return read(pdf.bytes(), **LONG_BLOCKS)


@pytest.mark.parametrize("how", ["font", "letters"])
def test_vertical_columns_are_read_from_the_right(how):
    made = vertical(COLUMNS, how)
    assert (made.text, made.left_out) == ("".join(COLUMNS), 0)
    assert made.trained == made.text


@pytest.mark.parametrize("how", ["font", "letters"])
def test_a_heading_beside_vertical_columns_stays_apart(how):
    made = vertical(COLUMNS, how, more=text(40, 185, "A poem of spring", size=14))
    assert sorted(made.texts) == sorted(["".join(COLUMNS), "A poem of spring"])


@pytest.mark.parametrize("how", ["font", "letters"])
def test_one_vertical_column_is_one_block(how):
    [block] = vertical(["市場価格"], how).samples
    left, top, right, bottom = block.box
    assert block.text == "市場価格" and bottom - top > 2 * (right - left)


@pytest.mark.parametrize("column", ["平成12年3月", "市場価格ABC海", "第3章"])
@pytest.mark.parametrize("how", ["font", "letters"])
def test_digits_and_letters_set_upright_in_a_column_are_in_it(column, how):
    assert vertical([column], how).text == column


def test_two_tiers_of_columns_are_read_one_after_the_other():
    upper, lower = (
        vertical(("市場価格", "海春終日"), "font"),
        vertical(("雨夜山川", "花鳥風月"), "font", top=80),
    )
    assert (upper.text, lower.text) == ("市場価格海春終日", "雨夜山川花鳥風月")
    pdf, letters = Pdf(), "市場価格海春終日雨夜山川花鳥風月"
    boxes, widths = dict.fromkeys(letters, (100, 0, 900, 780)), dict.fromkeys(letters, WIDE)
    font = BoxFont.of(letters, boxes, widths, "Identity-V")
    font.add_to(pdf, "V")
    runs = [
        text(x, top, font.shown(letters[start : start + 4]), font="V")
        for start, (x, top) in zip(
            range(0, 16, 4), ((330, 180), (312, 180), (330, 80), (312, 80)), strict=True
        )
    ]
    pdf.page("".join(runs[::-1]))
    assert read(pdf.bytes(), **LONG_BLOCKS).texts == [letters[:8], letters[8:]]


def test_a_column_of_digits_is_not_vertical_writing():
    assert len(read(lines_of(["1", "2", "3", "4"]), **LONG_BLOCKS).text.split()) == 4


def test_short_horizontal_lines_below_each_other_are_not_vertical_writing():
    lines = ["一月", "二月", "三月", "四月"]
    assert read(lines_of(lines, **wide(lines)), **LONG_BLOCKS).text.replace(" ", "") == "一月二月三月四月"


# Marks

NIKHAHIT, AA, TONE = "\u0e4d", "\u0e32", "\u0e49"


@pytest.mark.parametrize(
    ("glyphs", "right"),
    [
        (("ค", NIKHAHIT, AA, "แ", "ป", "ล"), "คำแปล"),
        (("น", NIKHAHIT, TONE, AA, "ใ", "จ"), "น้ำใจ"),
        (("น", TONE, NIKHAHIT, AA, "ใ", "จ"), "น้ำใจ"),
        (("ຄ", "\u0ecd", "\u0eb2", "ແ", "ປ"), "ຄຳແປ"),
        (("ນ", "\u0ecd", "\u0ec9", "\u0eb2", "ໃ", "ຈ"), "ນ້ຳໃຈ"),
        (("cafe", "\u0301", "s"), "cafés"),
        (("ﬁ", "n", "ﬂ", "o", "w"), "finflow"),
    ],
)
def test_letters_that_a_font_splits_or_joins_are_read_as_they_are_written(glyphs, right):
    marks = [NIKHAHIT, TONE, "\u0ecd", "\u0ec9", "\u0301"]
    made = read(
        lines_of(
            [glyphs], boxes=dict.fromkeys(marks, (-300, 720, -100, 850)), widths=dict.fromkeys(marks, 0)
        ),
        min_characters=1,
    )
    assert made.texts == [right] and made.trained == right


@pytest.mark.parametrize("rise", [0, 1.5])
def test_thai_marks_that_are_runs_of_their_own_are_in_their_word(rise):
    """Each vowel and tone is shown alone, raised or not, behind the letter over or under which it stands."""
    marks = ["\u0e34", "\u0e49", "\u0e38"]
    over, under = (-300, 750, -60, 900), (-300, -200, -60, -50)
    boxes = dict(zip(marks, (over, over, under), strict=True))
    font = BoxFont.of([*"กขคงจฉช", *marks], boxes, dict.fromkeys(marks, 0))
    pdf, line = Pdf(), "กข\u0e34คง\u0e49จฉ\u0e38ช"
    font.add_to(pdf, "B")
    content = ""
    for row in range(2):
        pen = 30
        for one in line:
            up = rise if one in marks else 0
            content += text(pen, 150 - 18 * row + up, font.shown(one), font="B")
            pen += 0 if one in marks else 6
    pdf.page(content)
    assert read(pdf.bytes(), **LONG_BLOCKS).texts == [line * 2]


# From right to left


def visual(line: str, *, keep: Sequence[str] = ()) -> str:
    """What stands from left to right of a line read from the right; `keep`: parts read from the left."""
    held = {chr(0xE000 + number): part for number, part in enumerate(keep)}
    for mark, part in held.items():
        line = line.replace(part, mark)
    return "".join(held.get(one, one) for one in reversed(line))


def logical(lines: Sequence[str], *, right: float = 370, top: float = 170) -> bytes:
    """A page whose letters are drawn as they are read, each to the left of the one before."""
    pdf, font = Pdf(), BoxFont.of("".join(lines))
    font.add_to(pdf, "B")
    pdf.page(
        "".join(
            text(right - 6 * (place + 1), top - 15 * row, font.shown(one), font="B")
            for row, line in enumerate(lines)
            for place, one in enumerate(line)
        )
    )
    return pdf.bytes()


HEBREW = ("הספינה יוצאת מן הנמל", "בכל יום ראשון בבוקר")


def test_hebrew_drawn_from_left_to_right_is_read_from_the_right():
    made = read(lines_of([visual(line) for line in HEBREW]), **LONG_BLOCKS)
    assert made.text == " ".join(HEBREW) and made.trained == made.text


def test_hebrew_drawn_as_it_is_read_is_the_same():
    assert read(logical(HEBREW), **LONG_BLOCKS).text == " ".join(HEBREW)


@pytest.mark.parametrize(
    ("line", "keep"),
    [
        ("סעיף 15 לחוק", ["15"]),
        ("בשנת 2024 היו 1,350 תושבים", ["2024", "1,350"]),
        ("קובץ PDF חדש מן הספרייה", ["PDF"]),
        ("המחיר 12.50 שקלים", ["12.50"]),
        ("בשנים 1990-1995 בלבד", ["1990-1995"]),
    ],
)
def test_numbers_and_foreign_words_in_hebrew_keep_their_direction(line, keep):
    assert read(lines_of([visual(line, keep=keep)])).text == line


def test_a_line_of_a_hebrew_page_is_read_from_the_right_though_most_of_its_letters_are_not_hebrew():
    line = "הדפיסו Old Mill Press בעיר"
    shown = [visual(one, keep=["Old Mill Press"]) for one in (*HEBREW, line)]
    assert read(lines_of(shown), **LONG_BLOCKS).text == " ".join((*HEBREW, line))


@pytest.mark.parametrize("longest", range(24, 44, 2))
def test_a_long_hebrew_line_is_cut_from_the_right_and_never_in_a_foreign_phrase(longest):
    line = " ".join((HEBREW[0], "Old Mill Press Road", HEBREW[1]))
    shown = visual(line, keep=["Old Mill Press Road"])
    texts = read(lines_of([shown]), max_block_characters=longest).texts
    assert len(texts) > 1 and " ".join(texts) == line
    assert any("Old Mill Press Road" in text for text in texts)


@pytest.mark.parametrize(
    ("line", "keep"), [("תקן PDF 15 חדש", ["PDF 15"]), ("תאריך 12.3.2024 בערב", ["12.3.2024"])]
)
def test_a_number_behind_a_foreign_word_goes_with_it(line, keep):
    assert read(lines_of([visual(line, keep=keep)])).text == line


@pytest.mark.parametrize(
    ("line", "keep"),
    [
        ("בשנים 1990 1995 בלבד", ["1990", "1995"]),
        ("מחיר 15 20 30 שקל", ["15", "20", "30"]),
    ],
)
def test_numbers_side_by_side_in_hebrew_are_read_from_the_right(line, keep):
    assert read(lines_of([visual(line, keep=keep)])).text == line


@pytest.mark.parametrize("bracket", ["()", "[]", "{}"])
@pytest.mark.parametrize("named", ["printed", "meant"])
def test_brackets_in_hebrew_open_before_they_close(bracket, named):
    line = f"סעיף {bracket[0]}ב{bracket[1]} לחוק {bracket[0]}התקף{bracket[1]} היום"
    turned = str.maketrans(bracket, bracket[::-1]) if named == "printed" else {}
    assert read(lines_of([visual(line).translate(turned)])).text == line


@pytest.mark.parametrize("line", [
    "שלום, עולם.", 'הוא אמר "שלום" לה', "מה זה?", "רח' הנמל 7/3", "טל: 03-1234567", "סעיף (2)(א)[ב]",
    "א. סעיף ראשון", "המחיר: 50% בלבד",
    "נוסד (1948) בעיר", "ראה [12-14] שם", "סעיף (15 ב) לחוק",
])  # fmt: skip
def test_numbers_in_brackets_and_ranges_in_hebrew_are_read_as_printed(line):
    keep = re.findall(r"[A-Z0-9](?:[A-Z0-9/-]*[A-Z0-9])?%?", line)
    shown = visual(line, keep=keep).translate(str.maketrans("()[]", ")(]["))
    assert read(lines_of([shown]), min_characters=1).text == line


@pytest.mark.parametrize("named", ["printed", "meant"])
def test_brackets_that_are_closed_on_the_next_line_are_not_turned(named):
    lines = ("סעיף ראשון (לפי החוק", "הישן) של העיר")
    turned = str.maketrans("()", ")(") if named == "printed" else {}
    made = read(lines_of([visual(line).translate(turned) for line in lines]), **LONG_BLOCKS)
    assert made.text == " ".join(lines)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("the word שלום means peace", "the word םולש means peace"),
        ("the words שלום עולם open it", "the words םלוע םולש open it"),
    ],
)
def test_hebrew_words_in_an_english_line_are_read_from_the_right(line, shown):
    assert read(lines_of([shown])).text == line


@pytest.mark.parametrize(
    ("line", "keep"),
    [
        ("السوق القديم في المدينة", []),
        ("في عام 1987 فتح السوق", ["1987"]),
        ("في عام ١٩٨٧ فتح السوق", ["١٩٨٧"]),
        ("طبعة Old Mill الثانية", ["Old Mill"]),
    ],
)
def test_arabic_is_read_from_the_right_and_its_numbers_from_the_left(line, keep):
    assert read(lines_of([visual(line, keep=keep)])).text == line


def test_a_glyph_of_two_arabic_letters_is_read_in_their_order():
    assert read(lines_of([["م", "لا", "س", " ", "م", "و", "ي"]])).text == "يوم سلام"


def test_a_mark_over_a_letter_read_from_the_right_stands_behind_it():
    fatha, qamats = "\u064e", "\u05b8"
    looks = {
        "boxes": {fatha: (-300, 720, -100, 850), qamats: (-300, -200, -100, -50)},
        "widths": {fatha: 0, qamats: 0},
    }
    assert read(lines_of([["ב", "ש", qamats, "ל"]], **looks), min_characters=1).text in ("לשָב", "לָשב")
    assert len(read(lines_of([["ب", fatha, "ت", "ك"]], **looks), min_characters=1).texts) == 1


def test_the_forms_of_arabic_letters_are_read_as_the_letters():
    shown = ["\ufe95", "\ufef4", "\ufe91"]  # final TEH MARBUTA.., medial YEH, initial BEH, from left to right
    assert read(lines_of([shown]), min_characters=1).text == "\u0628\u064a\u062a"


def test_columns_of_hebrew_are_read_from_the_right_one():
    columns = (
        ("הספינה יוצאת מן", "הנמל בכל יום", "ראשון בבוקר"),
        ("השוק הישן פתוח", "עד שש בערב בכל", "ימות השבוע"),
    )
    pdf, font = Pdf(), BoxFont.of("".join(line for lines in columns for line in lines))
    font.add_to(pdf, "B")
    runs = [
        text(right - 6 * len(line), 170 - 15 * row, font.shown(visual(line)), font="B")
        for right, lines in zip((370, 180), columns, strict=True)
        for row, line in enumerate(lines)
    ]
    pdf.page("".join(runs[::-1]))
    assert read(pdf.bytes(), **LONG_BLOCKS).texts == [" ".join(lines) for lines in columns]


# What is no text

GOOD = "Good words of a font that says what it shows."


def bad_and_good(meanings: Sequence[str | None], *, good: int = 1) -> Read:
    """A page of words that mean this, over lines of Helvetica."""
    pdf, font = Pdf(), BoxFont.of([*meanings, " "])
    font.add_to(pdf, "B")
    bad = text(30, 170, font.shown(meanings), font="B")
    pdf.page(bad + "".join(text(30, 120 - 20 * row, GOOD) for row in range(good)))
    return read(pdf.bytes())


PRIVATE = [chr(0xE000 + number) for number in range(30)]
MANY_SCRIPTS = [chr(code) for code in (0x41, 0x3B1, 0x416, 0x531, 0x5D0, 0x628, 0x905, 0xE01, 0x10D0, 0x4E00)]


@pytest.mark.parametrize(
    "meanings",
    [
        PRIVATE,
        ["\ufffd"] * 30,
        [chr(code) for code in range(1, 30)],
        [*(["\ufffd", "a", "\ufffd", "b"] * 8)],
        [*MANY_SCRIPTS, " ", *MANY_SCRIPTS[::-1], " ", *MANY_SCRIPTS],
        [chr(0x378), chr(0x379), chr(0xFFFF), chr(0x2FE0)] * 5,
    ],
    ids=["private use", "U+FFFD", "control codes", "half U+FFFD", "ten scripts", "no characters"],
)
def test_a_page_of_nonsense_has_no_text_and_says_why(meanings):
    made = bad_and_good(meanings, good=0)
    [page] = made.samples
    assert (page.text, page.trainable, made.reasons[UNKNOWN_LETTERS] > 0) == ("", False, True)
    assert page.reason.startswith("no usable text: ")


def test_letters_of_a_font_that_names_none_are_not_taken_for_their_codes():
    """Glyph numbers are 29 less than the codes of letters in most fonts: "The" reads as "7KH"."""
    shown = "".join(f"{ord(one) - 29:04x}" for one in "The harbour was deepened in spring")
    pdf = Pdf()
    BoxFont((None,) * 120, {}, {}).add_to(pdf, "B")
    pdf.page(text(30, 170, f"<{shown}>", font="B"))
    made = read(pdf.bytes())
    assert made.trained == "" and "7KH" not in made.text


@pytest.mark.parametrize("meanings", [PRIVATE, ["\ufffd"] * 20, [*MANY_SCRIPTS, " ", *MANY_SCRIPTS[::-1]]])
def test_one_bad_line_costs_no_good_one(meanings):
    made = bad_and_good(meanings, good=5)
    assert made.texts[-5:] == [GOOD] * 5
    assert made.trained == " ".join([GOOD] * 5)


@pytest.mark.parametrize("unknown", ["\ufffd", "\ue123", "\u0378", "\x03"])
def test_unknown_letters_are_not_in_the_text(unknown):
    [bad, *_] = bad_and_good([*"many wor", unknown, *"ds of this page"], good=3).samples
    assert (bad.text, bad.trainable) == ("many words of this page", False)


def test_a_word_of_many_scripts_is_searched_and_not_trained_on():
    [bad, *good] = bad_and_good(MANY_SCRIPTS, good=5).samples
    assert (bad.trainable, bad.reason) == (False, "a word in it is of no script")
    assert all(one.trainable for one in good)


@pytest.mark.parametrize(
    "word",
    [
        "kΩ",
        "μm",
        "СССР",
        "naïve",
        "x²",
        "日本語",
        "カタカナ語",
        "한국語",
        "Ελλάδα",
        "Đắk",
        "ǃXóõ",
        "β-carotene",
    ],
)
def test_words_of_a_language_do_not_mix_scripts(word):
    line = f"of {word} here"
    looks = wide([line]) if ord(word[0]) > 0x2000 else {}
    made = read(lines_of([line], **looks))
    assert made.trained == made.text and word in made.text


def test_a_bad_page_costs_no_good_page():
    pdf, font = Pdf(), BoxFont.of(PRIVATE)
    font.add_to(pdf, "B")
    pdf.page(text(30, 170, GOOD))
    pdf.page(text(30, 170, font.shown(PRIVATE), font="B"))
    pdf.page(text(30, 170, GOOD))
    made = read(pdf.bytes())
    assert [(one.page, one.text) for one in made.samples] == [(1, GOOD), (2, ""), (3, GOOD)]
    assert [note.page for note in made.notes] == [2]


def test_one_text_whatever_the_order_in_which_its_letters_are_drawn():
    line = "ships"
    pdf, font = Pdf(), BoxFont.of(LATIN)
    font.add_to(pdf, "B")
    letters = [at(f"1 0 0 1 {30 + 6 * n} 150", font.shown(one), font="B") for n, one in enumerate(line)]
    texts = []
    for first, second in pairwise(range(len(line))):
        drawn = [*letters[second:], *letters[first : first + 1], *letters[:first]]
        one = Pdf()
        font.add_to(one, "B")
        one.page("".join(drawn))
        texts.append(read(one.bytes()).text)
    assert set(texts) == {line}
