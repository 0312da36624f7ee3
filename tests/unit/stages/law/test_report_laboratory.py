"""The report of a sweep: every section, the same numbers on the page, in the data and in verdict.json."""

import csv
import html.parser
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from stages.law.figures import draw_figures, figure_data
from stages.law.report import Report, render_report
from stages.law.statistics import Bootstrap, mean_over_queries
from stages.law.verdict import judge
from stages.recipes import LawConfig
from tests.unit.stages.law.conftest import read_run
from tests.unit.stages.law.laboratory_run import DOSES, OTHER_TESTS, Sweep

LAW = LawConfig(bootstrap_resamples=200)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}"
SECTIONS = (
    "Bound against measured loss",
    "The critic as a search engine",
    "Ceilings: how far more CL can go",
    "Controls: is it reading these pages?",
    "Other ways to the same goal",
    "How strong an adapter?",
    "Other test sets",
    "Geometry by layer",
)
NOT_RUN = "Not run here: equal compute"
TABLES = ("learning_rates", "adapters", "other_tests")
PICTURE = b"\x89PNG\r\n\x1a\n"


def report_of(run, laboratory, inventories):
    """A report whose pictures are stubs: drawing takes seconds."""
    evidence = read_run(run)
    verdict = judge(evidence, LAW, laboratory)
    data = figure_data(verdict, evidence, run.retrieval, laboratory)
    return Report(
        verdict=verdict,
        evidence=evidence,
        data=data,
        figures=dict.fromkeys(set(data) - set(TABLES), PICTURE),
        pages=(),
        searches=(),
        inventories=inventories,
        provenance={"recipe": "tiny", "date": "2026-01-02"},
        documents="help-pages",
    )


@pytest.fixture(scope="module")
def run():
    return Sweep(queries=200)


@pytest.fixture(scope="module")
def laboratory(run):
    return run.laboratory()


@pytest.fixture(scope="module")
def report(run, laboratory, illustrated):
    return report_of(run, laboratory, illustrated[2])


@pytest.fixture(scope="module")
def page(report):
    return render_report(report)


class Tables(html.parser.HTMLParser):
    """Rows of all tables, each a list of cells; in a cell a space is between a value and its interval."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.tags, self.handlers = [], [], []
        self.in_cell = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")
            self.in_cell = True
        elif tag == "span" and self.in_cell:
            self.rows[-1][-1] += " "

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag != "td"

    def handle_data(self, text):
        if self.in_cell:
            self.rows[-1][-1] += text


def shown(row, name, digits="3f", sign=""):
    """A number as the page shows it: ``0.123 0.100 – 0.150``."""
    join = " to " if sign else " – "
    value, low, high = (
        f"{row[f'{name}{end}']:{sign}.{digits}}".replace("-", "−" if sign else "-")
        for end in ("", "_low", "_high")
    )
    return f"{value} {low}{join}{high}"


def by(rows, **wanted):
    """The only row with these values."""
    (found,) = (row for row in rows if all(row[name] == value for name, value in wanted.items()))
    return found


def test_every_section_is_there_and_controls_count_as_run(page, report):
    for title in SECTIONS:
        assert f">{title}</h" in page
    assert NOT_RUN not in page and "Controls were not run" not in page
    assert page.index('class="badge">') < page.index("Paired differences in nDCG@10") < page.index("<table>")
    assert page.count('src="data:image/png;base64,') == len(report.figures)


def test_a_run_without_a_laboratory_has_no_such_section_and_says_so(run, illustrated):
    plain = report_of(run, None, illustrated[2])
    page = render_report(plain)
    assert not [title for title in SECTIONS[:-1] if title in page]
    assert NOT_RUN in page and SECTIONS[-1] in page
    assert set(plain.data) == {"dose_response", "law", "generation", "geometry"}


def test_parts_that_were_not_measured_are_left_out(run, laboratory, illustrated):
    little = replace(laboratory, critics={}, ceilings={}, adapters=(), other_tests=())
    found = report_of(run, little, illustrated[2])
    page = render_report(found)
    here = [title for title in SECTIONS if title in page]
    assert here == [SECTIONS[3], SECTIONS[4], SECTIONS[7]]
    assert {"controls", "pretraining_pages", "baselines"} < set(found.data)
    assert not {"bound", "critic", "ceilings", "plateau"} & set(found.data)


def test_data_say_what_the_verdict_says(report):
    verdict = json.loads(json.dumps(report.verdict.to_json()))
    measured, data = verdict["laboratory"], report.data

    controls = {row["comparison"]: row for row in data["controls"] if "gain, minus" not in row["group"]}
    top = str(DOSES[-1])
    expected = {
        "own pages, searching images": verdict["paired"] | {"value": verdict["paired"]["difference"]},
        "own pages, searching texts": verdict["comparisons"]["text_control"],
        "minus shuffled pairs": measured["controls"]["against"]["shuffled"][top],
        "minus unrelated pages": measured["controls"]["against"]["unrelated"][top],
        "minus CL alone, 4,210 steps": measured["controls"]["compute"],
        "gain on images minus gain on texts": verdict["comparisons"]["beyond_text"],
    }
    for name, estimate in expected.items():
        assert [controls[name][f"difference{end}"] for end in ("", "_low", "_high")] == [
            estimate[end] for end in ("value", "low", "high")
        ]
    bounds = {(one["pages"], one["dose"], one["kind"]): one for one in measured["bounds"]}
    words = {"own pages": "target", "shuffled pairs": "shuffled", "unrelated pages": "unrelated"}
    assert len(bounds) == len(data["bound"]) == len(data["critic"])
    for row in data["bound"]:
        one = bounds[words[row["pages"]], row["dose"], row["kind"]]
        for name in ("generative", "contrastive", "ceiling", "guarantee"):
            assert row[f"{name}_low"] == one[name]["low"] and row[name] == one[name]["value"]
    for row, one in zip(data["plateau"], measured["ceilings"], strict=True):
        assert row["determined"] is one["determined"] and row["best"] == one["best"]["value"]
        assert row["height"] == (one["plateau"] or one["best"])["value"]


def test_data_are_the_means_of_the_scores(report, laboratory):
    """The rows against plain numpy: levels that the verdict does not hold."""
    evidence, data = report.evidence, report.data
    for arm, model in (
        ("whitening", "whitening instead of CL"), ("CLIP-style", "after CLIP-style CL"), ("before CL",) * 2,
    ):  # fmt: skip
        row = by(data["baselines"], model=model, dose=DOSES[-1])
        assert row["ndcg@10"] == pytest.approx(evidence.scores(DOSES[-1], arm).mean())
        assert row["ndcg@10_low"] < row["ndcg@10"] < row["ndcg@10_high"]
    lexical = by(data["baselines"], model="BM25 on the text layer")
    assert lexical["ndcg@10"] == pytest.approx(evidence.baselines["bm25"]["ndcg@10"].mean())
    shuffled = by(data["pretraining_pages"], series="shuffled pairs", searched="image", dose=4800)
    assert shuffled["ndcg@10"] == pytest.approx(
        laboratory.controls["shuffled"][4800]["query_to_image"].mean()
    )
    khmer = by(data["other_tests"], test=OTHER_TESTS[0], dose=DOSES[-1])
    assert khmer["ndcg@10"] == pytest.approx(laboratory.other_tests[0].scores[DOSES[-1]].mean())
    adapter = by(data["adapters"], rank=64)
    assert adapter["ndcg@10"] == pytest.approx(laboratory.adapters[2].scores.mean())
    assert adapter["ndcg@10_low"] < adapter["ndcg@10"] < adapter["ndcg@10_high"]
    known = by(data["critic"], kind="text", pages="own pages", dose=4800)
    critic = laboratory.critics["target", 4800]
    assert known["nats_per_byte"] == pytest.approx(critic.nats_saved.sum() / critic.bytes.sum())
    assert known["nats_per_byte_low"] < known["nats_per_byte"] < known["nats_per_byte_high"]
    budget = by(data["ceilings"], kind="measured", dose=4800, steps=30)
    assert budget["ndcg@10"] == pytest.approx(laboratory.ceilings[4800].scores[30].mean())
    start = by(data["ceilings"], kind="measured", dose=4800, steps=0)
    assert start["ndcg@10"] == pytest.approx(evidence.scores(4800, "before CL").mean())


def test_other_test_sets_are_resampled_by_their_own_documents(report, laboratory):
    test, how = laboratory.other_tests[0], Bootstrap(resamples=LAW.bootstrap_resamples)
    expected = mean_over_queries(test.scores[DOSES[-1]], how, test.documents)
    row = by(report.data["other_tests"], test=test.name, dose=DOSES[-1])
    assert (row["ndcg@10_low"], row["ndcg@10_high"]) == (expected.low, expected.high)
    assert expected != mean_over_queries(test.scores[DOSES[-1]], how)


def test_tables_on_the_page_show_the_data(page, report):
    rows, data = Tables(page).rows, report.data
    for row in data["controls"]:
        assert [row["group"], row["comparison"], shown(row, "difference", sign="+")] in [
            cells[:3] for cells in rows
        ]
    for row in data["bound"]:
        kind = {"text": "its own text", "query": "a query"}[row["kind"]]
        losses = [
            shown(row, "generative", "3g"),
            shown(row, "contrastive", "3g"),
            shown(row, "ceiling", "2f", "+"),
        ]
        start = [kind, row["pages"], f"{row['dose']:,}", *losses, row["ceiling_held"]]
        assert start in [cells[:7] for cells in rows]
    for model in {row["model"] for row in data["baselines"] if row["dose"] is not None}:
        doses = [by(data["baselines"], model=model, dose=dose) for dose in (0, DOSES[-1])]
        assert [model, *(shown(row, "ndcg@10") for row in doses)] in rows
    for row in data["other_tests"]:
        assert shown(row, "ndcg@10") in [cells[4] for cells in rows if len(cells) == 8]
    primary = by(data["adapters"], primary=True)
    cells_of_primary = ["text-only", "16", "4", f"{primary['weight_change']:.3g}", shown(primary, "ndcg@10")]
    assert cells_of_primary in [cells[:5] for cells in rows]


def test_rows_are_a_table_that_csv_and_json_carry(report):
    for name, rows in report.data.items():
        keys = list(rows[0])
        assert all(list(row) == keys for row in rows), name
        assert json.loads(json.dumps(rows, allow_nan=False)) == rows, name
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=keys)
        writer.writeheader()
        writer.writerows(rows)
        text.seek(0)
        for read, row in zip(csv.DictReader(text), rows, strict=True):
            assert read == {key: "" if value is None else str(value) for key, value in row.items()}


def test_every_picture_is_drawn_from_its_rows_alone(report):
    pictures = draw_figures(report.data)
    assert set(report.data) - set(pictures) == set(TABLES)
    assert all(picture.startswith(PICTURE) for picture in pictures.values())
    columns = {"bound": "contrastive", "controls": "difference", "plateau": "height"}
    same = {name: report.data[name] for name in columns}
    assert draw_figures(same) == {name: pictures[name] for name in columns}
    moved = {name: [dict(row) for row in rows] for name, rows in same.items()}
    for name, column in columns.items():
        moved[name][0][column] *= 0.9
    changed = draw_figures(moved)
    assert not [name for name in columns if changed[name] == pictures[name]]


def test_fitted_curves_run_from_before_cl_to_the_plateau(report):
    determined = [row for row in report.data["plateau"] if row["determined"]]
    assert determined
    for row in determined:
        of_dose = [one for one in report.data["ceilings"] if one["dose"] == row["dose"]]
        fitted = [one for one in of_dose if one["kind"] == "fitted"]
        assert fitted[0]["ndcg@10"] == pytest.approx(of_dose[0]["ndcg@10"])
        left = (row["height"] - fitted[-1]["ndcg@10"]) / (row["height"] - fitted[0]["ndcg@10"])
        assert left == pytest.approx(np.exp(-fitted[-1]["steps"] / row["time_constant"]))


def test_undetermined_ceilings_are_said_and_drawn(illustrated):
    run = Sweep(queries=120, budgets=(5, 10))
    found = report_of(run, run.laboratory(), illustrated[2])
    page = render_report(found)
    assert "0 of 8 doses show a plateau" in page and "do not determine the ceiling" in page
    assert {row["kind"] for row in found.data["ceilings"]} == {"measured"}
    assert all(row["reason"] and row["reason"] in page for row in found.data["plateau"])


def test_a_control_that_explains_the_gain_is_named_first(illustrated):
    run = Sweep(shuffled=0.7)
    found = report_of(run, run.laboratory(), illustrated[2])
    page = render_report(found)
    assert 'class="verdict not-supported"' in page
    top = page[: page.index("<table>")].replace("&#39;", "'")
    assert found.verdict.decision in top and "with one another's texts" in found.verdict.decision


def test_hard_test_sets_are_called_hard_with_numbers(page, report):
    khmer = by(report.data["other_tests"], test=OTHER_TESTS[0], dose=DOSES[-1])
    assert f"{OTHER_TESTS[0]}: nDCG@10 {khmer['ndcg@10']:.3f}" in page
    assert page.count("Hard for this model") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda losses: losses + 30, "at 1 of 8 doses L_gen is no better than guessing (log N = 4.85)"),
        (lambda losses: losses * 1e-9, "at 1 of 8 doses L_gen is below 0.001"),
    ],
)
def test_a_bound_that_says_nothing_is_called_so(change, said, run, laboratory, illustrated, page):
    top = laboratory.critics["target", DOSES[-1]]
    bound = replace(top.bounds["query"], generative=change(top.bounds["query"].generative))
    critic = replace(top, bounds=top.bounds | {"query": bound})
    changed = replace(laboratory, critics=laboratory.critics | {("target", DOSES[-1]): critic})
    assert said in render_report(report_of(run, changed, illustrated[2])) and said not in page


def test_the_controls_caption_names_each_threshold(report):
    thresholds = replace(LAW, minimum_effect=0.07, maximum_explained_by_shuffled=0.33, maximum_explained=0.66)
    page = render_report(replace(report, verdict=replace(report.verdict, thresholds=thresholds)))
    caption = page[page.index("Blue decides") :]
    caption = caption[: caption.index("</figcaption>")]
    assert "it must reach +0.07 for the own gain and against shuffled pairs, 0 for the others" in caption
    assert "shuffled pairs alone may reproduce 33% of the gain at most, each of the others 66%" in caption


def test_the_bound_is_said_once_and_alike_in_notes_and_section(page, report):
    said = [note for note in report.verdict.notes if note.startswith("Bound, ")]
    assert len(said) == 2
    section = page[page.index("Bound against measured loss") :].replace("&lt;", "<")
    assert all(f"<li>{note}</li>" in section for note in said)


def test_what_is_not_resampled_by_document_is_named(run, page, illustrated):
    assert "Intervals cover documents, about 67% of the variance between CL seeds, and nothing" in page
    assert "Exceptions: generation and “own text → image” draw single pages, the bound" in page
    plain = render_report(report_of(run, None, illustrated[2]))
    assert "Exceptions: generation and “own text → image” draw single pages." in plain


def test_hostile_names_stay_text(run, laboratory, illustrated):
    hostile = replace(
        laboratory,
        adapters=tuple(replace(one, name=HOSTILE) for one in laboratory.adapters),
        other_tests=tuple(
            replace(one, name=HOSTILE + str(i)) for i, one in enumerate(laboratory.other_tests)
        ),
    )
    cells = [cell | {"arm": HOSTILE} if cell["arm"] == "CLIP-style" else cell for cell in run.retrieval]
    renamed = Sweep.__new__(Sweep)
    renamed.generation, renamed.retrieval = run.generation, cells
    page = render_report(report_of(renamed, hostile, illustrated[2]))
    outline = Tables(page)
    assert "script" not in outline.tags and outline.handlers == [] and "<script" not in page
    assert "{{ 7*7 }}" in page and page.count("onerror=alert") == page.count("&lt;img src=x onerror=alert")
