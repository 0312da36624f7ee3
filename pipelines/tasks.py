"""The tasks that the flows are made of, one a stage.

Tasks are thin: they name the cells of a stage, let `run_stage` reuse or compute them, and hand on references
(a path and a content digest). No data and no model passes through Prefect.

Prefect's own cache stays off. The fingerprint that names an output in our store is the cache key already:
the store verifies what it finds, works without a server and holds no pickle, whereas a Prefect record would
be a second truth about the same output that can outlive it.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from pipelines.console import clock_time
from pipelines.parameters import base_model_digest
from pipelines.results import inventory_summary
from pipelines.stage_definition import Cell, Reference, model_cells
from pipelines.stage_runner import PipelineRun, reference, run_stage
from stages.law.cells import PLACE, name_of
from stages.recipes import ARMS, Recipe, TrainingPages

Prepared = dict[str, Reference]
"""{"train", "validation", "test", "inventory"} of one folder of documents."""

PrepareDocuments = Callable[..., Any]
"""`data_prep.prepare.prepare_documents` or a stand-in."""

QUARANTINED_SHOWN = 10


def stage_task(name: str) -> Callable[[Callable], Any]:
    """A Prefect task that keeps no result: references are small, and our store is what persists."""
    return task(name=name, cache_policy=NO_CACHE, persist_result=False)


@stage_task("prepare target documents")
def prepare_target_documents(run: PipelineRun, prepare: PrepareDocuments | None = None) -> Prepared:
    """The documents that the verdict is about: the person's own, or the samples in the repository."""
    return _prepare(run, "target", run.recipe.target_documents, prepare)


@stage_task("prepare base documents")
def prepare_base_documents(run: PipelineRun, prepare: PrepareDocuments | None = None) -> Prepared:
    """The base language's documents: replay during pretraining, and the measure of forgetting."""
    return _prepare(run, "base", run.recipe.base_documents, prepare)


@stage_task("prepare other documents")
def prepare_other_documents(
    run: PipelineRun, documents: str, prepare: PrepareDocuments | None = None
) -> Prepared:
    """Documents that are only searched, to see how far what was learned carries."""
    return _prepare(run, Path(documents).name, documents, prepare)


@stage_task("pretrain (CGP)")
def pretrain(
    run: PipelineRun,
    target: Prepared,
    base: Prepared,
    pages: TrainingPages = "target",
    doses: Sequence[int] | None = None,
) -> list[Reference]:
    """One model per dose, from one training run on `pages`. `doses`: default, the recipe's."""
    inputs = {"target_train": target["train"], "base_train": base["train"]}
    cells = pretrain_cells(run.recipe, pages, run.recipe.pretrain.doses if doses is None else doses)
    return run_stage(run, "pretrain", inputs=inputs, cells=cells)


def pretrain_cells(recipe: Recipe, pages: TrainingPages, doses: Iterable[int]) -> list[Cell]:
    """One cell per dose.

    With a learning rate that falls at the end, every checkpoint depends on where the end is.
    """
    base_model = {"base_model": base_model_digest(recipe)}
    end = {"last_dose": max(recipe.pretrain.doses)} if recipe.pretrain.decay_steps else {}
    return [Cell(key={"dose": dose, "pages": pages, **end}, inputs=base_model) for dose in doses]


@stage_task("generation quality")
def generation_quality(
    run: PipelineRun, models: list[Reference], target: Prepared, base: Prepared
) -> list[Reference]:
    """How well each model writes held-out pages, of both languages."""
    inputs = {"target_test": target["test"], "base_test": base["test"]}
    return run_stage(run, "generation", inputs=inputs, cells=model_cells(models))


@stage_task("generative critic")
def generative_critic(run: PipelineRun, models: list[Reference], target: Prepared) -> list[Reference]:
    """How well each model tells by likelihood which of N pages a text belongs to."""
    return run_stage(run, "critic", inputs={"target_test": target["test"]}, cells=model_cells(models))


@stage_task("hard negatives")
def hard_negatives(run: PipelineRun, target: Prepared) -> Reference:
    """Negatives for every training query, mined with BM25 and the base model: the same for all doses."""
    cell = Cell(
        key={}, job={"model": run.recipe.backbone.location}, inputs={"model": base_model_digest(run.recipe)}
    )
    [mined] = run_stage(run, "mine", inputs={"target_train": target["train"]}, cells=[cell])
    return mined


@stage_task("refine (CL)")
def refine(
    run: PipelineRun, cells: list[Cell], target: Prepared, negatives: Reference | None = None
) -> list[Reference]:
    """One embedding model per cell; see `refine_cells`."""
    inputs = {"target_train": target["train"]} | ({"negatives": negatives} if negatives else {})
    return run_stage(run, "refine", inputs=inputs, cells=cells)


def refine_cells(
    models: Iterable[Reference],
    *,
    arm: str,
    seeds: Iterable[int],
    steps: Iterable[int],
    changes: Mapping[str, Any] | None = None,
) -> list[Cell]:
    """One cell per model, seed and number of steps.

    `changes`: of the recipe's `RefineConfig`, default those of the arm that `ARMS` has under this name.
    """
    changes = ARMS[arm] if changes is None else changes
    return [
        dataclasses.replace(
            cell, key={**cell.key, "seed": seed, "arm": arm, "steps": number, "changes": dict(changes)}
        )
        for cell in model_cells(models)
        for seed in seeds
        for number in steps
    ]


@stage_task("page retrieval")
def page_retrieval(run: PipelineRun, cells: list[Cell], evaluated: Reference) -> list[Reference]:
    """Retrieval by the model of every cell on one split; see `model_cells`."""
    return run_stage(run, "retrieval", inputs={"evaluated": evaluated}, cells=cells)


def before_refinement(models: Iterable[Reference]) -> list[Cell]:
    """Cells that search the test split with models before CL."""
    return model_cells(models, seed=None, arm=None, steps=None, split="test")


@stage_task("scaling law")
def scaling_law(
    run: PipelineRun, measured: Mapping[str, list[Reference]], target: Prepared, base: Prepared
) -> Reference:
    """Everything measured so far, by stage, into a verdict and a report."""
    inputs = {
        "target_test": target["test"],
        "target_inventory": target["inventory"],
        "base_inventory": base["inventory"],
    }
    [verdict] = run_stage(run, "law", inputs=inputs, cells=[law_cell(measured)])
    return verdict


def law_cell(measured: Mapping[str, list[Reference]]) -> Cell:
    """The law's only cell: it depends on the content of every output, by stage, and on whose it is."""
    places = {
        name: [{key: one[key] for key in ("path", *PLACE) if key in one} for one in references]
        for name, references in measured.items()
    }
    digests = {
        name_of(name, one): one["digest"] for name, references in measured.items() for one in references
    }
    return Cell(key={}, job={"cells": places}, inputs=digests)


def _prepare(run: PipelineRun, which: str, documents: str, prepare: PrepareDocuments | None) -> Prepared:
    """Shards of one folder of documents. Raises data_prep.errors.NoUsableDocuments."""
    if prepare is None:
        from data_prep.prepare import prepare_documents as prepare  # slow to import: codecs and shard readers

    title, began, started_at = f"{which} documents", time.monotonic(), time.time()
    child = run.record.child(
        f"prepare {which} documents", tags={"stage": "prepare"}, params={"documents": documents}
    )
    run.reporter.stage_started(title, cells=1, reused=0)
    try:
        prepared = prepare(
            Path(documents),
            run.recipe.documents,
            run.store,
            lambda done, total, label: run.reporter.progress(label=label, step=done, total=total),
            workers=run.settings.processes,
        )
    except BaseException:
        run.reporter.stage_finished(f"{title}: stopped")
        raise
    references = {
        name: reference(getattr(prepared, name)) for name in ("train", "validation", "test", "inventory")
    }
    used, quarantined, problems = inventory_summary(references["inventory"]["path"])
    reused = all(
        (Path(one["path"]) / "manifest.json").stat().st_mtime < started_at for one in references.values()
    )
    verb = "reused" if reused else f"done ({clock_time(time.monotonic() - began)})"
    run.reporter.stage_finished(f"{title}: {verb}, {used} used, {quarantined} could not be used")
    for problem in problems[:QUARANTINED_SHOWN]:
        run.reporter.note(f"  {problem}")
    if len(problems) > QUARANTINED_SHOWN:
        run.reporter.note(f"  ... and {len(problems) - QUARANTINED_SHOWN} more, all in the report")
    for name in ("train", "validation", "test"):
        run.record.dataset(f"{which} {name}", references[name], context=name, run=child)
        run.record.dataset(f"{which} {name}", references[name], context=name)
    run.record.tags(child, {"reused": str(reused).lower()})
    run.record.metrics(child, {"documents/used": used, "documents/quarantined": quarantined}, step=0)
    run.record.finish(child)
    return references
