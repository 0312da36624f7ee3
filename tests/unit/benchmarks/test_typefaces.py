"""PDFs in many typefaces: none that is tested is trained on, the same bytes again, text that is read back."""

import ctypes
import random
from pathlib import Path

import pypdfium2
import pypdfium2.raw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress

from benchmarks import typeface_fonts, typeface_texts
from benchmarks.seahelp_pages import check_text_layer
from benchmarks.typeface_documents import Faces, write_test, write_train
from benchmarks.typeface_fonts import LETTERS, LIGATURES, find_faces, held_out, training_faces
from benchmarks.typeface_pages import Supply
from benchmarks.typeface_setting import Columns, Setter, Style
from benchmarks.typeface_texts import Texts, clean, is_held_out
from benchmarks.typeface_words import cell_text, pseudo_code, pseudo_text
from stages.backbones.tiny import ALPHABET
from tests.unit.benchmarks.help_packages import sentence, write_font, write_packages
from tests.unit.data_prep.making import WORDS

TRAINED = ["Gentium", "Plain Sans", "Latin Modern Sans", "LM Mono 10", "Nimbus Roman"]
TESTED = {
    "linuxlibertine": "Linux Libertine O",
    "opensans": "Open Sans",
    "lmroman": "Latin Modern Roman",
    "cmu": "CMU Serif",
    "freefont": "FreeSerif",
}
TEXTS = Texts(
    paragraphs=[" ".join(random.Random(n).choices(WORDS, k=4 + n % 60)).capitalize() for n in range(300)],
    code=[f"    if (word{n} == {n}) {{ return office[{n}]; }}  // waffle" for n in range(60)],
)


@pytest.fixture(scope="module")
def fonts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fonts")
    for family in [*TRAINED, *TESTED.values(), "Open Sans Condensed", "CMU Typewriter Text"]:
        write_font(folder / f"{family}.ttf", [*LETTERS, *LIGATURES])
    write_font(folder / "Only Capitals.ttf", [chr(code) for code in range(0x20, 0x60)])
    write_font(folder / "Gentium Small Caps.ttf", [*LETTERS])
    (folder / "broken.ttf").write_bytes(b"no font")
    return folder


@pytest.fixture(scope="module")
def written(fonts, tmp_path_factory) -> list[Path]:
    return [write(fonts, tmp_path_factory.mktemp("documents")) for _ in range(2)]


def write(fonts: Path, folder: Path) -> Path:
    faces, made = find_faces(fonts), Faces(folder / "faces")
    with Progress(disable=True) as progress:
        write_train(folder / "train", 40, faces, TEXTS, made, 0, progress)
        write_test(
            folder / "test", italic=False, faces=faces, texts=TEXTS, made=made, seed=0, progress=progress
        )
    return folder


def test_only_latin_text_faces_are_found_and_the_held_out_ones_are_not_trained_on(fonts):
    faces = find_faces(fonts)
    assert sorted(face.family for face in training_faces(faces)) == sorted(TRAINED)
    assert len(faces) == len(TRAINED) + len(TESTED) + 2
    tested = typeface_fonts.test_faces(faces, italic=False)
    assert {key: [face.family for face in group] for key, group in tested.items()} == {
        key: [family] for key, family in TESTED.items()
    }


@pytest.mark.parametrize(
    ("family", "kept_for"),
    [
        ("Linux Biolinum O", "linuxlibertine"),
        ("Libertinus Serif", "linuxlibertine"),
        ("OpenSans", "opensans"),
        ("LM Roman 10", "lmroman"),
        ("LMRoman12", "lmroman"),
        ("Latin Modern Math", "lmroman"),
        ("BabelStone Modern", "lmroman"),
        ("CMU Concrete", "cmu"),
        ("Free Mono", "freefont"),
        ("FREESERIF", "freefont"),
        ("Tlwg Mono", "freefont"),
        ("LM Sans 10", None),
        ("Latin Modern Mono Prop", None),
        ("Noto Sans", None),
    ],
)
def test_a_renamed_family_is_known_by_how_its_name_begins(family, kept_for):
    assert held_out(family) == kept_for


def test_every_family_has_its_share_of_the_test_pages(written):
    pages = {path.stem: len(pypdfium2.PdfDocument(path)) for path in (written[0] / "test").glob("*.pdf")}
    assert {name.split("-")[0] for name in pages} == set(TESTED)
    assert min(pages.values()) >= 8
    assert max(pages.values()) <= 11


def test_training_documents_are_set_in_no_held_out_face(written):
    used = {name for path in (written[0] / "train").glob("*.pdf") for name in font_names(path)}
    assert used <= {family.replace(" ", "") for family in TRAINED}
    assert len(used) > 2


def font_names(path: Path) -> set[str]:
    """As the PDF names them, without the mark of a subset."""
    names = set()
    for page in pypdfium2.PdfDocument(path):
        for piece in page.get_objects(filter=[pypdfium2.raw.FPDF_PAGEOBJ_TEXT]):
            buffer = ctypes.create_string_buffer(100)
            pypdfium2.raw.FPDFFont_GetBaseFontName(pypdfium2.raw.FPDFTextObj_GetFont(piece.raw), buffer, 100)
            names.add(buffer.value.decode().split("+")[-1])
    return names


def test_the_same_inputs_give_the_same_bytes(written):
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.pdf"))}
        for folder in written
    )
    assert len(first) > 5
    assert first == second


@pytest.mark.parametrize("changes", [{}, {"tracking": 1.1}, {"word_space": 0.85}, {"is_kerned": True}])
@pytest.mark.parametrize("ligatures", [False, True])
def test_the_text_layer_is_the_text_that_was_set(fonts, tmp_path, changes, ligatures):
    setter = Setter(page_points=(420, 600), title="one")
    path, _ = Faces(tmp_path).get(training_faces(find_faces(fonts))[0])
    setter.add_face("a", path, {"AV": -0.08, "of": 0.03})
    setter.start_page(Columns(lefts=(40.0,), width=300, top=30, bottom=560))
    style = Style(face="a", size=10, leading=13, has_ligatures=ligatures, **changes)
    text = "AVA office affine waffle flows ‘first’ – “second” — é ü ß £ § © × • 100 €"
    lines = setter.break_lines(style, text, 300)
    for line in lines:
        setter.put_line(style, line, width=300)
    setter.put_pieces(style, [(0, "if (a"), (25, "== b)"), (8, "{")])
    setter.write(tmp_path / "one.pdf")
    check_text_layer(tmp_path / "one.pdf", [*lines, "if (a == b) {"])
    assert " ".join(lines) == text


@given(st.integers(0, 10**6), st.integers(4, 400))
def test_pseudo_text_is_spelled_in_the_letters_of_the_documents_or_left_out(seed, length):
    rng = random.Random(seed)
    supply = Supply(Texts(paragraphs=[], code=[]), 0.65, rng)
    can_print = set(LETTERS).issuperset
    for text in (supply.paragraph(can_print), supply.code(can_print), supply.line(4, 24, can_print)):
        assert text
        assert can_print(text)
    assert pseudo_text(rng, length) and pseudo_code(rng) and cell_text(rng)


def test_the_letters_of_the_documents_are_those_that_the_model_spells():
    spelled = {chr(code) for first, last in ALPHABET for code in range(first, last + 1)}
    assert set(LETTERS) <= spelled


def test_a_line_has_as_many_characters_as_were_asked_for_and_whole_words():
    supply = Supply(TEXTS, 1.0, random.Random(1))
    for least, most in [(4, 14), (10, 24), (25, 32), (33, 48)] * 50:
        line = supply.line(least, most, lambda text: True)
        assert least <= len(line) <= most
        assert any(line.casefold() in f"{text} ".casefold() for text in TEXTS.paragraphs)


def test_each_real_paragraph_is_used_once_before_any_comes_again():
    long = [text for text in TEXTS.paragraphs if len(text) > 56]
    supply = Supply(Texts(paragraphs=long, code=[]), 1.0, random.Random(1))
    drawn = [supply.paragraph(lambda text: True) for _ in long]
    assert sorted(drawn) == sorted(long)


def test_a_held_out_source_is_never_trained_on_nor_is_one_file_in_twenty_of_the_others():
    assert is_held_out("developers-reference/any.html")
    share = sum(is_held_out(f"git-doc/{number}.html") for number in range(4000)) / 4000
    assert 0.04 < share < 0.06


def test_no_paragraph_is_both_trained_on_and_tested_and_none_is_of_the_sample_documents(
    tmp_path, monkeypatch
):
    write_packages(tmp_path)
    monkeypatch.setattr(typeface_texts, "SOURCES", {"some-doc": "usr/share/doc/some-doc/*.html"})
    folder = tmp_path / "usr/share/doc/some-doc"
    folder.mkdir(parents=True)
    sampled = sentence("en-US", "scalc/00.html", 3)
    for number in range(80):
        letter = chr(97 + number % 26)
        own = f"<p>Paragraph {letter} of <b>file</b> number {number}.</p><pre>own({number});</pre>"
        both = f"<p>Every file says so.</p><p>{sampled}</p><pre>everywhere();</pre>"
        (folder / f"{number}.html").write_text(f"<title>{number}</title>{own}{both}", encoding="utf-8")
    train, test = typeface_texts.read_texts(tmp_path)
    assert len(train.paragraphs) + len(test.paragraphs) == 81
    assert len(train.code) + len(test.code) == 81
    assert len(test.paragraphs) > 1
    assert not set(train.paragraphs) & set(test.paragraphs)
    assert not set(train.code) & set(test.code)
    assert sampled not in train.paragraphs + test.paragraphs
    assert "Paragraph b of file number 1." in train.paragraphs + test.paragraphs


def test_text_is_cleaned_of_what_no_page_shows():
    assert clean(" a\u200b  soft\xadhyphen\u2011here\n") == "a softhyphen-here"
