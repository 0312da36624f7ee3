"""Each rank sums its number over its worker's ranks and writes the sum; started by test_workers.py."""

import json
import os
from pathlib import Path

from stages.pretrain.config import PretrainSettings
from stages.program import read_job, worker
from stages.train.engine import global_sum, rank, start_process_group, world_size


def main(job_path: Path) -> None:
    job = read_job(job_path, PretrainSettings)
    start_process_group(job.processes_per_cell)
    number = int(os.environ["RANK"])
    result = {
        "worker": worker(job.processes_per_cell),
        "rank": rank(),
        "world_size": world_size(),
        "sum": global_sum(number),
        "cells": [task.fingerprint for task in job.own_tasks()],
    }
    (job_path.parent / f"{number}.json").write_text(json.dumps(result))
