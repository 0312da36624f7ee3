"""The program end to end: committed cells in, one committed verdict and report out, without torch."""

import json
import re
import subprocess
import sys
from dataclasses import asdict

import pytest

from data_prep.samples import Sample
from data_prep.write_shards import write_split
from infra.fingerprint import code_version
from infra.store import LocalStore
from stages.cells import Cell
from stages.law.config import LawSettings
from stages.law.program import main, verdict_json
from stages.law.reading import FILES
from stages.law.report.sentences import tell
from stages.law.simulated_sweeps import STEPS
from tests.unit.stages.law.sweeps import LAW, Sweep


@pytest.fixture
def job(illustrated, tmp_path):
    """A JOB.json with every input committed."""
    run, image_of, inventories = illustrated
    store = LocalStore(tmp_path / "store")

    def commit(stage, cell, files):
        name = re.sub(r"\W+", "-", cell.words)
        with store.attempt(stage, name) as attempt:
            for path, content in files.items():
                (attempt.path / path).write_text(json.dumps(content), encoding="utf-8")
            committed = attempt.commit(inputs={}, configuration={}, counts={})
        return {"path": str(committed.path), "digest": committed.manifest.content_digest, "stage": stage,
                "cell": cell.to_json()}  # fmt: skip

    samples = [
        Sample(key=f"k{i}", document="a.pdf", page=0, block=i, text="", is_heading=False, width=448,
               height=96, trainable=True, png=image_of(f"k{i}")) for i in range(6)
    ]  # fmt: skip
    with store.attempt("documents", "test") as attempt:
        write_split(attempt.path, samples, [], per_shard=4)
        test = attempt.commit(inputs={}, configuration={}, counts={})
    inputs = {
        f"{name}_inventory": commit(f"{name}-inventory", Cell(), {"inventory.json": content})
        for name, content in inventories.items()
    }
    inputs["target_test"] = inputs["base_inventory"] | {"path": str(test.path), "stage": "documents"}
    measured = {
        f"{stage}: {cell.words}": commit(stage, cell, {FILES[stage]: content})
        for (stage, cell), content in run.contents.items()
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
        *(f"figures/{name}.{kind}" for name in ("dose_response", "law", "generation", "geometry")
          for kind in ("png", "csv", "json")),
    }  # fmt: skip
    assert output.json("verdict.json")["verdict"] == "supported"
    page = (output.path / "report.html").read_text(encoding="utf-8")
    assert "2026-01-02" in page and page.count('class="page"') == 6
    assert code_version() in page
    inputs = {"target_test", "generation: dose 0", "refine: dose 0, seed 0, text-only, 30 steps"}
    assert set(output.manifest.inputs) > inputs
    assert "400 passages from 200 pages of 100 documents" in page
    assert "12.5%" in page and "repeat text 0.5" in page  # the ledger of pretraining
    events = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events] == [1, 2, 3, 4]


def test_judging_and_reporting_load_no_torch():
    check = "import sys, stages.law.program; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], timeout=120).returncode == 0


def test_json_holds_every_number_with_its_interval_and_is_reproducible():
    sweep = Sweep()
    first, second = (
        json.dumps(verdict_json(found, tell(found)), allow_nan=False)
        for found in (sweep.find(), sweep.find())
    )
    assert first == second
    content = json.loads(first)
    interval = {"value", "low", "high"}
    assert content["paired"].keys() == {"difference", "low", "high"}
    assert [row["dose"] for row in content["table"]] == [0, 300, 900, 2400]
    row = content["table"][0]
    assert row["nats_per_byte"].keys() == row["base_token_accuracy"].keys() == interval
    assert row["retrieval"].keys() == {"before CL", "text-only", "multimodal-20"}
    assert row["retrieval"]["before CL"].keys() == {
        *("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr", "query_to_text", "text_to_image"),
    }  # fmt: skip
    assert row["retrieval"]["text-only"]["text_to_image"].keys() == interval
    assert content["thresholds"]["minimum_effect"] == LAW.minimum_effect
    assert content["prediction"]["lower_doses"] == 3 and content["baselines"].keys() == {"random", "bm25"}
    beside = content["laboratory"]
    assert beside["controls"]["against"]["shuffled"]["2400"].keys() == interval
    assert beside["controls"]["unexplained"].keys() == {"shuffled", "unrelated", "compute", "grounding"}
    assert len(beside["bounds"]) == 10 and beside["bounds"][0]["ceiling"].keys() == interval
    assert [row["dose"] for row in beside["ceilings"]] == [0, 300, 900, 2400]
    assert beside["ceilings"][0]["curve"]["30"].keys() == interval
    run = Sweep(controls=False).find()
    assert "laboratory" not in verdict_json(run, tell(run))
