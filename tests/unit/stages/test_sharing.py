"""How workers share the cells of a job."""

import os
from itertools import groupby
from pathlib import Path
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from stages.cells import Cell
from stages.program import Input, Job, Task


def job_of(models: list[int]) -> Job:
    def read(model: int) -> dict[str, Input]:
        return {"model": Input(path=Path(), digest=f"{model:03}", stage="pretrain", cell=Cell())}

    tasks = [
        Task(cell=Cell(), fingerprint=str(number), training=str(number), inputs=read(model))
        for number, model in enumerate(models)
    ]
    return Job(
        stage="retrieval",
        settings=None,
        store=None,
        journal=None,
        inputs={},
        tasks=tasks,
        processes_per_cell=1,
        provenance={},
    )


@given(models=st.lists(st.integers(0, 4), max_size=20), workers=st.integers(1, 5))
def test_cells_of_one_model_follow_each_other_and_every_cell_has_one_worker(models, workers):
    job, shares = job_of(models), []
    for rank in range(workers):
        with mock.patch.dict(os.environ, WORLD_SIZE=str(workers), RANK=str(rank)):
            own = job.own_tasks(together="model")
        shares.append([(task.inputs["model"].digest, task.fingerprint) for task in own])
    made = [fingerprint for share in shares for _, fingerprint in share]
    assert sorted(made, key=int) == [str(number) for number in range(len(models))]
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    loads = sum(len(list(groupby(share, key=lambda one: one[0]))) for share in shares)
    assert loads <= len(set(models)) + workers - 1
