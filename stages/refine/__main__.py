"""Stage 2 as a program: one LoRA refinement for each (dose, seed, arm), shared out among the workers.

python -m stages.refine JOB.json
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file

from data_prep.queries import Query
from data_prep.shards import ShardSource, read_queries
from infra.process import EXIT_PREEMPTED, watch_parent
from stages.backbone import load_backbone
from stages.refine.loop import refine
from stages.refine.mining import read_negatives
from stages.train.checkpoint import Checkpoints
from stages.train.engine import rank, start_process_group
from stages.train.job import Job, read_job
from stages.train.ledger import Step, measured, padding_share
from stages.train.training import Preempted

REPORT_EVERY = 10  # steps


def main(job_path: Path) -> None:
    """Refine and commit this worker's cells of the job."""
    watch_parent()
    job = read_job(job_path)
    start_process_group(job.processes_per_cell)
    source = ShardSource(job.inputs["target_train"].path, trainable_only=True)
    queries = read_queries(job.inputs["target_train"].path)
    negatives = read_negatives(job.inputs["negatives"].path) if "negatives" in job.inputs else None
    for number, cell in enumerate(job.own_cells()):
        _refine_cell(job, number, cell, source, queries, negatives)


def _refine_cell(
    job: Job,
    number: int,
    cell: dict,
    source: ShardSource,
    queries: list[Query],
    negatives: dict[str, tuple[str, ...]] | None,
) -> None:
    config = job.recipe.refine
    steps: list[Step] = []

    def on_step(step: Step) -> None:
        steps.append(step)
        if rank() == 0 and step.number % REPORT_EVERY == 0:
            job.metrics.write(
                cell=cell["fingerprint"],
                step=step.number,
                label=f"refining dose {cell['dose']}, {cell['arm']}, seed {cell['seed']}",
                done=number * config.steps + step.number,
                total=len(job.own_cells()) * config.steps,
                metrics=measured(steps[-REPORT_EVERY:], config.engine),
            )

    refined = refine(
        lambda: load_backbone(cell["model"], job.recipe.backbone),
        source,
        queries,
        config,
        seed=cell["seed"],
        arm=cell["arm"],
        negatives=negatives,
        checkpoints=Checkpoints(job.store, cell["training"]),
        on_step=on_step,
    )
    if rank() != 0:
        return
    with job.store.attempt("refine", cell["fingerprint"]) as attempt:
        refined.backbone.save(attempt.path / "model")
        save_file(refined.adapter, attempt.path / "adapter.safetensors")
        place = {name: cell[name] for name in ("dose", "seed", "arm")}
        facts = place | {"steps": config.steps, "temperature": refined.temperature}
        facts |= {"last_loss": steps[-1].loss, "padding_share": padding_share(steps)} if steps else {}
        (attempt.path / "training.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
        # No times here: equal runs must give equal bytes.
        ledger = "".join(json.dumps(step.reproducible(), sort_keys=True) + "\n" for step in steps)
        (attempt.path / "steps.jsonl").write_text(ledger)
        attempt.commit(
            inputs=job.input_digests(), configuration=asdict(config) | place, counts={"steps": config.steps}
        )


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except Preempted as reason:
        print(reason, file=sys.stderr)
        sys.exit(EXIT_PREEMPTED)
