"""`lco bootstrap`: read the base-language documents, train the base in ranks of its own, write it out."""

import csv
import datetime
import json
import platform
import shutil
import statistics
from dataclasses import asdict, fields, replace
from pathlib import Path

import pydantic_core

from data_prep.prepare import prepare_documents
from infra.fingerprint import fingerprint
from infra.launcher import Launch, LocalLauncher, threads_of_each
from infra.settings import Settings
from infra.store import Committed, Store, open_store
from pipelines.console import Reporter
from pipelines.owner import only_run
from pipelines.parameters import folder_digest
from stages.bootstrap.config import STAGE, BootstrapConfig, BootstrapJob
from stages.pretrain.config import ObjectiveMixture
from stages.recipes import Recipe

PROGRAM = "stages.bootstrap.program"
_AVERAGED_STEPS = 100
_HELD_OUT = 0.02  # of the documents, twice: the base is tested on others


def bootstrap(
    recipe: Recipe,
    config: BootstrapConfig,
    documents: Path,
    output: Path,
    settings: Settings,
    reporter: Reporter,
) -> None:
    """Train on `documents`; write weights, tokenizer, processor, training.json and curve.csv to `output`.

    Run again after an interruption it goes on where it was.

    Raises NoUsableDocuments, infra.process.ProcessFailed, and BadParameter while another one uses the output
    folder.
    """
    work = settings.output / "bootstrap"
    with only_run(work):
        _bootstrap(recipe, config, documents, output, work, settings, reporter)


def _bootstrap(
    recipe: Recipe,
    config: BootstrapConfig,
    documents: Path,
    output: Path,
    work: Path,
    settings: Settings,
    reporter: Reporter,
) -> None:
    store = open_store(str(work / "store"))
    train = _prepared(recipe, documents, store, settings, reporter)
    engine = replace(recipe.pretrain.engine, processes=settings.processes)
    base_digest = folder_digest(Path(config.base)) if config.base else ""
    job = BootstrapJob(
        name=fingerprint(
            stage=STAGE,
            program=PROGRAM,
            configuration=(config, engine, recipe.backbone, recipe.documents.reading),
            inputs={"base": base_digest, "documents": train.manifest.content_digest},
        ),
        config=config,
        backbone=recipe.backbone,
        engine=engine,
        reading=recipe.documents.reading,
        documents=str(train.path),
        store=str(work / "store"),
        journal=str(work / "journal.jsonl"),
    )  # fmt: skip
    job_path = work / "job.json"
    job_path.write_bytes(pydantic_core.to_json(asdict(job)))
    reporter.stage_started("training the base", cells=1, reused=0)
    try:
        with LocalLauncher(preload=[PROGRAM]) as launcher:
            launch = Launch(
                module=PROGRAM,
                job_path=job_path,
                processes=engine.processes,
                threads=threads_of_each(engine.processes),
                log_path=work / "output.log",
                journal_path=Path(job.journal),
            )
            launcher.run(launch, lambda event: _show(event, reporter))
    finally:
        reporter.stage_finished("")
    phases = [store.find(STAGE, f"{job.name}-{number}") for number in range(len(config.phases))]
    _write(output, [phase for phase in phases if phase], config, base_digest, train, engine.processes)
    reporter.note(f"The base model is in {output}")


def _prepared(
    recipe: Recipe, documents: Path, store: Store, settings: Settings, reporter: Reporter
) -> Committed:
    """Return the training split."""
    reporter.stage_started("reading documents", cells=1, reused=0)
    try:
        return prepare_documents(
            documents,
            replace(recipe.documents, test_share=_HELD_OUT, validation_share=_HELD_OUT),
            store,
            lambda done, total, label: reporter.progress(label=label, step=done, total=total),
            workers=settings.processes,
        ).train
    finally:
        reporter.stage_finished("")


def _show(event: dict, reporter: Reporter) -> None:
    reporter.progress(label=event["label"], step=event["done"], total=event["total"])


def _write(
    output: Path,
    phases: list[Committed],
    config: BootstrapConfig,
    base_digest: str,
    train: Committed,
    processes: int,
) -> None:
    shutil.copytree(phases[-1].path / "model", output, dirs_exist_ok=True)
    lines = [(phase.path / "steps.jsonl").read_text(encoding="utf-8").splitlines() for phase in phases]
    _write_curve(output / "curve.csv", [list(map(json.loads, of_phase)) for of_phase in lines])
    of_each = [phase.json("training.json") for phase in phases]
    facts = {
        "steps": config.steps,
        "skipped_steps": sum(one["skipped_steps"] for one in of_each),
        "shape": asdict(config.shape),
        "base_digest": base_digest,
        "documents_digest": train.manifest.content_digest,
        "documents_counts": train.manifest.counts,
        "minutes": round(sum(one["minutes"] for one in of_each), 1),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {processes} processes of {threads_of_each(processes)} thread(s)",
    }
    (output / "training.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _write_curve(path: Path, phases: list[list[dict]]) -> None:
    """Write the mean loss of each objective over every hundred steps: nats a character, or a summary."""
    objectives = [field.name for field in fields(ObjectiveMixture)]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["phase", "step", *objectives])
        done = 0
        for number, steps in enumerate(phases, start=1):
            for start in range(0, len(steps), _AVERAGED_STEPS):
                some = steps[start : start + _AVERAGED_STEPS]
                losses = [
                    [one["loss"] for one in some if one["objective"] == kind and not one["skipped"]]
                    for kind in objectives
                ]
                means = [f"{statistics.fmean(of)}"[:6] if of else "" for of in losses]
                table.writerow([number, done + start + len(some), *means])
            done += len(steps)
