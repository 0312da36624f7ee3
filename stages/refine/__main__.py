"""Stage 2 as a program: one LoRA refinement for each (dose, seed, arm), shared out among the workers.

python -m stages.refine JOB.json
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from data_prep.shards import ShardSource, read_queries
from infra.process import watch_parent
from stages.backbone import load_backbone
from stages.refine.loop import Step, refine
from stages.train.engine import rank, start_process_group
from stages.train.job import Job, read_job

REPORT_EVERY = 10  # steps


def main(job_path: Path) -> None:
    """Refine and commit this worker's cells of the job."""
    watch_parent()
    job = read_job(job_path)
    start_process_group(job.processes_per_cell)
    source = ShardSource(job.inputs["target_train"].path, trainable_only=True)
    queries = read_queries(job.inputs["target_train"].path)
    for number, cell in enumerate(job.own_cells()):
        _refine_cell(job, number, cell, source, queries)


def _refine_cell(job: Job, number: int, cell: dict, source: ShardSource, queries: list) -> None:
    config = job.recipe.refine
    losses: list[float] = []

    def on_step(step: Step) -> None:
        losses.append(step.loss)
        if rank() == 0 and step.number % REPORT_EVERY == 0:
            job.metrics.write(
                cell=cell["fingerprint"],
                step=step.number,
                label=f"refining dose {cell['dose']}, {cell['arm']}, seed {cell['seed']}",
                done=number * config.steps + step.number,
                total=len(job.own_cells()) * config.steps,
                metrics={"loss": step.loss, "anchors_per_second": step.anchors / step.seconds},
            )

    backbone = load_backbone(cell["model"], job.recipe.backbone)
    refined = refine(backbone, source, queries, config, seed=cell["seed"], arm=cell["arm"], on_step=on_step)
    if rank() != 0:
        return
    with job.store.attempt("refine", cell["fingerprint"]) as attempt:
        refined.save(attempt.path / "model")
        place = {name: cell[name] for name in ("dose", "seed", "arm")}
        summary = place | {"steps": config.steps, "last_loss": losses[-1] if losses else None}
        (attempt.path / "training.json").write_text(json.dumps(summary, indent=1, sort_keys=True))
        attempt.commit(
            inputs=job.input_digests(), configuration=asdict(config) | place, counts={"steps": config.steps}
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
