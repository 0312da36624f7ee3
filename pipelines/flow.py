"""The flow `lco`: documents -> shards -> pretrain (CGP) -> refine (CL) -> evaluation -> law.

Tasks are thin: they name the cells of a stage, let `run_stage` reuse or compute them, and hand on references
(a path and a content digest). No data and no model passes through Prefect.

Prefect's own cache stays off. The fingerprint that names an output in our store is the cache key already:
the store verifies what it finds, works without a server and holds no pickle, whereas a Prefect record would
be a second truth about the same output that can outlive it.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import get_run_context
from prefect.logging import get_run_logger

from infra.launcher import Launcher, LocalLauncher
from infra.settings import Settings
from infra.tracking import open_tracker
from pipelines.console import LineReporter, LoggedReporter, Reporter, clock_time, current_reporter
from pipelines.parameters import RecipeName, RunParameters, base_model_digest, check_parameters, chosen_recipe
from pipelines.record import RunRecord, how_to_open_mlflow
from pipelines.results import dose_table, format_table, inventory_summary, read_json, values
from pipelines.stage_definition import STAGES, Cell, Reference, StageDefinition, model_cells
from pipelines.stage_runner import PipelineRun, reference, run_stage
from stages.recipes import Recipe

Prepared = dict[str, Reference]
"""{"train", "validation", "test", "inventory"} of one folder of documents."""

PrepareDocuments = Callable[..., Any]
"""`data_prep.prepare.prepare_documents` or a stand-in."""

QUARANTINED_SHOWN = 10


def stage_task(name: str) -> Callable[[Callable], Any]:
    """A Prefect task that keeps no result: references are small, and our store is what persists."""
    return task(name=name, cache_policy=NO_CACHE, persist_result=False)


@flow(name="lco", persist_result=False)
def lco(
    recipe: RecipeName = "tiny",
    documents: str | None = None,
    doses: list[int] | None = None,
    seeds: list[int] | None = None,
    output: str | None = None,
) -> dict[str, Any]:
    """From a folder of PDFs to a verdict: does generative pretraining raise retrieval on these documents?

    Args:
        recipe: Named configuration: model, training, evaluation and the verdict's thresholds.
        documents: Folder of PDFs and page images on the machine that runs this. Empty: the sample documents.
        doses: Numbers of pretraining examples to compare, 0 among them. Empty: the recipe's.
        seeds: Seeds of contrastive refinement, one model each per dose. Empty: the recipe's.
        output: Folder for outputs, reports and logs. Empty: LCO_OUTPUT, else ./lco-output.
    """
    return run_pipeline(
        check_parameters(recipe=recipe, documents=documents, doses=doses, seeds=seeds, output=output)
    )


def run_pipeline(
    parameters: RunParameters,
    *,
    stages: Mapping[str, StageDefinition] = STAGES,
    launcher: Launcher | None = None,
    prepare: PrepareDocuments | None = None,
) -> dict[str, Any]:
    """All stages in their order, inside a flow run. Returns what a person wants to see of the result.

    `stages`, `launcher`, `prepare`: what does the work; tests bring their own.
    """
    with _pipeline_run(parameters, stages, launcher or LocalLauncher()) as run:
        target = prepare_target_documents(run, prepare)
        base = prepare_base_documents(run, prepare)
        pretrained = pretrain(run, target, base)
        generation = generation_quality(run, pretrained, target, base)
        negatives = hard_negatives(run, target) if run.recipe.refine.hard_negatives else None
        refined = refine(run, pretrained, target, negatives)
        retrieval = page_retrieval(run, pretrained, refined, target)
        trained = {"pretrain": pretrained, "refine": refined}
        verdict = scaling_law(run, trained, generation, retrieval, target, base)
        return _publish(run, verdict)


@contextmanager
def _pipeline_run(
    parameters: RunParameters, stages: Mapping[str, StageDefinition], launcher: Launcher
) -> Iterator[PipelineRun]:
    """What the stages share; at the end every MLflow run has its true status, whatever happened."""
    settings = Settings.from_environment(output=parameters.output)
    recipe = chosen_recipe(parameters)
    flow_run = get_run_context().flow_run
    logs = settings.runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{flow_run.name}"
    logs.mkdir(parents=True)
    tags = {
        "prefect.flow_run_id": flow_run.id,
        "prefect.flow_run_name": flow_run.name,
        "prefect.deployment": flow_run.deployment_id or "none",
        "recipe": recipe.name,
        "documents": recipe.target_documents,
        "logs": logs,
    }
    tracker = open_tracker(settings)
    record = RunRecord(tracker, recipe=recipe, name=f"lco {recipe.name} {flow_run.name}", tags=tags)
    try:
        yield PipelineRun(
            recipe=recipe,
            settings=settings,
            logs=logs,
            stages=stages,
            launcher=launcher,
            reporter=_reporter(),
            record=record,
        )
    except Exception:
        record.close("FAILED")
        raise
    except BaseException:  # cancelled by Prefect, a signal or Ctrl-C
        record.close("KILLED")
        raise
    record.close("FINISHED")


def _reporter() -> Reporter:
    """What stages did is on Prefect's page in any case; progress only where no terminal shows it."""
    log = get_run_logger().info
    terminal = current_reporter()
    return LineReporter(log, interval=30.0) if terminal is None else LoggedReporter(terminal, log)


@stage_task("prepare target documents")
def prepare_target_documents(run: PipelineRun, prepare: PrepareDocuments | None = None) -> Prepared:
    """The documents that the verdict is about: the person's own, or the samples in the repository."""
    return _prepare(run, "target", run.recipe.target_documents, prepare)


@stage_task("prepare base documents")
def prepare_base_documents(run: PipelineRun, prepare: PrepareDocuments | None = None) -> Prepared:
    """The base language's documents: replay during pretraining, and the measure of forgetting."""
    return _prepare(run, "base", run.recipe.base_documents, prepare)


@stage_task("pretrain (CGP)")
def pretrain(run: PipelineRun, target: Prepared, base: Prepared) -> list[Reference]:
    """One model per dose, from one training run."""
    inputs = {"target_train": target["train"], "base_train": base["train"]}
    return run_stage(run, "pretrain", inputs=inputs, cells=pretrain_cells(run.recipe))


def pretrain_cells(recipe: Recipe) -> list[Cell]:
    """One cell per dose.

    With a learning rate that falls at the end, every checkpoint depends on where the end is.
    """
    base_model = {"base_model": base_model_digest(recipe)}
    end = {"last_dose": max(recipe.pretrain.doses)} if recipe.pretrain.decay_steps else {}
    return [Cell(key={"dose": dose, **end}, inputs=base_model) for dose in recipe.pretrain.doses]


@stage_task("generation quality")
def generation_quality(
    run: PipelineRun, pretrained: list[Reference], target: Prepared, base: Prepared
) -> list[Reference]:
    """How well each dose writes held-out pages, of both languages."""
    inputs = {"target_test": target["test"], "base_test": base["test"]}
    return run_stage(run, "generation", inputs=inputs, cells=model_cells(pretrained))


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
    run: PipelineRun, pretrained: list[Reference], target: Prepared, negatives: Reference | None = None
) -> list[Reference]:
    """One embedding model per dose, seed and arm (text-only, multimodal)."""
    cells = [
        Cell(key={"dose": cell.key["dose"], "seed": seed, "arm": arm}, job=cell.job, inputs=cell.inputs)
        for cell in model_cells(pretrained)
        for seed in run.recipe.refine.seeds
        for arm in run.recipe.refine.arms
    ]
    inputs = {"target_train": target["train"]} | ({"negatives": negatives} if negatives else {})
    return run_stage(run, "refine", inputs=inputs, cells=cells)


@stage_task("page retrieval")
def page_retrieval(
    run: PipelineRun, pretrained: list[Reference], refined: list[Reference], target: Prepared
) -> list[Reference]:
    """Retrieval by every model, before CL (no seed, no arm) and after."""
    before = [{**model, "seed": None, "arm": None} for model in pretrained]
    return run_stage(
        run, "retrieval", inputs={"target_test": target["test"]}, cells=model_cells([*before, *refined])
    )


@stage_task("scaling law")
def scaling_law(
    run: PipelineRun,
    trained: Mapping[str, list[Reference]],
    generation: list[Reference],
    retrieval: list[Reference],
    target: Prepared,
    base: Prepared,
) -> Reference:
    """Everything measured so far, into a verdict and a report."""
    inputs = {
        "target_test": target["test"],
        "target_inventory": target["inventory"],
        "base_inventory": base["inventory"],
    }
    measured = {**trained, "generation": generation, "retrieval": retrieval}
    [verdict] = run_stage(run, "law", inputs=inputs, cells=[law_cell(measured)])
    return verdict


def law_cell(measured: Mapping[str, list[Reference]]) -> Cell:
    """The law's only cell: it depends on the content of every output, by stage, and on whose it is."""
    without_digest = {
        name: [{key: value for key, value in one.items() if key != "digest"} for one in references]
        for name, references in measured.items()
    }
    digests = {
        f"{name} {[one.get(key) for key in ('dose', 'seed', 'arm')]}": one["digest"]
        for name, references in measured.items()
        for one in references
    }
    return Cell(key={}, job={"cells": without_digest}, inputs=digests)


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


def _publish(run: PipelineRun, verdict: Reference) -> dict[str, Any]:
    """Show the result in MLflow, in Prefect and as the newest report of the output folder."""
    folder = Path(verdict["path"])
    finding = read_json(folder, "verdict.json")
    rows = dose_table(finding)
    run.record.dose_response(rows)
    run.record.report(folder)
    report = _newest_report(run.settings, folder / "report.html")
    result = {
        "verdict": finding["verdict"],
        "reasons": finding["reasons"],
        "decision": finding["decision"],
        "table": rows,
        "baselines": finding["baselines"],
        "training": run.record.training(),
        "report": str(report),
        "kept_report": str(folder / "report.html"),
        "mlflow": how_to_open_mlflow(run.record, run.settings),
        "mlflow_store": run.settings.tracking_uri,
        "mlflow_run": run.record.run,
        "logs": str(run.logs),
    }
    create_table_artifact(
        key="dose-response",
        table=values(rows, digits=4),
        description="Generative quality and retrieval by dose",
    )
    get_run_logger().info(
        "\n".join((f"Verdict: {result['verdict']}", *result["reasons"], result["decision"]))
    )
    create_markdown_artifact(key="run-card", markdown=run_card(result, run.recipe.name))
    return result


def _newest_report(settings: Settings, report: Path) -> Path:
    """Copy the report to a place that stays the same from run to run."""
    newest = settings.output / "report.html"
    new = newest.with_name(f".{newest.name}.{time.time_ns()}")
    shutil.copyfile(report, new)
    new.replace(newest)
    return newest


def run_card(result: Mapping[str, Any], recipe: str) -> str:
    """The result in Markdown, for the Prefect page."""
    titles, cells = format_table(result["table"], intervals=True)
    table = [titles, ["---"] * len(titles), *cells]
    baselines = result["baselines"]
    lines = [
        f"# Verdict: {result['verdict']}",
        *(f"- {reason}" for reason in result["reasons"]),
        f"\n**Decision.** {result['decision']}\n",
        *("| " + " | ".join(row) + " |" for row in table),
        f"\nnDCG@10 of BM25 on the text layer: {baselines['bm25']:.3f}, of a random ranking: "
        f"{baselines['random']:.3f}. Brackets: bootstrap intervals.",
    ]
    if result["training"]:
        cost = (f"{name.replace('_', ' ')} {value:.4g}" for name, value in result["training"].items())
        lines.append(f"\nTraining: {', '.join(cost)}.")
    lines.append(f"\nRecipe `{recipe}`. Report: `{result['kept_report']}`. Logs: `{result['logs']}`.")
    if result["mlflow"].startswith("http"):
        lines.append(f"\nMLflow: [run {result['mlflow_run']}]({result['mlflow']}).")
    else:
        lines.append(f"\nMLflow run `{result['mlflow_run']}`: `{result['mlflow']}`.")
    return "\n".join(lines)
