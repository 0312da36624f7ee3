"""Stage 2 as a program: one refinement for each (dose, seed, arm), committed at each of its budgets of steps.

python -m stages.refine.program JOB.json
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_prep.queries import read_queries
from data_prep.shards import ShardSource
from stages.backbones.adapters import Refinement, open_model, open_refinement, put_weights, soup
from stages.program import Job, Task, read_job
from stages.refine.config import RefineSettings, with_changes
from stages.refine.loop import begin, refine_steps, trained
from stages.refine.pairs import TrainSplit, read_negatives
from stages.train.checkpoint import Checkpoints
from stages.train.divergence import skipped
from stages.train.engine import rank, start_process_group
from stages.train.forward import probe_of
from stages.train.history import History
from stages.train.ledger import Step, padding_share, steps_jsonl

PROBED_SAMPLES = 8


def main(job_path: Path) -> None:
    """Refine and commit this worker's share of the job: all cells of one training are of one worker."""
    job = read_job(job_path, RefineSettings)
    start_process_group(job.processes_per_cell)
    split = TrainSplit(
        source=ShardSource(job.inputs["target_train"].path, trainable_only=True),
        queries=read_queries(job.inputs["target_train_queries"].path),
        negatives=read_negatives(job.inputs["negatives"].path) if "negatives" in job.inputs else {},
    )
    trainings = job.own_trainings()
    total = sum(map(_steps_of, trainings))
    done = 0
    for tasks in trainings:
        if tasks[0].cell.arm.kind == "soup":
            _mix(job, tasks[0], split)
        else:
            _train(job, tasks, split, done=done, total=total)
        done += _steps_of(tasks)


def _steps_of(tasks: Sequence[Task]) -> int:
    """Steps of the training that makes these cells: none for a soup."""
    return 0 if tasks[0].cell.arm.kind == "soup" else max(task.cell.steps for task in tasks)


def _train(
    job: Job[RefineSettings], tasks: Sequence[Task], split: TrainSplit, *, done: int, total: int
) -> None:
    """One training, committed after the steps of each of its cells."""
    milestones = {task.cell.steps: task for task in tasks}
    cell = tasks[0].cell
    config = with_changes(job.settings.refine, cell.arm.changes)
    root = begin(open_model(tasks[0].inputs, job.settings.backbone), config, seed=cell.seed)
    checkpoints = Checkpoints(job.store, tasks[0].training)
    history = History(
        job=job, milestones=milestones, doing="refining", engine=config.engine, done=done, total=total
    )
    for step in refine_steps(
        root, split, config, seed=cell.seed, milestones=milestones, checkpoints=checkpoints
    ):
        history.add(step)
        if step.number in milestones:
            learned, loss_facts = trained(root)
            _commit(job, milestones[step.number], split, learned, loss_facts, history.steps)


def _mix(job: Job[RefineSettings], task: Task, split: TrainSplit) -> None:
    """The mean of the adapters of several seeds: nothing is trained."""
    adapters = [one for one in task.inputs.values() if one.stage == "refine"]
    adapters.sort(key=lambda adapter: adapter.cell.seed)
    _commit(job, task, split, soup([open_refinement(adapter.path) for adapter in adapters]), {}, [])


def _commit(
    job: Job[RefineSettings],
    task: Task,
    split: TrainSplit,
    learned: Refinement,
    loss_facts: Mapping[str, float],
    steps: Sequence[Step],
) -> None:
    """Commit what was learned, once a freshly loaded model takes it; rank 0 has it to do."""
    if rank() != 0:
        return
    config = with_changes(job.settings.refine, task.cell.arm.changes)
    probed = [split.source[position] for position in range(min(PROBED_SAMPLES, len(split.source)))]
    unrefined = open_model(task.inputs, job.settings.backbone)
    _, weight_change = put_weights(unrefined, learned, probe_of(probed))
    facts = {
        **loss_facts,
        "learning_rate": config.learning_rate,
        "lora_rank": config.lora_rank,
        "lora_alpha": config.lora_alpha,
        "trained": config.trained,
        "weight_change": weight_change,
        "flops": sum(step.flops for step in steps),
    }
    if steps:
        last_made = next(step for step in reversed(steps) if not step.skipped)
        facts |= {"batch_size": steps[-1].examples, "last_loss": last_made.loss}
        facts["skipped_steps"] = len(skipped(steps))
        facts["padding_share"] = padding_share(steps)
    files = {".": learned.save, "training.json": facts, "steps.jsonl": steps_jsonl(steps)}
    job.commit(task, files, counts={"steps": task.cell.steps})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
