"""The base of a recipe, trained on base-language pages only; `lco bootstrap` launches it.

    python -m stages.bootstrap.program JOB.json

Reading comes first, from short lines to passages of several rows: with all lengths at once nothing is
learned. Then mostly one-word summaries, until a page image and its text are summarised alike, with enough
transcription that reading survives. Transcription alone gives a model that reads perfectly and embeds at
chance. Ever more of the pictures are scans.

Each phase is one training with checkpoints; what was interrupted goes on where it was.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter
from torch import distributed

from data_prep.shards import ShardSource
from infra.journal import Journal
from infra.store import Store, open_store
from stages.backbones.backbone import Backbone, load_backbone
from stages.backbones.tiny import build_tiny_backbone
from stages.bootstrap.config import STAGE, BootstrapConfig, BootstrapJob, Phase
from stages.bootstrap.scan_noise import NoisyScans, ScanNoise
from stages.pretrain.config import PretrainConfig
from stages.pretrain.loop import pretrain_steps
from stages.program import SECONDS_BETWEEN_REPORTS
from stages.train.checkpoint import Checkpoints
from stages.train.config import EngineConfig
from stages.train.divergence import skipped
from stages.train.engine import gathered, rank, start_process_group
from stages.train.history import STEPS_BETWEEN_REPORTS
from stages.train.ledger import Step, losses, steps_jsonl


def main(job_path: Path) -> None:
    """Train what the store lacks of the phases; rank 0 commits the model after each."""
    job = TypeAdapter(BootstrapJob).validate_json(Path(job_path).read_bytes())
    start_process_group(job.engine.processes)
    store = open_store(job.store)
    if job.config.base:
        backbone = load_backbone(job.config.base, job.backbone)
    else:
        backbone = build_tiny_backbone(job.config.shape, job.backbone, seed=0)
    plans = pretrain_configs(job.config, job.engine)
    done = 0
    for number, (phase, plan) in enumerate(zip(job.config.phases, plans, strict=True)):
        name, last = f"{job.name}-{number}", plan.doses[0] // plan.batch_size
        if committed := store.find(STAGE, name):
            backbone = load_backbone(committed.path / "model", job.backbone)
        elif sources := _sources(job, phase, plan.seed):
            _train(job, backbone, phase, plan, sources, name, store, done)
        else:
            print(f"no passage has {_in_words(phase)}: this phase is left out", file=sys.stderr, flush=True)
        done += last


def pretrain_configs(config: BootstrapConfig, engine: EngineConfig) -> list[PretrainConfig]:
    """Return the settings of each phase; the learning rate falls to zero over the last one."""
    phases = config.phases
    ends = [round(config.steps * sum(one.share for one in phases[: n + 1])) for n in range(len(phases))]
    plans = [
        PretrainConfig(
            doses=((end - start) * config.batch_size,),
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            warmup_steps=40,
            replay_share=0.0,
            mixture=phase.mixture,
            engine=engine,
            seed=number,
        )
        for number, (phase, start, end) in enumerate(zip(phases, [0, *ends], ends, strict=False))
    ]
    return [*plans[:-1], replace(plans[-1], decay_steps=ends[-1] - ends[-2])]


def _sources(job: BootstrapJob, phase: Phase, seed: int) -> dict[NoisyScans, float]:
    """Return the passages of a phase with the share of each kind; nothing for a kind that there is not."""
    kinds = {range(phase.longest + 1): 1 - phase.longer, range(phase.longest + 1, sys.maxsize): phase.longer}
    sources = {}
    for characters in (one for one, share in kinds.items() if share):  # opening one reads the whole index
        source = ShardSource(Path(job.documents), trainable_only=True, characters=characters)
        if len(source):
            noise = {"noise": ScanNoise(), "reading": job.reading, "seed": seed}
            sources[NoisyScans(source, share=phase.scans, **noise)] = kinds[characters]
    return sources


def _train(
    job: BootstrapJob,
    backbone: Backbone,
    phase: Phase,
    plan: PretrainConfig,
    sources: dict[NoisyScans, float],
    name: str,
    store: Store,
    done: int,
) -> None:
    """Train one phase, with `done` steps before it, and commit the model."""
    journal, last, steps = Journal(Path(job.journal)), plan.doses[0] // plan.batch_size, []
    told = time.monotonic()
    for step in pretrain_steps(
        backbone,
        list(sources),
        list(sources.values()),
        plan,
        milestones=[last],
        checkpoints=Checkpoints(store, name),
    ):
        steps.append(step)
        silent = time.monotonic() - told >= SECONDS_BETWEEN_REPORTS
        if rank() == 0 and (silent or step.number % STEPS_BETWEEN_REPORTS == 0 or step.number == last):
            told = time.monotonic()
            loss = losses(steps).get("loss_transcribe_image", float("nan"))
            journal.progress(
                name,
                label=f"{_in_words(phase)}, {loss:.2f} nats a character",
                step=done + step.number,
                done=done + step.number,
                total=job.config.steps,
            )
    with gathered(backbone.model):
        if rank() == 0:
            _commit(backbone, steps, name, store)
    distributed.barrier()  # the next phase's store has the model


def _in_words(phase: Phase) -> str:
    longer = f", {phase.longer:.0%} longer" if phase.longer else ""
    return f"up to {phase.longest} characters{longer}, {phase.scans:.0%} scans"


def _commit(backbone: Backbone, steps: list[Step], name: str, store: Store) -> None:
    facts = losses(steps) | {
        "skipped_steps": len(skipped(steps)),
        "minutes": sum(step.seconds for step in steps) / 60,
    }
    with store.attempt(STAGE, name) as attempt:
        backbone.save(attempt.path / "model")
        (attempt.path / "steps.jsonl").write_text(steps_jsonl(steps), encoding="utf-8")
        (attempt.path / "training.json").write_text(json.dumps(facts), encoding="utf-8")
        attempt.commit(inputs={}, configuration={}, counts={"steps": len(steps)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
