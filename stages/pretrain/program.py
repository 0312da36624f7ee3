"""Stage 1 as a program: one training run that commits a checkpoint at each dose.

python -m stages.pretrain.program JOB.json
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep.shards import ShardSource
from stages.backbones.backbone import Backbone, load_backbone
from stages.pretrain.config import PretrainSettings
from stages.pretrain.controls import mixture_of
from stages.pretrain.loop import pretrain_steps
from stages.program import Job, Task, read_job
from stages.train.checkpoint import Checkpoints
from stages.train.divergence import skipped
from stages.train.engine import gathered, rank, start_process_group
from stages.train.history import History
from stages.train.ledger import Step, losses, padding_share, steps_jsonl


def main(job_path: Path) -> None:
    """Train up to the highest dose that the job lacks; rank 0 commits each of the job's cells."""
    job = read_job(job_path, PretrainSettings)
    start_process_group(job.processes_per_cell)
    config = job.settings.pretrain
    [tasks] = job.own_trainings()
    milestones = {task.cell.dose // config.batch_size: task for task in tasks}
    target, base = (
        ShardSource(job.inputs[name].path, trainable_only=True) for name in ("target_train", "base_train")
    )
    sources, weights = mixture_of(target, base, pages=tasks[0].cell.pages, config=config)
    backbone = load_backbone(job.settings.backbone.location, job.settings.backbone)
    history = History(
        job=job, milestones=milestones, doing="CGP", engine=config.engine, total=max(milestones)
    )
    if 0 in milestones:
        _commit(job, milestones[0], backbone, history.steps)
    for step in pretrain_steps(
        backbone,
        sources,
        weights,
        config,
        milestones=set(milestones) - {0},
        checkpoints=Checkpoints(job.store, tasks[0].training),
    ):
        history.add(step)
        if step.number in milestones:
            with gathered(backbone.model):
                _commit(job, milestones[step.number], backbone, history.steps)


def _commit(job: Job[PretrainSettings], task: Task, backbone: Backbone, steps: Sequence[Step]) -> None:
    """The model after the steps so far, and what they cost; rank 0 has it to do."""
    if rank() != 0:
        return
    facts = {
        "flops": sum(step.flops for step in steps),
        "label_tokens": sum(step.label_tokens for step in steps),
        "oversized": sum(step.oversized for step in steps),
        "skipped_steps": len(skipped(steps)),
    }
    if steps:
        facts |= losses(steps) | {"padding_share": padding_share(steps)}
    files = {"model": backbone.save, "training.json": facts, "steps.jsonl": steps_jsonl(steps)}
    job.commit(task, files, counts={"examples": task.cell.dose})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
