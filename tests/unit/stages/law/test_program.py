"""The program end to end: committed cells in, one committed verdict and report out, without torch."""

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from data_prep.write_shards import write_split
from infra.fingerprint import code_version
from infra.store import LocalStore
from stages.cells import Cell
from stages.law.config import LawSettings
from stages.law.program import main, verdict_json
from stages.law.reading import FILES
from stages.law.report.sentences import tell
from stages.law.simulated_sweeps import STEPS
from tests.unit.stages.law.conftest import INVENTORIES, WRITTEN, sample_of
from tests.unit.stages.law.sweeps import LAW, Sweep


@pytest.fixture
def job(tmp_path):
    """A JOB.json with every input committed."""
    run = Sweep(controls=False)
    store = LocalStore(tmp_path / "store")

    def commit(stage, cell, files):
        name = re.sub(r"\W+", "-", cell.words)
        with store.attempt(stage, name) as attempt:
            for path, content in files.items():
                (attempt.path / path).write_text(json.dumps(content), encoding="utf-8")
            committed = attempt.commit(inputs={}, configuration={}, counts={})
        return {"path": str(committed.path), "digest": committed.manifest.content_digest, "stage": stage,
                "cell": cell.to_json()}  # fmt: skip

    samples = [replace(sample_of(f"k{i}"), block=i) for i in range(6)]
    with store.attempt("documents", "test") as attempt:
        write_split(attempt.path, samples, per_shard=4)
        test = attempt.commit(inputs={}, configuration={}, counts={})
    inputs = {
        f"{name}_inventory": commit(f"{name}-inventory", Cell(), {"inventory.json": content})
        for name, content in INVENTORIES.items()
    }
    inputs["target_test"] = inputs["base_inventory"] | {"path": str(test.path), "stage": "documents"}
    measured = {
        f"{stage}: {cell.words}": commit(stage, cell, {FILES[stage]: content})
        for (stage, cell), content in run.contents.items()
    }
    measured |= {
        f"transcription: dose {dose}": commit(
            "transcription", Cell(dose=dose), {"transcription.json": {"target_test": texts}}
        )
        for dose, texts in WRITTEN.items()
    }
    settings = LawSettings(
        law=LAW, refine_steps=STEPS, item="passage", target_documents="docs", recipe={"name": "tiny"}
    )
    task = {"cell": Cell().to_json(), "fingerprint": "abc", "training": "abc", "inputs": measured}
    content = {
        "stage": "law", "settings": asdict(settings), "store": str(store.root), "inputs": inputs,
        "journal": str(tmp_path / "journal.jsonl"), "tasks": [task], "provenance": {"date": "2026-01-02"},
        "processes_per_cell": 1,
    }  # fmt: skip
    path = tmp_path / "JOB.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_one_committed_output_with_verdict_report_and_figures(job, tmp_path):
    main(job)
    output = LocalStore(tmp_path / "store").find("law", "abc")
    assert {entry.path for entry in output.manifest.files} == {
        "verdict.json", "report.html",
        *(f"figures/{name}.{kind}" for name in ("dose_response", "law", "readings", "generation", "geometry")
          for kind in ("png", "csv", "json")),
    }  # fmt: skip
    assert output.json("verdict.json")["verdict"] == "supported"
    page = (output.path / "report.html").read_text(encoding="utf-8")
    assert "2026-01-02" in page and page.count('class="page"') == 6
    assert code_version() in page
    inputs = {"target_test", "generation: dose 0", "refine: dose 0, seed 0, text-only, 30 steps"}
    assert set(output.manifest.inputs) > inputs
    assert "400 passages from 200 pages of 100 documents" in page
    assert "dose 2,400 writes:" in page
    assert "12.5%" in page and "repeat text 0.5" in page  # the ledger of pretraining
    events = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events] == [1, 2, 3, 4]


def test_judging_and_reporting_load_no_torch():
    check = "import sys, stages.law.program; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], timeout=120).returncode == 0


def outline(content):
    """What a JSON content is made of: keys, and of a list its length and first element."""
    if isinstance(content, dict):
        interval = content.keys() == {"value", "low", "high"}
        return "interval" if interval else {name: outline(part) for name, part in content.items()}
    if isinstance(content, list):
        return [len(content), *map(outline, content[:1])]
    return type(content).__name__


def test_json_holds_every_number_with_its_interval_and_is_reproducible(snapshot):
    sweep = Sweep()
    first, second = (verdict_json(found, tell(found)) for found in (sweep.find(), sweep.find()))
    assert json.dumps(first, allow_nan=False) == json.dumps(second)
    assert first["thresholds"]["minimum_effect"] == LAW.minimum_effect
    assert outline(json.loads(json.dumps(first))) == snapshot
    run = Sweep(controls=False).find()
    assert "sweep" not in verdict_json(run, tell(run))
