"""Each rank sums its number over its worker's ranks and writes the sum; started by test_workers.py.

python -m tests.integration.group_sums JOB.json
"""

import json
import os
import sys
from pathlib import Path

from stages.train.engine import global_sum, rank, start_process_group, world_size
from stages.train.job import read_job


def main(job_path: Path) -> None:
    job = read_job(job_path)
    start_process_group(job.processes_per_cell)
    number = int(os.environ["RANK"])
    result = {
        "worker": job.metrics.worker,
        "rank": rank(),
        "world_size": world_size(),
        "sum": global_sum(number),
        "cells": [cell["fingerprint"] for cell in job.own_cells()],
    }
    (job_path.parent / f"{number}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
