"""Stage 2 as a program: one refinement for each (dose, seed, arm), committed at each of its budgets of steps.

python -m stages.refine JOB.json
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from safetensors.torch import load_file, save_file

from data_prep.queries import Query
from data_prep.shards import ShardSource, read_queries
from infra.process import EXIT_PREEMPTED, watch_parent
from stages.backbone import Backbone, load_backbone
from stages.recipes import RefineConfig
from stages.refine.adapter import Refined, merge_adapters, put_weights
from stages.refine.loop import Trained, refine
from stages.refine.mining import read_negatives
from stages.train.checkpoint import Checkpoints
from stages.train.engine import rank, start_process_group
from stages.train.job import Job, Rhythm, read_job
from stages.train.ledger import Step, measured, padding_share
from stages.train.training import Preempted

REPORT_EVERY = 10  # steps
ADAPTER = "adapter.safetensors"


def main(job_path: Path) -> None:
    """Refine and commit this worker's share of the job: all cells of one training are of one worker."""
    watch_parent()
    job = read_job(job_path)
    start_process_group(job.processes_per_cell)
    train = TrainSplit(
        source=ShardSource(job.inputs["target_train"].path, trainable_only=True),
        queries=read_queries(job.inputs["target_train"].path),
        negatives=read_negatives(job.inputs["negatives"].path) if "negatives" in job.inputs else None,
    )
    trainings = job.own_trainings()
    total = sum(steps_of(cells) for cells in trainings)
    done = 0
    for cells in trainings:
        if "adapters" in cells[0]:
            _commit_soup(job, cells[0], train.source)
        else:
            _train_cells(job, cells, train, done=done, total=total)
        done += steps_of(cells)


@dataclass(frozen=True, kw_only=True)
class TrainSplit:
    """What every cell is trained on."""

    source: ShardSource
    queries: list[Query]
    negatives: dict[str, tuple[str, ...]] | None


def steps_of(cells: Sequence[dict]) -> int:
    """Steps of the training that makes these cells: none for a soup."""
    return 0 if "adapters" in cells[0] else max(cell["steps"] for cell in cells)


def config_of(job: Job, cell: dict) -> RefineConfig:
    """The recipe's configuration with the changes of the cell's arm, and its steps."""
    return replace(job.recipe.refine, **cell["changes"], steps=cell["steps"])


def _train_cells(job: Job, cells: Sequence[dict], train: TrainSplit, *, done: int, total: int) -> None:
    """One training, committed after the steps of each of its cells."""
    by_steps = {cell["steps"]: cell for cell in cells}
    config = config_of(job, cells[-1])
    steps: list[Step] = []
    rhythm = Rhythm(REPORT_EVERY)

    def on_step(step: Step) -> None:
        steps.append(step)
        if rank() == 0 and (rhythm.due(step.number) or step.number in by_steps):
            cell = by_steps[min(end for end in by_steps if end >= step.number)]
            job.metrics.write(
                cell=cell["fingerprint"],
                step=step.number,
                label=f"refining dose {cell['dose']}, {cell['arm']}, seed {cell['seed']}",
                done=done + step.number,
                total=total,
                metrics=measured(steps[-REPORT_EVERY:], config.engine),
            )

    def on_budget(trained: Trained) -> None:
        if rank() == 0:
            cell = by_steps[trained.steps]
            refined = put_weights(_load(job, cell), trained.weights, config, train.source)
            _commit(job, cell, refined, config, trained, steps)

    refine(
        _load(job, cells[0]),
        train.source,
        train.queries,
        config,
        seed=cells[0]["seed"],
        wanted=by_steps,
        negatives=train.negatives,
        checkpoints=Checkpoints(job.store, cells[0]["training"]),
        on_step=on_step,
        on_budget=on_budget,
    )


def _commit_soup(job: Job, cell: dict, source: ShardSource) -> None:
    """The mean of the adapters of several seeds: nothing is trained."""
    if rank() == 0:
        adapters = [load_file(Path(folder) / ADAPTER) for folder in cell["adapters"]]
        config = config_of(job, cell)
        refined = merge_adapters(_load(job, cell), adapters, config, source)
        trained = Trained(steps=cell["steps"], weights={}, temperature=config.temperature)
        _commit(job, cell, refined, config, trained, [])


def _load(job: Job, cell: dict) -> Backbone:
    return load_backbone(cell["model"], job.recipe.backbone)


def _commit(
    job: Job, cell: dict, refined: Refined, config: RefineConfig, trained: Trained, steps: Sequence[Step]
) -> None:
    with job.store.attempt("refine", cell["fingerprint"]) as attempt:
        refined.backbone.save(attempt.path / "model")
        if config.trained == "adapter" and trained.weights:
            save_file(trained.weights, attempt.path / ADAPTER)
        place = {name: cell[name] for name in ("dose", "pages", "seed", "arm", "steps")}
        facts = place | {
            "temperature": trained.temperature,
            "learning_rate": config.learning_rate,
            "lora_rank": config.lora_rank,
            "lora_alpha": config.lora_alpha,
            "trained": config.trained,
            "weight_change": refined.weight_change,
            "flops": sum(step.flops for step in steps),
        }
        if steps:
            facts |= {"batch_size": steps[-1].examples, "last_loss": steps[-1].loss}
            facts["padding_share"] = padding_share(steps)
        (attempt.path / "training.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
        # No times here: equal runs must give equal bytes.
        ledger = "".join(json.dumps(step.reproducible(), sort_keys=True) + "\n" for step in steps)
        (attempt.path / "steps.jsonl").write_text(ledger)
        attempt.commit(
            inputs=job.input_digests(), configuration=asdict(config) | place, counts={"steps": cell["steps"]}
        )


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except Preempted as reason:
        print(reason, file=sys.stderr)
        sys.exit(EXIT_PREEMPTED)
