"""Several workers of several ranks share one job: each is a process group of its own with its own cells."""

import json
import os
from pathlib import Path

from stages.cells import Cell
from stages.pretrain.config import PretrainSettings
from stages.program import read_job, worker
from stages.recipes import get_recipe
from stages.train.engine import global_sum, rank, start_process_group, world_size
from tests.unit.stages.conftest import job_of


def main(job_path: Path) -> None:
    """Each rank sums its number over its worker's ranks."""
    job = read_job(job_path, PretrainSettings)
    start_process_group(job.processes_per_cell)
    number = int(os.environ["RANK"])
    place = [worker(job.processes_per_cell), rank(), world_size()]
    result = [*place, global_sum(number), [task.fingerprint for task in job.own_tasks()]]
    (job_path.parent / f"{number}.json").write_text(json.dumps(result))


def test_two_workers_of_two_ranks(tmp_path, launch):
    recipe = get_recipe("tiny")
    settings = PretrainSettings(backbone=recipe.backbone, pretrain=recipe.pretrain)
    cells = dict.fromkeys("abc", Cell())
    job = job_of("pretrain", settings, tmp_path, cells=cells, processes_per_cell=2)
    launch("tests.integration.test_workers", {**job, "processes": 4}, tmp_path)
    results = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(4)]
    # Worker, rank, world size, sum, cells.
    first, second = [2, 0 + 1, ["a", "c"]], [2, 2 + 3, ["b"]]
    assert results == [[0, 0, *first], [0, 1, *first], [1, 0, *second], [1, 1, *second]]
