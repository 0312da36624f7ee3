"""The report: complete, self-contained, and deaf to what documents and file names try to inject."""

import html.parser
import json
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from stages.law.cells import name_of
from stages.law.figures import draw_figures, figure_data
from stages.law.report import Report, render_report, without_places
from stages.law.samples import data_uri, sample_pages, sample_searches, transcription
from stages.law.verdict import judge
from stages.recipes import LawConfig
from tests.unit.stages.law.conftest import read_run

LAW = LawConfig(bootstrap_resamples=300)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}</title>"


def report_of(illustrated, law=LAW, **changes):
    run, image_of, inventories = illustrated
    evidence = read_run(run)
    verdict = judge(evidence, law)
    data = figure_data(verdict, evidence, run.retrieval)
    content = {
        "verdict": verdict,
        "evidence": evidence,
        "data": data,
        "figures": draw_figures(data),
        "pages": sample_pages(run.generation, image_of, 6),
        "searches": sample_searches(run.retrieval, "text-only", image_of, count=5, images=4),
        "inventories": inventories,
        "provenance": {"recipe": "tiny", "date": "2026-01-02 03:04 UTC", "machine": "2 CPU cores"},
        "documents": "help-pages",
        "recipe": {"name": "tiny", "documents": "/home/somebody/private/pages"},
    }
    return Report(**(content | changes))


@pytest.fixture(scope="module")
def report(illustrated):
    return report_of(illustrated)


@pytest.fixture(scope="module")
def page(report):
    return render_report(report)


class Outline(html.parser.HTMLParser):
    """Collects tags and the attributes that could reach outside."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.links, self.handlers, self.open = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "action")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_verdict_and_decision_come_first(page, report):
    assert report.verdict.verdict == "supported"
    assert page.index('class="badge">Supported') < page.index("<table>")
    assert page.index(report.verdict.decision[:40]) < page.index("<table>")


def test_page_is_well_formed_and_self_contained(page):
    outline = Outline(page)
    assert outline.open == []
    assert all(link.startswith("data:image/png;base64,") for link in outline.links)
    assert not {"script", "link", "iframe", "object", "form"} & set(outline.tags)
    assert "url(" not in page and "@import" not in page


def test_numbers_thresholds_files_and_reasons_are_on_the_page(page, report):
    files = ("encrypted: it needs a password", "old/scan.pdf", "the scores are optimistic", "notes.docx")
    rest = (
        "2026-01-02 03:04 UTC",
        "BM25 on the text layer",
        "multimodal-20",
        "2,400",
        "minimum_times_random",
    )
    for expected in (*files, *rest):
        assert expected in page
    for check in report.verdict.checks:
        assert check.required in page
    assert page.count('class="page"') == 6 and page.count('class="search"') == 5


def test_what_was_tested_is_at_the_top(page):
    top = page[: page.index("<table>")]
    assert "help-pages, 25 documents · recipe tiny · 2026-01-02" in top
    assert "400 queries against 400 pages of 100 documents, drawn from all 105 test pages" in top


def test_private_folders_are_left_out(page):
    assert "somebody" not in page and "pages" in page
    project = Path(__file__).parents[4]
    recipe = {"a": {"location": str(project / "stages" / "base")}, "b": "org/model", "c": "/elsewhere/mine"}
    assert without_places(recipe) == {"a": {"location": "stages/base"}, "b": "org/model", "c": "mine"}


def test_a_layer_of_identical_vectors_is_left_out_and_named(page, report):
    assert {row["mutual_knn"] for row in report.data["geometry"] if row["layer"] == 0} == {None}
    assert "Layer 0 is left out: all its vectors are identical" in page


def test_searches_run_from_the_largest_gain_to_the_largest_loss(illustrated):
    run, image_of, _ = illustrated
    searches = sample_searches(run.retrieval, "text-only", image_of, count=3, images=4)
    assert [search.ranks for search in searches] == ["rank 5 → 1", "rank 5 → 1", "rank 1 → 9"]
    assert searches[0].answer.startswith("data:image/png;base64,")


def test_hostile_documents_stay_text(illustrated, report):
    run, image_of, inventories = illustrated
    cells = json.loads(json.dumps([run.generation, run.retrieval]))
    for cell in cells[0]:
        for example in cell["corpora"]["target"]["examples"]:
            example["text"], example["decoded"] = HOSTILE, HOSTILE.replace("alert", "alort")
    for cell in cells[1]:
        for example in cell["examples"]:
            example["query"] = HOSTILE
    bad = {
        "path": HOSTILE,
        "status": "quarantined",
        "reason": HOSTILE,
        "pages": 0,
        "samples": 0,
        "splits": [],
    }
    good = bad | {"status": "used", "reason": None, "splits": [HOSTILE]}
    hostile = {"documents": [bad, good], "unsupported": [HOSTILE], "warnings": [HOSTILE]}
    inventory = inventories["base"] | hostile
    page = render_report(
        replace(
            report,
            pages=sample_pages(cells[0], image_of, 2),
            searches=sample_searches(cells[1], "text-only", image_of, count=2, images=2),
            inventories={"target": inventory, "base": inventories["base"]},
            provenance=report.provenance | {HOSTILE: HOSTILE},
            recipe={"name": HOSTILE},
        )
    )
    outline = Outline(page)
    assert outline.open == [] and outline.handlers == []
    assert not {"script"} & set(outline.tags) and len(outline.links) == len(re.findall("src=.data:", page))
    assert "<script" not in page and "{{ 7*7 }}" in page
    assert page.count("</title>") == 1


def test_a_cell_is_named_by_what_tells_it_apart():
    assert name_of("generation", {"dose": 4800, "seed": None, "arm": None}) == "generation, dose 4,800"
    plain = {"dose": 0, "pages": "target", "seed": 0, "arm": "text-only", "steps": 30, "split": "test"}
    assert name_of("retrieval", plain) == "retrieval, dose 0, seed 0, text-only, 30 steps"
    control = plain | {"pages": "shuffled", "split": "validation"}
    assert name_of("retrieval", control) == (
        "retrieval, dose 0, shuffled pages, seed 0, text-only, 30 steps, validation split"
    )


def test_images_must_be_images():
    with pytest.raises(ValueError, match="PNG or JPEG"):
        data_uri(b"<svg onload=alert(1)>")
    assert data_uri(b"\xff\xd8\xff\xe0").startswith("data:image/jpeg;base64,")


def test_wrong_and_missing_characters_are_marked():
    read = transcription(7, "Tai lieu X", "Tài liệu")
    assert read.pieces == (
        ("equal", "T"), ("wrong", "a"), ("equal", "i li"), ("wrong", "e"), ("equal", "u"), ("wrong", " X"),
    )  # fmt: skip
    assert read.error_rate == pytest.approx(4 / 8)
    assert transcription(0, "", "abc").pieces == (("missing", "abc"),)
    assert transcription(0, "abc", "abc").error_rate == 0
    long = transcription(0, "x" * 5000, "y")
    assert sum(len(text) for _, text in long.pieces) <= 400 and long.error_rate == 5000 and long.cut


def test_what_was_written_after_the_shown_part_is_not_missing():
    page = "Một đoạn văn bản dài. " * 100
    right = transcription(0, page, page)
    assert right.pieces == (("equal", page[:400]),) and right.cut and right.error_rate == 0
    read = transcription(0, "x" + page[1:1000], page)
    assert [kind for kind, _ in read.pieces] == ["wrong", "equal"]
    assert read.error_rate == pytest.approx((1 + len(page) - 1000) / len(page))
    nothing = transcription(0, "", page)
    assert nothing.pieces == (("missing", page[:400]),) and nothing.error_rate == 1
    assert not transcription(0, "a", "a").cut


def test_characters_are_compared_in_one_normal_form():
    text = "Chèn một bảng tính"
    read = transcription(0, unicodedata.normalize("NFD", text), text)
    assert read.error_rate == 0 and read.pieces == (("equal", text),)


def test_samples_come_in_order_from_lowest_and_highest_dose(illustrated):
    run, image_of, _ = illustrated
    pages = sample_pages(run.generation, image_of, 3)
    assert [page.key for page in pages] == ["k0", "k1", "k2"]
    assert [read.dose for read in pages[0].transcriptions] == [0, 2400]
    searches = sample_searches(run.retrieval, "text-only", image_of, count=2, images=3)
    assert [label for label, _, _ in searches[0].results] == ["dose 0", "dose 2,400"]
    assert [hit.relevant for hit in searches[0].results[1][2]] == [True, False, False]


def test_long_lists_are_cut(illustrated, report):
    inventories = illustrated[2]
    many = [
        {"path": f"f{i}", "status": "quarantined", "reason": "empty", "pages": 0, "samples": 0, "splits": []}
        for i in range(500)
    ]
    target = inventories["target"] | {"documents": many}
    page = render_report(replace(report, inventories=inventories | {"target": target}))
    assert "… and 301 more" in page and "f499" not in page


def test_figures_are_reproducible_and_survive_extremes(illustrated, simulate, report):
    run = illustrated[0]
    evidence = read_run(run)
    verdict = judge(evidence, LAW)
    data = figure_data(verdict, evidence, run.retrieval)
    first, second = (draw_figures(data) for _ in range(2))
    assert first == second
    assert set(first) == {"dose_response", "law", "generation", "geometry"}
    lonely = simulate(strengths=(1.0,), doses=(0,), losses=(0.5,), seeds=(3,), queries=5)
    evidence = read_run(lonely)
    for cell in lonely.retrieval:
        cell["geometry"], cell["chance_mutual_knn"] = [], None
    verdict = judge(evidence, LAW)
    data = figure_data(verdict, evidence, lonely.retrieval)
    figures = draw_figures(data)
    assert figures.keys() == data.keys() == first.keys() - {"geometry"}
    smallest = replace(report, evidence=evidence, verdict=verdict, data=data, figures=figures)
    assert "Geometry by layer" not in render_report(smallest)


@pytest.mark.parametrize(
    ("strengths", "word"), [((1.0, 1.0, 1.0, 1.08), "inconclusive"), ((1.6, 1.2, 0.9, 0.5), "not supported")]
)
def test_other_verdicts_render(simulate, illustrated, strengths, word):
    run = simulate(strengths=strengths, queries=110 if word == "inconclusive" else 400)
    page = render_report(report_of((run, illustrated[1], illustrated[2]), pages=(), searches=()))
    assert f'class="verdict {word.replace(" ", "-")}"' in page
    assert "✗ not shown</td>" in page and "✗ no<" not in page
