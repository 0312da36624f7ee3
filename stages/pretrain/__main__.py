"""Stage 1 as a program: one training run that commits a checkpoint at each dose.

python -m stages.pretrain JOB.json
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from data_prep.shards import ShardSource
from infra.process import EXIT_PREEMPTED, watch_parent
from stages.backbone import load_backbone
from stages.pretrain.controls import mixture_of
from stages.pretrain.loop import train
from stages.train.checkpoint import Checkpoints
from stages.train.engine import rank, start_process_group
from stages.train.job import Rhythm, read_job
from stages.train.ledger import Step, losses, measured, padding_share
from stages.train.training import Preempted

REPORT_EVERY = 10  # steps


def main(job_path: Path) -> None:
    """Train up to the highest dose that the job lacks; rank 0 commits each of the job's cells."""
    watch_parent()
    job = read_job(job_path)
    start_process_group(job.processes_per_cell)
    config = job.recipe.pretrain
    cells = {cell["dose"]: cell for cell in job.cells}
    last_step = max(cells) // config.batch_size
    backbone = load_backbone(job.recipe.backbone.location, job.recipe.backbone)
    target, base = (
        ShardSource(job.inputs[name].path, trainable_only=True) for name in ("target_train", "base_train")
    )
    # The job's cells are of one training.
    sources, weights = mixture_of(target, base, pages=job.cells[0]["pages"], config=config)
    history: list[Step] = []
    rhythm = Rhythm(REPORT_EVERY)

    def on_step(step: Step) -> None:
        history.append(step)
        if rank() == 0 and (rhythm.due(step.number) or step.number == last_step):
            next_dose = min(dose for dose in cells if dose >= step.number * config.batch_size)
            job.metrics.write(
                cell=cells[next_dose]["fingerprint"],
                step=step.number,
                label="pretraining (CGP)",
                done=step.number,
                total=last_step,
                metrics=measured(history[-REPORT_EVERY:], config.engine),
            )

    def on_dose(dose: int, steps: Sequence[Step]) -> None:
        if rank() != 0:
            return
        with job.store.attempt("pretrain", cells[dose]["fingerprint"]) as attempt:
            backbone.save(attempt.path / "model")
            pages = cells[dose]["pages"]
            facts = {"dose": dose, "pages": pages, "flops": sum(step.flops for step in steps)}
            facts |= {"label_tokens": sum(step.label_tokens for step in steps)}
            facts["oversized"] = sum(step.oversized for step in steps)
            facts |= losses(steps) | ({"padding_share": padding_share(steps)} if steps else {})
            (attempt.path / "training.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
            # No times here: equal runs must give equal bytes.
            ledger = "".join(json.dumps(step.reproducible(), sort_keys=True) + "\n" for step in steps)
            (attempt.path / "steps.jsonl").write_text(ledger)
            attempt.commit(
                inputs=job.input_digests(),
                configuration=asdict(config) | {"pages": pages},
                counts={"examples": dose},
            )

    def on_oversized(key: str, reason: str) -> None:
        print(f"sample {key} is left out: {reason}", file=sys.stderr, flush=True)

    train(
        backbone,
        sources,
        weights,
        config,
        wanted=cells,
        checkpoints=Checkpoints(job.store, job.cells[0]["training"]),
        on_step=on_step,
        on_dose=on_dose,
        on_oversized=on_oversized,
    )


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except Preempted as reason:
        print(reason, file=sys.stderr)
        sys.exit(EXIT_PREEMPTED)
