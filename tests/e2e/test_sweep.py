"""`lco sweep` with every stage for real, as small as it can be; six minutes.

pytest tests/e2e -m sweep
"""

import csv
import html
import json
import sqlite3
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file

from stages.cells import Cell
from stages.law.readings import READINGS
from stages.law.report import labels
from stages.recipes import get_recipe
from tests.e2e.conftest import lco

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(2400)]

SWEEP = get_recipe("smoke").sweep


@pytest.fixture(scope="module")
def output(tmp_path_factory, few_documents) -> Path:
    output = tmp_path_factory.mktemp("sweep") / "output"
    options = ["--documents", few_documents, "--other-documents", few_documents, "--output", output]
    result = lco("sweep", "--recipe", "smoke", *options, timeout=2300)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return output


@pytest.fixture(scope="module")
def refined(output) -> dict[Cell, Path]:
    """Every refinement: where it stands in the sweep, and its folder."""
    files = (output / "store" / "refine").glob("*/manifest.json")
    cells = {file.parent: json.loads(file.read_text())["configuration"]["cell"] for file in files}
    return {TypeAdapter(Cell).validate_python(cell): folder for folder, cell in cells.items()}


def test_every_control_and_baseline_is_in_the_verdict(output):
    [verdict] = (output / "store" / "law").glob("*/verdict.json")
    found = json.loads(verdict.read_text())["sweep"]
    assert {"shuffled", "unrelated"} <= set(found["controls"]["against"])
    assert {one["dose"] for one in found["bounds"]} == set(SWEEP.doses)
    assert {one["dose"] for one in found["ceilings"]} == set(SWEEP.doses)
    report = (output / "report.html").read_text()
    for arm in ("whitening", "projection", "adapter soup", "equal compute", *SWEEP.arms):
        assert arm in report, arm


def test_every_reading_is_in_report_csv_and_mlflow(output):
    [folder] = [path.parent for path in (output / "store" / "law").glob("*/verdict.json")]
    with (folder / "figures" / "readings.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert {row["reading"] for row in rows} == set(READINGS)
    assert {int(row["dose"]) for row in rows} == set(SWEEP.doses)
    report = html.unescape((output / "report.html").read_text())
    assert all(label in report for label in labels.READINGS.values())
    with sqlite3.connect(output / "mlflow.db") as database:
        recorded = database.execute(
            "select distinct run_uuid, key from metrics where key like 'reading/%'"
        ).fetchall()
    of_cells = {key.split("/")[1] for _, key in recorded if key.endswith("/ndcg_at_10")}
    assert of_cells == set(READINGS) - {"pooled"}, "the vector's is query_to_image/..."
    assert {f"reading/{name}" for name in READINGS} <= {key for _, key in recorded}


def test_the_soup_is_the_mean_of_its_seeds(refined):
    place = {"dose": max(SWEEP.doses), "pages": "target", "steps": get_recipe("smoke").refine.steps}
    there = {cell: folder for cell, folder in refined.items() if place.items() <= vars(cell).items()}
    [made] = [changes(folder) for cell, folder in there.items() if cell.arm.kind == "soup"]
    seeds = [changes(folder) for cell, folder in there.items() if cell.arm.name == "text-only"]
    assert len(seeds) == len(SWEEP.seeds)
    for name, change in made.items():
        mean = sum(one[name] for one in seeds) / len(seeds)
        assert (change - mean).abs().max() < 1e-6, name
    assert max(float((seeds[0][name] - seeds[1][name]).abs().max()) for name in made) > 1e-4


def changes(folder: Path) -> dict[str, torch.Tensor]:
    """What a committed adapter adds to each matrix: alpha / rank times B A."""
    settings = json.loads((folder / "adapter_config.json").read_text())
    weights = load_file(folder / "adapter_model.safetensors")
    scale = settings["lora_alpha"] / settings["r"]
    return {
        name: scale * weights[name.replace(".lora_A.", ".lora_B.")].double() @ weights[name].double()
        for name in weights
        if ".lora_A." in name
    }
