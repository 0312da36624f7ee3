"""The flow `lco`: documents -> shards -> pretrain (CGP) -> refine (CL) -> evaluation -> law."""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.context import get_run_context
from prefect.logging import get_run_logger

from infra.launcher import Launcher, LocalLauncher
from infra.settings import Settings, without_password
from infra.tracking import open_tracker
from pipelines.console import LineReporter, LoggedReporter, Reporter, current_reporter
from pipelines.one_run import only_run
from pipelines.parameters import RecipeName, RunParameters, check_parameters, chosen_recipe
from pipelines.record import RunRecord, how_to_open_mlflow
from pipelines.results import dose_table, format_table, read_json, values
from pipelines.stage_definition import STAGES, Cell, Reference, StageDefinition, model_cells
from pipelines.stage_runner import PipelineRun
from pipelines.tasks import (
    PrepareDocuments,
    before_refinement,
    generation_quality,
    hard_negatives,
    page_retrieval,
    prepare_base_documents,
    prepare_target_documents,
    pretrain,
    refine,
    refine_cells,
    scaling_law,
)
from stages.recipes import Recipe


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
    recipe = chosen_recipe(parameters)
    with pipeline_run("lco", recipe, parameters, stages, launcher or LocalLauncher()) as run:
        target = prepare_target_documents(run, prepare)
        base = prepare_base_documents(run, prepare)
        pretrained = pretrain(run, target, base)
        generation = generation_quality(run, pretrained, target, base)
        negatives = hard_negatives(run, target) if recipe.refine.hard_negatives else None
        refined = refine(run, arms_of_the_recipe(recipe, pretrained), target, negatives)
        found = before_refinement(pretrained) + model_cells(refined, split="test")
        measured = {
            "pretrain": pretrained,
            "refine": refined,
            "generation": generation,
            "retrieval": page_retrieval(run, found, target["test"]),
        }
        return publish(run, scaling_law(run, measured, target, base))


def arms_of_the_recipe(recipe: Recipe, pretrained: list[Reference]) -> list[Cell]:
    """Every arm at every dose with every seed, dose by dose."""
    return [
        cell
        for model in pretrained
        for seed in recipe.refine.seeds
        for arm in recipe.refine.arms
        for cell in refine_cells([model], arm=arm, seeds=[seed], steps=[recipe.refine.steps])
    ]


@contextmanager
def pipeline_run(
    flow_name: str,
    recipe: Recipe,
    parameters: RunParameters,
    stages: Mapping[str, StageDefinition],
    launcher: Launcher,
) -> Iterator[PipelineRun]:
    """What the stages share; at the end every MLflow run has its true status, whatever happened."""
    settings = Settings.from_environment(output=parameters.output)
    with only_run(settings.output):
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
        name = f"{flow_name} {recipe.name} {flow_run.name}"
        record = RunRecord(tracker, recipe=recipe, name=name, tags=tags)
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


def publish(run: PipelineRun, verdict: Reference) -> dict[str, Any]:
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
        "mlflow_store": without_password(run.settings.tracking_uri),
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
