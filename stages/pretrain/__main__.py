"""Stage 1 as a program: one training run that commits a checkpoint at each dose.

python -m stages.pretrain JOB.json
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from data_prep.shards import ShardSource
from infra.process import watch_parent
from stages.backbone import load_backbone
from stages.pretrain.loop import Step, train
from stages.train.engine import rank, start_process_group
from stages.train.job import read_job

REPORT_EVERY = 10  # steps


def main(job_path: Path) -> None:
    """Train up to the highest dose that the job lacks; rank 0 commits each of the job's cells."""
    watch_parent()
    job = read_job(job_path)
    start_process_group(job.processes_per_cell)
    config = job.recipe.pretrain
    cells = {cell["dose"]: cell["fingerprint"] for cell in job.cells}
    last_step = max(cells) // config.batch_size
    backbone = load_backbone(job.recipe.backbone.location, job.recipe.backbone)
    sources = [
        ShardSource(job.inputs[name].path, trainable_only=True) for name in ("target_train", "base_train")
    ]
    history: list[Step] = []

    def on_step(step: Step) -> None:
        history.append(step)
        if rank() == 0 and (step.number % REPORT_EVERY == 0 or step.number == last_step):
            next_dose = min(dose for dose in cells if dose >= step.number * config.batch_size)
            job.metrics.write(
                cell=cells[next_dose],
                step=step.number,
                label="pretraining (CGP)",
                done=step.number,
                total=last_step,
                metrics=_recent(history[-REPORT_EVERY:]),
            )

    def on_dose(dose: int) -> None:
        if rank() != 0:
            return
        with job.store.attempt("pretrain", cells[dose]) as attempt:
            backbone.save(attempt.path / "model")
            # No times here: equal runs must give equal bytes.
            summary = {"dose": dose, "label_tokens": sum(step.label_tokens for step in history)}
            summary |= {name: loss for name, loss in _recent(history).items() if name.startswith("loss")}
            (attempt.path / "training.json").write_text(json.dumps(summary, indent=1, sort_keys=True))
            attempt.commit(
                inputs=job.input_digests(), configuration=asdict(config), counts={"examples": dose}
            )

    train(
        backbone,
        sources,
        [1.0 - config.replay_share, config.replay_share],
        config,
        wanted=cells,
        on_step=on_step,
        on_dose=on_dose,
    )


def _recent(steps: list[Step]) -> dict[str, float]:
    """Mean loss by objective over the given steps' last hundred, and their throughput."""
    recent = steps[-100:]
    if not recent:
        return {}
    losses = {
        f"loss_{objective}": _mean([step.loss for step in recent if step.objective == objective])
        for objective in sorted({step.objective for step in recent})
    }
    seconds = sum(step.seconds for step in recent)
    return losses | {
        "examples_per_second": sum(step.examples for step in recent) / seconds,
        "label_tokens_per_second": sum(step.label_tokens for step in recent) / seconds,
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
