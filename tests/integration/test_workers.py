"""Several workers of several ranks share one job: each is a process group of its own with its own cells."""

import json
from dataclasses import asdict

import pytest

from infra.launcher import Launch, LocalLauncher
from stages.cells import Cell
from stages.pretrain.config import PretrainSettings
from stages.recipes import get_recipe


@pytest.mark.timeout(300)
def test_two_workers_of_two_ranks(tmp_path):
    recipe = get_recipe("tiny")
    cell = Cell().to_json()
    job = {
        "stage": "pretrain",
        "settings": asdict(PretrainSettings(backbone=recipe.backbone, pretrain=recipe.pretrain)),
        "store": str(tmp_path / "store"),
        "journal": str(tmp_path / "journal.jsonl"),
        "inputs": {},
        "tasks": [{"cell": cell, "fingerprint": name, "training": name, "inputs": {}} for name in "abc"],
        "processes_per_cell": 2,
        "provenance": {},
    }
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    module = "tests.integration.group_sums"
    launch = Launch(module=module, job_path=path, processes=4, threads=1, log_path=tmp_path / "log")
    LocalLauncher().run(launch, lambda event: None)
    results = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(4)]
    assert [(one["worker"], one["rank"], one["world_size"]) for one in results] == [
        (0, 0, 2), (0, 1, 2), (1, 0, 2), (1, 1, 2),
    ]  # fmt: skip
    assert [one["sum"] for one in results] == [0 + 1, 0 + 1, 2 + 3, 2 + 3]
    assert [one["cells"] for one in results] == [["a", "c"], ["a", "c"], ["b"], ["b"]]
