"""SeaHelp: only what is translated, text that is read back exactly, queries that fit their pages."""

import functools
import hashlib
import json
import re
from pathlib import Path

import pypdfium2
import pytest
from fpdf import FPDF

from benchmarks.libreoffice_help import Paragraph, _ParagraphParser
from benchmarks.sample_documents import write_corpus
from benchmarks.seahelp import build
from benchmarks.seahelp_pages import KHMER, PageSetter, break_lines, check_text_layer, make_fonts
from benchmarks.seahelp_paragraphs import split_documents
from benchmarks.syllable_font import syllables
from data_prep.config import ReadingConfig
from data_prep.lines import Line, lines_of
from data_prep.queries import read_queries
from data_prep.shards import ShardSource
from data_prep.splits import assign_splits
from data_prep.text_layer import read_words
from stages.recipes import get_recipe
from tests.unit.benchmarks.help_packages import (
    FORMULA_WITH_A_WORD,
    REPEATED,
    UNTRANSLATED,
    sentence,
    write_packages,
)
from tests.unit.data_prep.making import prepare

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    return write_packages(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def seahelp(packages, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "seahelp"
    build(packages, folder)
    return folder


@functools.cache
def pages_of(path: Path) -> list[str]:
    """Each page's text as one line without U+200B."""
    document = pypdfium2.PdfDocument(path)
    texts = [" ".join(line.text for line in lines_of(read_words(page, ReadingConfig()))) for page in document]
    document.close()
    return [text.replace("\u200b", "") for text in texts]


def queries_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "queries.jsonl").read_text("utf-8").splitlines()]


def test_built_twice_it_has_the_same_digest_and_another_text_another(packages, seahelp, tmp_path):
    first = json.loads((seahelp / "manifest.json").read_text())
    paths = {p.relative_to(seahelp).as_posix(): p for p in seahelp.rglob("*") if p.is_file()}
    del paths["manifest.json"]
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))  # as `sha256sum` writes them
    assert first["files"] == digests
    assert first["digest"] == hashlib.sha256(lines.encode()).hexdigest()
    assert first["packages"]["libreoffice-help-km"] == "1:2.3-4"
    second = build(packages, tmp_path / "again")
    assert (second["digest"], second["files"]) == (first["digest"], first["files"])
    changed = write_packages(tmp_path / "packages")
    topic = changed / "usr/share/libreoffice/help/km/text/scalc/00.html"
    topic.write_text(topic.read_text("utf-8").replace("កែ", "កៃ", 1), encoding="utf-8")
    assert build(changed, tmp_path / "changed")["digest"] != first["digest"]


@pytest.mark.parametrize("language", ["vi", "id", "km"])
def test_only_translated_paragraphs_are_set_and_all_of_them(seahelp, language):
    text = " ".join(page for path in sorted((seahelp / language).glob("*.pdf")) for page in pages_of(path))
    left_out = (UNTRANSLATED, "shift key while", FORMULA_WITH_A_WORD, "No paragraph id")
    assert not [part for part in left_out if part in text]
    found = re.sub(r"\s", "", text)
    for number in range(1, 8):
        assert re.sub(r"[\s\u200b]", "", sentence(language, "scalc/00.html", number)) in found


def test_of_repeated_paragraphs_the_one_in_the_test_stays(seahelp):
    splits = json.loads((seahelp / "splits.json").read_text())
    with_it = [p.name for p in (seahelp / "id").glob("*.pdf") if REPEATED in " ".join(pages_of(p))]
    assert len(with_it) == 1
    assert with_it[0] in splits["test"]


@pytest.mark.parametrize("language", ["vi", "id", "km"])
def test_both_kinds_of_queries_ask_once_for_the_same_paragraphs_of_the_same_pages(seahelp, language):
    own, english = queries_of(seahelp / language), queries_of(seahelp / f"{language}-from-en")
    place = ("document", "page", "split", "identity")
    assert [[q[name] for name in place] for q in own] == [[q[name] for name in place] for q in english]
    for queries in (own, english, queries_of(seahelp / "en")):
        assert queries and len({query["query"] for query in queries}) == len(queries)
    for path in (seahelp / language).glob("*.pdf"):
        assert (seahelp / f"{language}-from-en" / path.name).read_bytes() == path.read_bytes()
        images = list((seahelp / "images" / language).glob(f"{path.stem}-*.png"))
        assert len(images) == len(pages_of(path))


@pytest.mark.parametrize("language", ["vi", "km"])
def test_a_query_names_the_page_of_its_paragraph_and_does_not_copy_it(seahelp, language):
    english_queries = queries_of(seahelp / f"{language}-from-en")
    for own, english in zip(queries_of(seahelp / language), english_queries, strict=True):
        topic, identity = own["identity"].split("#")
        number = int(re.sub(r"\D", "", identity))
        text = sentence(language, topic, number)
        page = re.sub(r"\s", "", pages_of(seahelp / language / own["document"])[own["page"] - 1])
        assert re.sub(r"[\s\u200b]", "", text) in page
        assert english["query"] == sentence("en-US", topic, number)
        assert not [query for query in (own, english) if query["query"].replace(" ", "") in page]
        assert set(own["query"].split()) <= set(re.split("[ \u200b.]", text))


@pytest.mark.parametrize("folder", ["km", "km-from-en"])
def test_lco_splits_the_folder_as_the_benchmark_says_and_asks_its_queries(seahelp, folder, tmp_path):
    prepared, _ = prepare(seahelp / folder, tmp_path, **vars(get_recipe("tiny").documents))
    splits = json.loads((seahelp / "splits.json").read_text())
    for name in SPLITS:
        source = ShardSource(getattr(prepared, name).path)
        documents = {source[position].document for position in range(len(source))}
        assert documents == set(splits[name]) & {path.name for path in (seahelp / folder).glob("*.pdf")}
    asked = {query.text for query in read_queries(prepared.test_queries.path)}
    assert asked == {query["query"] for query in queries_of(seahelp / folder) if query["split"] == "test"}


@pytest.mark.parametrize("recipe", ["small", "paper-3b"])
def test_no_recipe_trains_on_validation_or_test_documents(recipe):
    documents, config = [f"shared-{number:03d}.pdf" for number in range(200)], get_recipe(recipe).documents
    made = assign_splits(
        documents, test_share=config.test_share, validation_share=config.validation_share, seed=config.seed
    )
    said = split_documents(documents)
    assert {said[name] for name in documents if made[name] == "train"} == {"train"}
    assert {made[name] for name in documents if said[name] == "test"} == {"test"}


def test_a_missing_package_is_named_and_nothing_is_written(packages, tmp_path):
    with pytest.raises(FileNotFoundError, match="libreoffice-help-en-us"):
        build(tmp_path / "elsewhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [build, lambda _, folder: write_corpus(folder, {}, [], folder)])
def test_a_folder_that_exists_is_left_alone(packages, tmp_path, make):
    """A name that somebody gave by mistake costs no document."""
    (tmp_path / "thesis.pdf").write_text("years of work")
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        make(packages, tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["years of work"]


def khmer_lines(packages: Path, folder: Path, text: str) -> list[str]:
    """Set a text as a PDF, check it, and read its lines back."""
    make_fonts(KHMER, packages / "usr/share/fonts/truetype/noto", folder, [text])
    setter = PageSetter("test", KHMER, folder)
    setter.add(Paragraph(identity="par_id1", is_title=False, text=text))
    setter.write(folder / "out.pdf")
    check_text_layer(folder / "out.pdf", [text])
    page = pypdfium2.PdfDocument(folder / "out.pdf")[0]
    return [line.text for line in lines_of(read_words(page, ReadingConfig()))]


def test_khmer_comes_back_from_the_pdf_character_by_character(packages, tmp_path):
    # Vowels that are drawn before their consonant, stacked subscripts, Latin and digits between.
    text = ("កែ\u200bស្ត្រី\u200bសៀវភៅ (Ctrl+2) ជ្រើស\u200bលើ\u200bក្នុង ។ " * 4).strip()
    lines = khmer_lines(packages, tmp_path, text)
    assert len(lines) > 2 and any("\u200b" in line for line in lines)
    # A line ends at a space or U+200B, which the line break stands for.
    read, written = (re.sub("[ \u200b]+", " ", part) for part in (" ".join(lines), text))
    assert read == written


def test_a_page_that_begins_with_latin_loses_no_line(packages, tmp_path):
    khmer = "\u200b".join(["កែ", "ស្ត្រី", "សៀវភៅ", "ជ្រើស", "លើ"])
    assert len(khmer_lines(packages, tmp_path, f"Name ៖ {khmer} DLL {khmer} LibreOffice Basic ។")) > 1


def test_a_damaged_text_layer_is_refused(tmp_path):
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", "", 11)
    pdf.text(20, 20, "One text")
    pdf.output(str(tmp_path / "out.pdf"))
    check_text_layer(tmp_path / "out.pdf", ["One", "text"])
    with pytest.raises(ValueError, match=r"out\.pdf: the text layer is not the text"):
        check_text_layer(tmp_path / "out.pdf", ["Another text"])


def width_of(text: str) -> int:
    return len(list(syllables(text.strip("\u200b"))))


def test_khmer_lines_break_at_its_spaces_and_never_inside_a_syllable_or_before_a_full_stop():
    assert list(syllables("ស្ត្រី\u200bកែ A១")) == ["ស្ត្រី", "\u200b", "កែ", " ", "A", "១"]
    words = ["ក្នុង", "ស្ត្រី", "សៀវភៅ", "ត្រូវ" * 6]
    # A word wider than a line fills it up, syllable by syllable.
    lines = ["\u200b".join([*words[:3], "ត្រូវ"]), "ត្រូវ" * 4, "ត្រូវ ។"]
    assert break_lines("\u200b".join(words) + " ។", 8, width_of) == lines
    assert break_lines("\u200b".join(words[:3]), 5, width_of) == ["\u200b".join(words[:2]), words[2]]
    assert break_lines("ក ខ\u200bគ ។ ឃ ៖", 5, len) == ["ក ខ", "គ ។", "ឃ ៖"]


def test_a_crop_of_khmer_reaches_below_its_subscripts():
    line = Line(text="ក្នុង", left=0, right=9, baseline=100, size=10, is_bold=False)
    latin = Line(text="Trang", left=0, right=9, baseline=100, size=10, is_bold=False)
    # The deepest ink of Noto Sans Khmer lies 0.563 em below the line.
    assert line.bottom < 100 - 5.63
    assert latin.bottom == 97.5


@pytest.mark.parametrize(
    ("one_wording", "expected"), [(True, "Press Ctrl+Z."), (False, "Press Command Ctrl+Z.")]
)
def test_of_wordings_by_platform_the_default_is_kept(one_wording, expected):
    parser = _ParagraphParser(one_wording=one_wording)
    parser.feed(
        '<p id="par_id1">Press <span class="switchinline"><span hidden="true" id="MAC1" class="MAC">'
        '<span class="keycode">Command </span></span><span hidden="true" id="defaulttext1">'
        '<span class="keycode">Ctrl</span></span></span>+Z.</p>'
    )
    assert [paragraph.text for paragraph in parser.paragraphs] == [expected]
