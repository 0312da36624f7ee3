"""`lco inspect` as a person, a program and a browser see it."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from data_prep.config import DocumentsConfig
from data_prep.inspecting import Inspected, Written
from data_prep.samples import PageNote, Sample, sample_key
from pipelines.cli import main
from pipelines.inspect import alike, lines_of
from pipelines.inspect_model import model_folder
from pipelines.inspect_pages import PagesFolder
from pipelines.parameters import BadParameter
from stages.recipes import get_recipe
from tests.unit.data_prep.making import encrypted_pdf, prose, write_pdf

ROOT = Path(__file__).parents[3]
CONFIG = DocumentsConfig().reading
BLOCK_KEYS = {"document", "page", "block", "text", "box", "ink", "trainable", "reason"}
HOSTILE = '"><script>alert(1)</script><img src=x onerror="alert(2)"> {{ 7 * 7 }}'


def sample(
    text: str, *, page: int = 1, block: int = 0, reason: str | None = None, png: bytes = b""
) -> Sample:
    return Sample(
        key=sample_key("a.pdf", page, block), document="a.pdf", page=page, block=block, text=text, png=png,
        is_heading=False, box=(0, 10, 100, 20), ink=(0, 255), reason=reason, width=100, height=10,
    )  # fmt: skip


@pytest.fixture
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a/one.pdf of two pages, b/one.pdf of one, b/locked.pdf, b/notes.odt."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    write_pdf(tmp_path / "a" / "one.pdf", [prose(1, lines=2), [*prose(2, lines=2), (20, 200, "x")]])
    write_pdf(tmp_path / "b" / "one.pdf", [prose(3, lines=2)])
    encrypted_pdf(tmp_path / "b" / "locked.pdf")
    (tmp_path / "b" / "notes.odt").touch()
    return tmp_path


def command(*arguments: str, **options) -> subprocess.CompletedProcess[bytes]:
    """The command as a process of its own, in the current folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LCO_PROCESSES": "2"} | options.pop("env", {})
    whole = [sys.executable, "-m", "pipelines.cli", "inspect", *arguments]
    return subprocess.run(whole, env=environment, capture_output=True, timeout=120, **options)


def test_json_lines_are_all_that_is_on_standard_output(documents):
    said = command("a", "b", "no.pdf", "--json", env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert said.returncode == 0
    lines = [json.loads(line) for line in said.stdout.decode().splitlines()]
    blocks = [line for line in lines if "block" in line]
    assert all(line.keys() == BLOCK_KEYS for line in blocks)
    assert [(line["document"], line["page"], line["block"]) for line in blocks] == [
        *(("a/one.pdf", 1, block) for block in range(2)),
        *(("a/one.pdf", 2, block) for block in range(3)),
        *(("b/one.pdf", 1, block) for block in range(2)),
    ]
    assert blocks[0]["text"] == prose(1, lines=2)[0][2]
    left, top, right, bottom = blocks[0]["box"]
    assert 0 < left < right < 210 / 25.4 * 96 and 0 < top < bottom < 297 / 25.4 * 96
    assert blocks[0]["ink"] == [0, 255]
    [short] = [line for line in blocks if not line["trainable"]]
    assert (short["text"], short["reason"]) == ("x", "less than 4 characters")
    assert [line for line in lines if "block" not in line] == [
        {"document": "b/locked.pdf", "page": None, "reason": "encrypted: needs a password"},
        {"document": "no.pdf", "page": None, "reason": "cannot be read: No such file or directory"},
        {"document": "b/notes.odt", "page": None, "reason": "neither a PDF nor a page image"},
    ]
    assert b"read 4 document(s), 3 page(s)" in said.stderr
    assert {path.name for path in documents.iterdir()} == {"a", "b"}, "it left something behind"


def test_letters_are_utf8_on_a_terminal_of_ascii(documents):
    (documents / "trang đọc.pdf").write_bytes((documents / "b" / "one.pdf").read_bytes())
    said = command("trang đọc.pdf", "--json", env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert "trang đọc.pdf" in said.stdout.decode()


@pytest.mark.chaos
def test_a_reader_that_goes_away_ends_it_quietly(documents):
    line = f"{sys.executable} -m pipelines.cli inspect a b --json; echo status $? >&2"
    said = subprocess.run(
        ["sh", "-c", f"({line}) | true"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert said.stderr.splitlines()[-1] == "status 0"
    assert all(re.search(r"reading documents|status", one) for one in said.stderr.splitlines())


@pytest.mark.chaos
def test_a_full_disk_is_an_error(documents):
    line = f"{sys.executable} -m pipelines.cli inspect a --json >/dev/full"
    said = subprocess.run(
        ["sh", "-c", line],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert said.returncode == 1
    last = said.stderr.splitlines()[-1]
    assert last == "lco: no space left on device: standard output: free space and run again"


def test_no_program_of_the_inspection_loads_torch_or_prefect(documents):
    said = command("b/one.pdf", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert said.returncode == 0 and b"pypdfium2" in said.stderr
    assert not re.search(rb"\| +(torch|prefect|mlflow|deepspeed|transformers)\n", said.stderr)


def test_the_screen_has_a_row_a_document_totals_and_what_to_do(documents, capsys, monkeypatch):
    assert main(["inspect", "a", "b"]) == 0
    shown = capsys.readouterr().out
    rows = {row.split("│")[1].strip(): row.split("│")[2:-1] for row in shown.splitlines() if row[0] == "│"}
    numbers = {name: [cell.strip() for cell in cells] for name, cells in rows.items()}
    assert numbers["a/one.pdf"] == ["2", "5", "4"]
    assert numbers["b/one.pdf"] == ["1", "2", "2"]
    assert numbers["b/locked.pdf"] == ["–", "–", "–"]
    assert "refused: encrypted: needs a password" in numbers
    assert numbers["3 documents"] == ["3", "7", "6"]
    assert "1  less than 4 characters" in shown
    assert "1  encrypted: needs a password (save a copy that needs no password)" in shown
    assert "Not documents (files):\n        1  neither a PDF nor a page image\n" in shown
    assert "--html FOLDER" in shown


def test_reasons_that_differ_in_numbers_are_counted_together():
    reasons = {"7 of 9 letters": 2, "less than 4 characters": 1, "17 of 1,900 letters": 3}
    assert alike(reasons) == {"… of … letters": 5, "less than 4 characters": 1}


def test_names_and_reasons_are_no_markup(documents, capsys):
    name = "[red]a[bold] [link=file:x].pdf"
    (documents / name).touch()
    assert main(["inspect", name]) == 1
    assert name in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["no.pdf"], ["b/locked.pdf"], ["b/notes.odt"], ["no.pdf", "--json"]])
def test_the_exit_status_is_1_where_nothing_could_be_read(documents, arguments, capfd):
    assert main(["inspect", *arguments]) == 1


@pytest.mark.parametrize("arguments", [[], [""], ["a", "--html", "a/seen"], ["a", "--html", "b"]])
def test_what_cannot_be_asked_for_is_refused_before_anything_is_read(documents, arguments, capsys):
    assert main(["inspect", *arguments]) == 2
    assert capsys.readouterr().err.startswith("lco: ")
    assert sorted(os.listdir("b")) == ["locked.pdf", "notes.odt", "one.pdf"]


def test_the_unit_is_the_recipes_or_the_one_that_is_asked_for(documents, capfd):
    def blocks(*arguments: str) -> list[int | None]:
        assert main(["inspect", "b/one.pdf", "--json", *arguments]) == 0
        return [json.loads(line)["block"] for line in capfd.readouterr().out.splitlines()]

    assert blocks() == [0, 1]
    assert blocks("--unit", "page") == blocks("--recipe", "paper-3b") == [None]
    assert blocks("--unit", "block", "--recipe", "paper-3b") == [0, 1]


def test_refused_pages_and_text_that_is_left_out_are_lines_of_their_own():
    parts = [
        PageNote(page=1, left_out={"white": 3}),
        sample("đọc", reason="less than 4 characters"),
        PageNote(page=2, refused="no area", left_out={"turned": 1}),
    ]
    assert list(lines_of(Inspected(name="a.pdf", parts=parts))) == [
        {"document": "a.pdf", "page": 1, "left_out": {"white": 3}},
        {
            "document": "a.pdf", "page": 1, "block": 0, "text": "đọc", "box": (0, 10, 100, 20),
            "ink": (0, 255), "trainable": False, "reason": "less than 4 characters",
        },
        {"document": "a.pdf", "page": 2, "reason": "no area"},
        {"document": "a.pdf", "page": 2, "left_out": {"turned": 1}},
    ]  # fmt: skip


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        return [given for _, given in self.tags if name in (given.get("class") or "").split()]


def test_every_page_is_shown_with_its_boxes_and_nothing_from_elsewhere(documents, capsys):
    assert main(["inspect", "a", "b", "--html", "seen"]) == 0
    assert f"{documents}/seen/index.html" in capsys.readouterr().out
    index = Page(documents / "seen" / "index.html")
    pages = [given["href"] for tag, given in index.tags if tag == "a"]
    assert len(pages) == 2 and "encrypted: needs a password" in index.text and "b/notes.odt" in index.text
    page = Page(documents / "seen" / pages[0])
    sources = [given["src"] for tag, given in page.tags if tag == "img"]
    assert len(sources) == 2 and all((documents / "seen" / source).is_file() for source in sources)
    assert [given["title"].split("\n")[0] for given in page.of_class("box")][4] == "x"
    assert len(page.of_class("searched")) == 2 + 1, "a box, its text, and the key"
    for shown in (index, page):
        assert not {"script", "iframe", "link", "object"} & {tag for tag, _ in shown.tags}
        addresses = [given[name] for _, given in shown.tags for name in ("src", "href") if name in given]
        assert not [one for one in addresses if ":" in one or one.startswith("/")]
        [policy] = [given["content"] for _, given in shown.tags if given.get("http-equiv")]
        assert policy.startswith("default-src 'none'; img-src 'self' file:;")


def test_text_of_a_document_is_never_more_than_text(tmp_path):
    folder = PagesFolder.new(tmp_path / "seen", documents=[], config=CONFIG)
    parts = [sample(HOSTILE, reason=HOSTILE), PageNote(page=2, refused=HOSTILE, left_out={HOSTILE: 3})]
    document = Inspected(name=HOSTILE, parts=parts)
    folder.add(document, [sample("", png=b"a picture")])
    folder.finish([document.outcome(), Inspected(name=HOSTILE, reason=HOSTILE).outcome()], [])
    for name in ("index.html", "document-00001.html"):
        page = Page(tmp_path / "seen" / name)
        assert not [given for _, given in page.tags if "onerror" in given]
        assert "script" not in {tag for tag, _ in page.tags} and "<script>" in page.text
        assert "{{ 7 * 7 }}" in page.text


def test_what_a_model_writes_stands_beside_the_text(tmp_path):
    """Of `đọc trang` it writes two wrong letters and leaves one out; the second block has no text."""
    read, silent = sample("đọc trang"), sample("", block=1, reason="no text")
    document = Inspected(
        name="a.pdf",
        parts=[read, silent],
        written={
            read.key: Written(text="doc tran", wanted="đọc trang", edits=3),
            silent.key: Written(text="\u202e", wanted="", edits=1),
        },
    )
    assert [line["written"] for line in lines_of(document)] == ["doc tran", "\\u202e"]
    summary = document.summary()
    assert (summary.compared, summary.wrong) == (9, 3)
    folder = PagesFolder.new(tmp_path / "seen", documents=[], config=CONFIG)
    folder.add(document, [sample("", png=b"a picture")])
    folder.finish([document.outcome()], [])
    page = Page(tmp_path / "seen" / "document-00001.html")
    assert [given["title"] for given in page.of_class("missing") if "title" in given] == ["missing: g"]
    assert len(page.of_class("wrong")) == 1 + 1, "the key, and two letters"
    assert "33% wrong" in page.text and page.text.count("% wrong") == 1
    assert "33.3%" in Page(tmp_path / "seen" / "index.html").text


def test_a_base_model_reads_the_blocks(documents, capfd):
    base = get_recipe("tiny").backbone.location
    assert main(["inspect", "b/one.pdf", "--json", "--model", base]) == 0
    blocks = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert all(one["written"] for one in blocks)
    assert main(["inspect", "a", "b/one.pdf", "--model", base]) == 0
    shown = capfd.readouterr().out
    assert "Wrong" in shown and re.search(r"\d\.\d%", shown)


def test_a_model_may_be_the_last_checkpoint_of_a_run_on_the_targets_pages(tmp_path):
    for number, pages in enumerate(["target", "target", "shuffled"]):
        folder = tmp_path / "store" / "pretrain" / str(number)
        (folder / "model").mkdir(parents=True)
        manifest = folder / "manifest.json"
        manifest.write_text(json.dumps({"configuration": {"cell": {"pages": pages}}}))
        os.utime(manifest, (number, number))
    assert model_folder(tmp_path) == tmp_path / "store" / "pretrain" / "1" / "model"
    (tmp_path / "config.json").touch()
    assert model_folder(tmp_path) == tmp_path


@pytest.mark.parametrize(
    "damage",
    [
        {"config.json": None},
        {"config.json": "{}"},
        {"config.json": '{"model_type": "bert"}'},
        {"model.safetensors": "cut"},
        {"embedding.json": "{"},
        {"chat_template.jinja": None},
    ],
    ids=str,
)
def test_a_model_that_cannot_be_opened_is_refused_before_anything_is_read(documents, damage, capsys):
    shutil.copytree(get_recipe("tiny").backbone.location, "model")
    for name, content in damage.items():
        Path("model", name).unlink() if content is None else Path("model", name).write_text(content)
    assert main(["inspect", "b/one.pdf", "--model", "model"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines()[-1].startswith("lco: model ")


def test_an_earlier_inspection_is_replaced_and_nothing_else(documents, capsys):
    assert main(["inspect", "a", "b", "--html", "seen"]) == 0
    assert main(["inspect", "b/one.pdf", "--html", "seen"]) == 0
    assert sorted(path.name for path in (documents / "seen").rglob("*")) == [
        "document-00001", "document-00001.html", "index.html", "page-00001.png"
    ]  # fmt: skip


OTHERS = ["index.html", "document-00001.html", "document-00001/page-00001.png", "my.txt"]


@pytest.mark.parametrize("name", OTHERS)
def test_a_folder_of_somebody_elses_is_left_alone(tmp_path, name):
    write_and_refuse(tmp_path, name)


@pytest.mark.parametrize("name", ["my.txt", "document-00001/mine.png", "document-00001/deep/page-00001.png"])
def test_a_file_of_somebody_elses_in_an_earlier_inspection_keeps_all_of_it(tmp_path, name):
    PagesFolder.new(tmp_path, documents=[], config=CONFIG)
    write_and_refuse(tmp_path, name)


def write_and_refuse(folder: Path, name: str) -> None:
    """Write a file into the folder, which is then no place for an inspection."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("<p>mine</p>")
    before = sorted(folder.rglob("*"))
    with pytest.raises(BadParameter, match="name a new or empty folder"):
        PagesFolder.new(folder, documents=[], config=CONFIG)
    assert sorted(folder.rglob("*")) == before and (folder / name).read_text() == "<p>mine</p>"
