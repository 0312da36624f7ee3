"""`lco sweep` with every stage for real, as small as it can be; six minutes.

pytest tests/e2e -m laboratory
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from stages.recipes import get_recipe
from tests.e2e.lco_environment import lco_environment

pytestmark = [pytest.mark.laboratory, pytest.mark.timeout(2400)]

SWEEP = get_recipe("smoke").sweep


@pytest.fixture(scope="module")
def output(tmp_path_factory, few_documents) -> Path:
    output = tmp_path_factory.mktemp("sweep") / "output"
    command = [sys.executable, "-m", "pipelines.cli", "sweep", "--recipe", "smoke", "--output", str(output)]
    command += ["--documents", str(few_documents), "--other-documents", str(few_documents)]
    result = subprocess.run(command, env=lco_environment(), capture_output=True, text=True, timeout=2300)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return output


@pytest.fixture(scope="module")
def refined(output) -> list[dict]:
    """training.json of every refined model, with the folder it lies in."""
    files = (output / "store" / "refine").glob("*/training.json")
    return [json.loads(file.read_text()) | {"folder": file.parent} for file in files]


def test_every_control_and_baseline_is_in_the_verdict(output):
    [verdict] = (output / "store" / "law").glob("*/verdict.json")
    laboratory = json.loads(verdict.read_text())["laboratory"]
    assert {"shuffled", "unrelated"} <= set(laboratory["controls"]["against"])
    assert {one["dose"] for one in laboratory["bounds"]} == set(SWEEP.doses)
    assert {one["dose"] for one in laboratory["ceilings"]} == set(SWEEP.doses)
    report = (output / "report.html").read_text()
    for arm in ("whitening", "projection", "adapter soup", "equal compute", *SWEEP.arms):
        assert arm in report, arm


def test_the_soup_is_the_mean_of_its_seeds(refined):
    at = {"dose": max(SWEEP.doses), "pages": "target", "steps": get_recipe("smoke").refine.steps}
    there = [one for one in refined if at.items() <= one.items()]
    [soup] = [one for one in there if one["arm"] == "adapter soup"]
    seeds = [one for one in there if one["arm"] == "text-only"]
    assert len(seeds) == len(SWEEP.seeds)
    models = [load_file(one["folder"] / "model" / "model.safetensors") for one in seeds]
    made = load_file(soup["folder"] / "model" / "model.safetensors")
    moved = 0.0
    for name, tensor in made.items():
        mean = sum(model[name].double() for model in models) / len(models)
        assert (tensor.double() - mean).abs().max() < 1e-6, name
        moved += float((models[0][name].double() - models[1][name].double()).abs().max())
    assert moved > 1e-4
