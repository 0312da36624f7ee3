"""The stage end to end: committed cells in, one committed verdict and report out, without torch."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from data_prep.samples import Sample
from data_prep.write_shards import write_split
from infra.fingerprint import code_version
from infra.store import LocalStore
from stages.law.__main__ import main
from stages.recipes import get_recipe


def commit(store, stage, name, files):
    with store.attempt(stage, name) as attempt:
        for path, content in files.items():
            (attempt.path / path).write_text(json.dumps(content), encoding="utf-8")
        return store.open(attempt.commit(inputs={}, configuration={}, counts={}).path)


@pytest.fixture
def job(illustrated, tmp_path):
    """A JOB.json with every input committed."""
    run, image_of, inventories = illustrated
    store = LocalStore(tmp_path / "store")
    samples = [
        Sample(key=f"k{i}", document="a.pdf", page=0, block=i, text="", is_heading=False, width=448,
               height=96, trainable=True, png=image_of(f"k{i}")) for i in range(6)
    ]  # fmt: skip
    with store.attempt("prepare", "test") as attempt:
        write_split(attempt.path, samples, [], per_shard=4)
        test = attempt.commit(inputs={}, configuration={}, counts={})
    paths = {"target_test": str(test.path)}
    for name, inventory in inventories.items():
        paths[f"{name}_inventory"] = str(commit(store, "prepare", name, {"inventory.json": inventory}).path)
    trained = {
        "pretrain": [
            {"dose": dose, "label_tokens": 9, "loss_repeat_text": 0.5, "padding_share": 0.125}
            for dose in run.doses
        ],
        "refine": [
            {name: cell[name] for name in ("dose", "seed", "arm")} | {"last_loss": 1.5, "padding_share": 0.25}
            for cell in run.retrieval
            if cell["arm"]
        ],
    }
    cells = {"pretrain": [], "refine": [], "generation": [], "retrieval": []}
    for stage, contents in (trained | {"generation": run.generation, "retrieval": run.retrieval}).items():
        name = "training" if stage in trained else stage
        for number, cell in enumerate(contents):
            committed = commit(store, stage, f"{stage}{number}", {f"{name}.json": cell})
            named = {name: cell[name] for name in ("dose", "seed", "arm") if name in cell}
            cells[stage].append(named | {"path": str(committed.path)})
    content = {
        "recipe": asdict(get_recipe("tiny")), "store": str(store.root),
        "metrics": str(tmp_path / "metrics.jsonl"), "inputs": paths,
        "cells": [{"fingerprint": "abc", "cells": cells}], "provenance": {"date": "2026-01-02"},
        "processes_per_cell": 1,
    }  # fmt: skip
    path = tmp_path / "JOB.json"
    path.write_text(json.dumps(content, default=str), encoding="utf-8")
    return path


def test_one_committed_output_with_verdict_report_and_figures(job, tmp_path):
    main(job)
    output = LocalStore(tmp_path / "store").find("law", "abc")
    assert {entry.path for entry in output.manifest.files} == {
        "verdict.json", "report.html",
        *(f"figures/{name}.{kind}" for name in ("dose_response", "law", "generation", "geometry")
          for kind in ("png", "csv", "json")),
    }  # fmt: skip
    verdict = json.loads((output.path / "verdict.json").read_text(encoding="utf-8"))
    assert verdict["verdict"] == "supported"
    page = (output.path / "report.html").read_text(encoding="utf-8")
    assert "2026-01-02" in page and page.count('class="page"') == 6
    assert code_version() in page
    assert set(output.manifest.inputs) > {
        "target_test",
        "generation, dose 0",
        "refine, dose 0, seed 0, text-only",
    }
    assert "400 passages from 200 pages of 100 documents" in page
    assert "12.5%" in page and "repeat text 0.5" in page  # the ledger of pretraining
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events] == [1, 2, 3, 4]
    assert events[1]["metrics"]["ndcg_at_10_gain"] == pytest.approx(verdict["paired"]["difference"])


def test_judging_and_reporting_load_no_torch():
    check = "import sys, stages.law.report, stages.law.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], timeout=120).returncode == 0
