"""The page: complete, self-contained, and deaf to what documents and file names try to inject."""

import html.parser
import re
from dataclasses import replace

import pytest

from stages.cells import Arm
from stages.law.report import labels
from stages.law.report.figures import figure_tables
from stages.law.report.page import records
from stages.law.report.sentences import tell
from tests.unit.stages.law.conftest import INVENTORIES
from tests.unit.stages.law.report.conftest import PROVENANCE, SETTINGS, masked, page_of
from tests.unit.stages.law.sweeps import LAW, Sweep

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}</title>"


class Outline(html.parser.HTMLParser):
    """Tags, what could reach outside, text, and the cells of table rows, a value and its interval apart."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.links, self.handlers, self.open, self.rows, self.text = [], [], [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "action")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        if tag in ("tr", "td"):
            (self.rows if tag == "tr" else self.rows[-1]).append([] if tag == "tr" else "")
        elif tag == "span" and "td" in self.open:
            self.rows[-1][-1] += " "

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "td" in self.open:
            self.rows[-1][-1] += text
        if not {"style", "pre"} & set(self.open) and text.strip():
            self.text.append(" ".join(text.split()))


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_everything_on_the_page_but_its_numbers(pages, kind, snapshot):
    assert pages[kind].count('class="page"') == 6 and pages[kind].count('class="search"') == 5
    words = (masked(text) for text in Outline(pages[kind]).text)
    assert "\n".join(dict.fromkeys(text for text in words if re.search("[^\\W\\d]", text))) == snapshot


def test_verdict_decision_and_what_was_tested_come_first(pages, plain):
    top = pages["run"][: pages["run"].index("<table>")]
    assert 'class="badge">Supported' in top and tell(plain).decision in top
    assert "help-pages, 25 documents · recipe tiny · 2026-01-02" in top
    assert "400 queries against 400 pages of 100 documents, drawn from all 105 test pages" in top
    assert pages["sweep"].index("Paired differences in nDCG@10") < pages["sweep"].index("<table>")


def test_equal_findings_give_equal_pages(pages):
    assert page_of(Sweep(controls=False).find()) == pages["run"]


def test_page_is_well_formed_and_self_contained(pages):
    for html_page in pages.values():
        outline = Outline(html_page)
        assert outline.open == [] and outline.handlers == []
        assert all(link.startswith("data:image/png;base64,") for link in outline.links)
        assert not {"script", "link", "iframe", "object", "form"} & set(outline.tags)
        assert "url(" not in html_page and "@import" not in html_page


def test_tables_on_the_page_show_the_data(pages, swept):
    data = {name: records(table) for name, table in figure_tables(swept).items()}
    rows = Outline(pages["sweep"]).rows

    def shown(row, name, digits="3f", sign="", join=" – "):
        numbers = (f"{row[name + end]:{sign}.{digits}}" for end in ("", "_low", "_high"))
        value, low, high = (number.replace("-", "−") for number in numbers)
        return f"{value} {low}{join}{high}"

    for row in data["controls"]:
        texts = [labels.GROUPS[row["group"]], labels.comparison_label(row)]
        assert [*texts, shown(row, "difference", sign="+", join=" to ")] in rows
    for row in data["bound"]:
        start = [labels.GIVEN[row["kind"]], labels.PAGES[row["pages"]], f"{row['dose']:,}"]
        losses = [shown(row, "generative", "3g"), shown(row, "contrastive", "3g")]
        assert [*start, *losses] in [cells[:5] for cells in rows]
    for row in data["baselines"]:
        assert any(shown(row, "ndcg@10") in cells for cells in rows)
        assert labels.arm_label(row["arm"], row["kind"]) in [cells[0] for cells in rows if cells]
    for row in data["other_tests"]:
        assert shown(row, "ndcg@10") in [cells[4] for cells in rows if len(cells) == 8]
    (primary,) = (row for row in data["adapters"] if row["primary"])
    assert ["text-only", "16", "4", "1.5", shown(primary, "ndcg@10")] in [cells[:5] for cells in rows]


def test_a_new_metric_gets_its_column():
    run = Sweep(controls=False)
    for cell in run.cells("retrieval").values():
        for scores in (*cell["directions"].values(), *cell["baselines"].values()):
            scores["per_query"]["map@20"] = scores["per_query"]["mrr"]
    page = page_of(run.find())
    assert '<th class="n">MRR</th><th class="n">MAP@20</th>' in page
    (header,) = re.findall("<thead>[^\n]*MAP@20[^\n]*", page)
    values = next(cells for cells in Outline(page).rows if cells[:2] == ["0", "before CL"])
    assert len(re.findall("<th[ >]", header)) == len(values)


def test_what_it_cannot_know_is_said(swept):
    short = page_of(Sweep(budgets=(5, 10)).find())
    assert "0 of 4 doses show a plateau" in short and "do not determine the ceiling" in short
    assert short.count("Hard for this model") == 0
    empty = page_of(Sweep(controls=False, gain=-0.2).find())
    assert 'class="verdict not-supported"' in empty and "✗ not shown</td>" in empty and "✗ no<" not in empty
    assert "Layer 0 is left out: all its vectors are identical" in short


def test_the_controls_caption_names_each_threshold(swept):
    limits = replace(LAW, minimum_effect=0.07, maximum_explained_by_shuffled=0.33, maximum_explained=0.66)
    page = page_of(replace(swept, thresholds=limits))
    assert "it must reach +0.07 for the own gain and against shuffled pairs, 0 for the others" in page
    assert "shuffled pairs alone may reproduce 33% of the gain at most, each of the others 66%" in page


def test_long_lists_are_cut(plain):
    document = {"status": "quarantined", "reason": "empty", "pages": 0, "samples": 0, "splits": []}
    many = [document | {"path": f"f{number}"} for number in range(500)]
    target = INVENTORIES["target"] | {"documents": many}
    page = page_of(plain, inventories=INVENTORIES | {"target": target})
    assert "… and 300 more" in page and "f499" not in page
    target |= {"unused_queries": [f"line {number}: no document" for number in range(1, 501)]}
    page = page_of(plain, inventories=INVENTORIES | {"target": target})
    assert page.count("… and 300 more") == 2 and "line 200:" in page and "line 201:" not in page


def test_hostile_documents_and_names_stay_text():
    sweep = Sweep(other_arms=True, other_tests=(HOSTILE,))
    for cell in sweep.cells("generation").values():
        for example in cell["corpora"]["target"]["examples"]:
            example["text"], example["decoded"] = HOSTILE, HOSTILE.replace("alert", "alort")
    for cell in sweep.cells("retrieval").values():
        for example in cell["examples"]:
            example["query"] = HOSTILE
    for (stage, cell), content in list(sweep.contents.items()):
        if cell.arm.name in ("CLIP-style", "rank 4, alpha 1"):
            hostile = Arm(name=cell.arm.name + HOSTILE, kind=cell.arm.kind)
            del sweep.contents[stage, cell]
            sweep.contents[stage, replace(cell, arm=hostile)] = content
    document = {"path": HOSTILE, "reason": None, "pages": 0, "samples": 0, "splits": [HOSTILE]}
    refused_page = {"page": 1, "reason": HOSTILE}
    document |= {
        "refused_pages": 1, "first_refused_pages": [refused_page], "left_out_characters": {HOSTILE: 1}
    }  # fmt: skip
    hostile = {"documents": [document, document | {"reason": HOSTILE}]}
    inventory = INVENTORIES["target"] | hostile | {"warnings": [HOSTILE], "unused_queries": [HOSTILE]}
    page = page_of(
        sweep.find(),
        inventories={"target": inventory, "base": inventory},
        settings=replace(SETTINGS, target_documents=HOSTILE, recipe={"name": HOSTILE}),
        provenance=PROVENANCE | {HOSTILE: HOSTILE},
        inputs={HOSTILE: HOSTILE},
    )
    outline = Outline(page)
    assert outline.open == [] and outline.handlers == [] and "script" not in outline.tags
    assert len(outline.links) == len(re.findall("src=.data:", page)) and page.count("</title>") == 1
    assert "<script" not in page and "{{ 7*7 }}" in page
    assert page.count("Used in part") == 2


def test_skipped_steps_of_a_training_stand_beside_its_losses():
    sweep = Sweep(controls=False)
    cell = next(cell for stage, cell in sweep.contents if stage == "refine")
    sweep.contents["refine", cell]["skipped_steps"] = 2
    rows = Outline(page_of(sweep.find())).rows
    told = [cells[0] for cells in rows if cells and cells[-1] == "last loss 1.5; 2 steps skipped"]
    assert told == [f"refine, {cell.words}"]
