"""Tables say what was measured, whatever it is called; figures are drawn from them alone."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from stages.cells import BEFORE_CL, Cell
from stages.law.program import verdict_json
from stages.law.report import labels
from stages.law.report.figures import FIGURES, draw_figures, figure_tables
from stages.law.report.page import records
from stages.law.report.sentences import tell
from stages.law.simulated_sweeps import PRIMARY
from tests.unit.stages.law.report.conftest import PICTURE, page_of
from tests.unit.stages.law.sweeps import SMALL, Sweep


@pytest.fixture(scope="module")
def tables(swept):
    return figure_tables(swept)


def only(table, **wanted):
    """The only row with these values."""
    (found,) = (row for row in records(table) if all(row[name] == value for name, value in wanted.items()))
    return found


def test_every_part_that_was_measured_has_its_table(plain, tables):
    assert tables.keys() == FIGURES.keys()
    assert figure_tables(plain).keys() == {"dose_response", "law", "readings", "generation", "geometry"}
    one_way = Sweep(controls=False, readings=False).find()
    assert figure_tables(plain).keys() - figure_tables(one_way).keys() == {"readings"}
    assert "Every way to search" in page_of(plain) and "Every way to search" not in page_of(one_way)
    little = Sweep(other_tests=()).drop("critic").find()
    assert tables.keys() - figure_tables(little) == {"bound", "bound_by_size", "critic", "other_tests"}
    assert "Bound against" not in page_of(little) and "Other test sets" not in page_of(little)


def test_no_label_is_a_key(tables, swept, monkeypatch):
    for name, table in vars(labels).items():
        if name.isupper():
            said = table.items() if isinstance(table, dict) else ()
            monkeypatch.setattr(labels, name, {key: f"X{text}" for key, text in said} or "X")
    for name, table in figure_tables(swept).items():
        pd.testing.assert_frame_equal(table, tables[name])
    assert draw_figures({name: tables[name] for name in ("dose_response", "controls", "critic")}, "page")
    assert "Xown pages" in page_of(swept) and ">own pages<" not in page_of(swept)


def test_tables_say_what_the_verdict_says(tables, swept):
    verdict = json.loads(json.dumps(verdict_json(swept, tell(swept))))
    measured, compared = verdict["sweep"], verdict["comparisons"]
    controls, top = measured["controls"], str(SMALL.doses[-1])
    expected = {
        ("gain", "target", "query_to_image"): verdict["paired"] | {"value": verdict["paired"]["difference"]},
        ("gain", "target", "query_to_text"): compared["text_control"],
        ("gain", "shuffled", "query_to_text"): controls["text_gains"]["shuffled"],
        ("ahead", "shuffled", None): controls["against"]["shuffled"][top],
        ("ahead", "compute", None): controls["compute"],
        ("ahead", "grounding", None): compared["beyond_text"],
        ("unexplained", "compute", None): controls["unexplained"]["compute"],
    }
    for place, estimate in expected.items():
        row = only(tables["controls"], **dict(zip(("group", "control", "direction"), place, strict=True)))
        assert row["difference"] == estimate["value"] and row["difference_low"] == estimate["low"]
        assert row["difference_high"] == estimate["high"]
    assert len(measured["bounds"]) == len(tables["bound"]) == len(tables["critic"])
    for one in measured["bounds"]:
        row = only(tables["bound"], **{name: one[name] for name in ("pages", "dose", "kind")})
        for name in ("generative", "contrastive", "ceiling", "guarantee"):
            assert (row[name], row[f"{name}_low"]) == (one[name]["value"], one[name]["low"])
    for row, one in zip(records(tables["plateau"]), measured["ceilings"], strict=True):
        assert row["determined"] is one["determined"] and row["best"] == one["best"]["value"]
        assert row["height"] == (one["plateau"] or one["best"])["value"]


def test_tables_are_the_means_of_the_scores(tables, swept):
    """The rows against plain numpy: levels that the verdict does not hold."""
    found, top = swept.measurements, SMALL.doses[-1]
    for arm in (BEFORE_CL, *found.arms):
        row = only(tables["baselines"], arm=arm.name, dose=top)
        assert row["ndcg@10"] == pytest.approx(found.scores(top, arm).mean())
        assert row["ndcg@10_low"] < row["ndcg@10"] < row["ndcg@10_high"]
    bm25 = only(tables["baselines"], arm="bm25")
    assert bm25["ndcg@10"] == pytest.approx(found.test.baselines["bm25"]["ndcg@10"].mean())
    shuffled = only(tables["pretraining_pages"], control="shuffled", direction="query_to_image", dose=900)
    assert shuffled["ndcg@10"] == pytest.approx(found.scores(900, PRIMARY, pages="shuffled").mean())
    for control in ("target", "shuffled", "unrelated"):
        start = only(tables["pretraining_pages"], control=control, direction="query_to_image", dose=0)
        assert start["ndcg@10"] == pytest.approx(found.scores(0, PRIMARY).mean())
    lao = only(tables["other_tests"], test="Lao", dose=top)
    assert lao["ndcg@10"] == pytest.approx(found.scores(top, PRIMARY, split="Lao").mean())
    adapter = only(tables["adapters"], rank=64)
    content = found.contents["generation", Cell(dose=top)]["corpora"]["target"]
    assert adapter["nats_per_byte_before"] == content["nats_per_byte"] and adapter["drift"] == 1
    critic = found.contents["critic", Cell(dose=900)]["text"]
    known = only(tables["critic"], kind="text", pages="target", dose=900)
    assert known["nats_per_byte"] == pytest.approx(
        np.subtract(critic["nats_blank"], critic["nats"]).sum() / sum(critic["bytes"])
    )
    budget = only(tables["ceilings"], kind="measured", dose=900, steps=60)
    assert budget["ndcg@10"] == pytest.approx(swept.budgets[900].scores[60].mean())
    start = only(tables["ceilings"], kind="measured", dose=900, steps=0)
    assert start["ndcg@10"] == pytest.approx(found.scores(900, BEFORE_CL).mean())


def test_csv_and_json_carry_the_tables(tables):
    for name, table in tables.items():
        rows = records(table)
        assert json.loads(json.dumps(rows, allow_nan=False)) == rows, name
        for read, row in zip(csv.DictReader(io.StringIO(table.to_csv(index=False))), rows, strict=True):
            assert read == {key: "" if value is None else str(value) for key, value in row.items()}


def test_fitted_curves_run_from_before_cl_to_the_plateau(tables):
    determined = [row for row in records(tables["plateau"]) if row["determined"]]
    assert determined
    for row in determined:
        of_dose = [one for one in records(tables["ceilings"]) if one["dose"] == row["dose"]]
        fitted = [one for one in of_dose if one["kind"] == "fitted"]
        assert fitted[0]["ndcg@10"] == pytest.approx(of_dose[0]["ndcg@10"])
        left = (row["height"] - fitted[-1]["ndcg@10"]) / (row["height"] - fitted[0]["ndcg@10"])
        assert left == pytest.approx(np.exp(-fitted[-1]["steps"] / row["time_constant"]))


def test_every_figure_is_drawn_from_its_table_alone_and_alike(tables):
    pictures = draw_figures(tables)
    assert tables.keys() - pictures.keys() == {"learning_rates", "adapters", "other_tests"}
    assert all(picture.startswith(PICTURE) for picture in pictures.values())
    columns = {"bound": "contrastive", "controls": "difference", "plateau": "height"}
    same = {name: tables[name] for name in columns}
    assert draw_figures(same) == {name: pictures[name] for name in columns}
    moved = {name: table.copy() for name, table in same.items()}
    for name, column in columns.items():
        moved[name].loc[0, column] *= 0.9
    changed = draw_figures(moved)
    assert not [name for name in columns if changed[name] == pictures[name]]


def test_figures_survive_one_dose_and_no_geometry():
    one = {"doses": (0,), "control_doses": (), "seeds": 1, "queries_of_documents": (5,)}
    design = replace(SMALL, **one, nats_per_byte=(0.5,), shares_of_gain=(0,))
    lonely = Sweep(controls=False, design=design)
    for cell in lonely.cells("retrieval").values():
        cell["geometry"], cell["chance_mutual_knn"] = [], None
    findings = lonely.find()
    tables = figure_tables(findings)
    drawn = {"dose_response", "law", "readings", "generation"}
    assert draw_figures(tables).keys() == tables.keys() == drawn
    assert "Geometry by layer" not in page_of(findings)
