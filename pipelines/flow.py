"""The flows: `lco`, from documents to a verdict, and `sweep`, with all that could refute it.

    documents -> shards -> pretrain (CGP) -> refine (CL) -> evaluation -> law

A sweep adds doses and seeds, controls that could refute the law, ceilings by CL budget, ways to refine that
the paper compares, and the generative critic. Every cell is committed under its fingerprint: what was
interrupted goes on where it was, and a larger run reuses a smaller one.

Prefect's own cache stays off. The fingerprint that names an output in our store is the cache key already: the
store verifies what it finds, works without a server and holds no pickle, whereas a Prefect record would be a
second truth about the same output that can outlive it.
"""

import functools
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from prefect import flow, runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import get_run_context
from prefect.logging import get_run_logger
from pydantic import TypeAdapter

from data_prep.errors import NoUsableDocuments
from infra import confinement
from infra.bucket import BucketError, open_bucket
from infra.fingerprint import source_digest
from infra.journal import JOURNAL, Journal
from infra.launcher import Launch, LocalLauncher
from infra.mlflow_shipper import Shipper
from infra.process import handled
from infra.settings import Settings
from pipelines import sweep_cells as cells
from pipelines.console import Reporter, current_reporter, printable
from pipelines.documents import Documents, prepare_documents
from pipelines.needs import require_enough_to_run, require_enough_to_sweep
from pipelines.owner import only_run
from pipelines.parameters import RecipeName, Run, Sweep, from_form
from pipelines.reconcile import FLOW_RUN_TAG, end_flow_runs
from pipelines.record import RunRecord
from pipelines.results import dose_table, reading_table, run_card, values
from pipelines.runner import PipelineRun, Result, new_run_folder, run_store
from pipelines.stage_table import STAGES, Output
from stages.cells import CONTROLS
from stages.recipes import Recipe

logger = logging.getLogger(__name__)


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
        output: Folder for outputs, reports and logs. Empty: that of `lco up`, or LCO_OUTPUT.
    """
    return run_pipeline(Run, recipe=recipe, documents=documents, doses=doses, seeds=seeds, output=output)


@flow(name="sweep", persist_result=False)
def sweep(
    recipe: RecipeName = "tiny",
    documents: str | None = None,
    other_documents: list[str] | None = None,
    doses: list[int] | None = None,
    seeds: list[int] | None = None,
    output: str | None = None,
) -> dict[str, Any]:
    """A sweep: a verdict that could come out negative, with controls, ceilings and the bound.

    Args:
        recipe: Named configuration; its part `sweep` says which doses, seeds, budgets, arms and controls.
        documents: Folder of PDFs and page images on the machine that runs this. Empty: the sample documents.
        other_documents: Folders that are only searched, to see how far what was learned carries.
        doses: Numbers of pretraining examples to compare, 0 among them. Empty: the recipe's sweep.
        seeds: Seeds of contrastive refinement. Empty: the recipe's sweep.
        output: Folder for outputs, reports and logs. Empty: that of `lco up`, or LCO_OUTPUT.
    """
    given = {"recipe": recipe, "documents": documents, "doses": doses, "seeds": seeds, "output": output}
    return run_pipeline(Sweep, **given, other_documents=other_documents)


def run_pipeline(kind: type[Run], **given: Any) -> dict[str, Any]:
    """One of the flows, inside a flow run. Returns what a person wants to see of the result."""
    parameters = TypeAdapter(kind).validate_python(from_form(given)).checked()
    with pipeline_run(parameters) as run:
        sweeps = isinstance(parameters, Sweep)
        law = sweep_stages(run, parameters.other_documents) if sweeps else lco_stages(run)
        result = publish(run, law)
    result |= run.record.tracking(run.settings)  # it is known only now what MLflow took
    _show_in_prefect(result, run.recipe.name)
    run.reporter.result = result
    return result


def lco_stages(run: PipelineRun) -> Output:
    """All stages of a run in their order; the law's output."""
    recipe, documents = run.recipe, _documents(run)
    require_enough_to_run(recipe, documents)
    base = cells.base_model(recipe)
    pretrained = run.stage("pretrain", cells.pretrain_work(base, recipe.pretrain.doses), documents)
    written = run.stage("transcription", cells.measured_work(pretrained), documents)
    generation = run.stage("generation", cells.measured_work(pretrained, written), documents)
    negatives = _negatives(run, documents, base)
    refined = run.stage("refine", cells.recipe_work(recipe, pretrained), documents, **negatives)
    searching = cells.searched_work(recipe, [*pretrained, *refined], written)
    retrieval = run.stage("retrieval", searching, **_read_and_searched(documents))
    [law] = run.stage(
        "law", cells.law_work([*pretrained, *refined, *written, *generation, *retrieval]), documents
    )
    return law


def sweep_stages(run: PipelineRun, other_folders: Sequence[Path]) -> Output:
    """All stages of a sweep in their order; the law's output."""
    from stages.law.report.sentences import thresholds_in_words  # loads scipy

    recipe, plan = run.recipe, run.recipe.sweep
    for line in thresholds_in_words(recipe.law):
        run.reporter.note(f"Fixed before the results: {line}")
    documents = _documents(run, validate=True)
    others = {folder.name: prepare_documents(run, folder.name, str(folder)) for folder in other_folders}
    require_enough_to_sweep(recipe, documents, others)
    base = cells.base_model(recipe)
    pretrained = run.stage("pretrain", cells.pretrain_work(base, plan.doses), documents)
    models = [*pretrained]
    for pages in CONTROLS:
        controls = cells.pretrain_work(base, plan.control_doses, pages=pages)
        models += run.stage("pretrain", controls, documents)
    written = run.stage("transcription", cells.measured_work(models), documents)
    generation = run.stage("generation", cells.measured_work(models, written), documents)
    negatives = _negatives(run, documents, base)
    grid = run.stage("refine", cells.learning_rate_work(recipe, pretrained), documents, **negatives)
    searching = cells.measured_work(grid, split="validation")
    validation = run.stage("retrieval", searching, **_searched(documents, "target_validation"))
    refining = [
        *cells.primary_work(recipe, models),
        *cells.ceiling_work(recipe, pretrained, validation),
        *cells.compared_work(recipe, pretrained),
        *cells.equal_compute_work(recipe, pretrained, grid),
    ]
    refined = run.stage("refine", refining, documents, **negatives)
    soups = run.stage("refine", cells.soup_work(recipe, pretrained, refined), documents, **negatives)
    drifted = cells.drifted(recipe, refined)
    after_cl = run.stage("transcription", cells.measured_work(drifted), documents)
    generation += run.stage("generation", cells.measured_work(drifted, after_cl), documents)
    searching = [
        *cells.searched_work(recipe, [*models, *refined, *soups], written),
        *cells.linear_map_work(
            recipe, pretrained, documents["target_train"], documents["target_train_queries"]
        ),
    ]
    retrieval = run.stage("retrieval", searching, **_read_and_searched(documents))
    ends = cells.at_doses(cells.primary(recipe, refined), (0, max(plan.doses)))
    for name, other in others.items():
        searching = cells.measured_work(ends, split=name)
        retrieval += run.stage("retrieval", searching, **_searched(other, f"{name}_test"))
    critics = run.stage("critic", cells.measured_work(models), documents)
    trained = [*models, *grid, *refined, *soups]
    measured = [*trained, *written, *generation, *critics, *retrieval, *validation]
    [law] = run.stage("law", cells.law_work(measured), documents)
    return law


def _documents(run: PipelineRun, *, validate: bool = False) -> Documents:
    """The target's documents, which the verdict is about, and the base language's: replay during pretraining,
    and the measure of forgetting. Raises NoUsableDocuments before anything is trained."""
    target = prepare_documents(run, "target", run.recipe.target_documents)
    if validate and not target["target_validation_queries"].json("manifest.json")["counts"]["queries"]:
        raise NoUsableDocuments(
            f"{run.recipe.target_documents}: no search query is left for validation, which chooses CL's "
            "learning rate: add documents (`lco run` does without)"
        )
    return target | prepare_documents(run, "base", run.recipe.base_documents)


def _searched(documents: Documents, split: str) -> dict[str, Output]:
    """What retrieval searches, and with which queries."""
    return {"evaluated": documents[split], "evaluated_queries": documents[f"{split}_queries"]}


def _read_and_searched(documents: Documents) -> dict[str, Output]:
    """The law's own test, with what the readings beside the vectors take of other splits."""
    validation = {"validation": "target_validation", "validation_queries": "target_validation_queries"}
    return _searched(documents, "target_test") | {
        name: documents[split] for name, split in validation.items()
    }


def _negatives(run: PipelineRun, documents: Documents, base: dict[str, Output]) -> dict[str, Output]:
    """Negatives for every training query, mined with BM25 and the base model: the same for all doses."""
    if not run.recipe.mining.hard_negatives:
        return {}
    [mined] = run.stage("mine", cells.mine_work(base), documents)
    return {"negatives": mined}


# --- around the stages ------------------------------------------------------------


def prefect_task(name: str, function: Callable[[], Result]) -> Result:
    """Call it as a Prefect task without a stored result: our store is what persists."""
    return task(name=name, cache_policy=NO_CACHE, persist_result=False)(function)()


class LauncherWhenNeeded(ExitStack):
    """A launcher that starts at its first launch: a run that reuses everything loads no model's libraries."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        # Ranks download a published model themselves.
        self._network = "private" if Path(recipe.backbone.location).is_dir() else "shared"

    @functools.cached_property
    def started(self) -> LocalLauncher:
        programs = [stage.program for stage in STAGES.values()]
        for program in programs:
            source_digest(program)  # kept: outputs are named after the code that is loaded now
        return self.enter_context(LocalLauncher(preload=programs, network=self._network))

    def run(self, launch: Launch, on_event: Callable[[dict], None]) -> None:
        self.started.run(launch, on_event)


@contextmanager
def pipeline_run(parameters: Run) -> Iterator[PipelineRun]:
    """What the stages share; at the end every MLflow run has its true status, whatever happened."""
    recipe, settings = parameters.chosen_recipe(), Settings.from_environment(output=parameters.output)
    settings.make_private()
    # At a terminal a person can decide; what a schedule or a form has started waits for its turn.
    wait = get_run_logger().warning if runtime.deployment.id else None
    with only_run(settings.output, wait=wait), ExitStack() as ending:
        # A hangup is told like a SIGTERM, also in the process of a deployment's run.
        ending.enter_context(handled((signal.SIGHUP,), lambda *_: os.kill(os.getpid(), signal.SIGTERM)))
        flow_run = get_run_context().flow_run
        end_flow_runs(settings.runs, besides=flow_run.id)
        logs = new_run_folder(settings.runs, flow_run.name)
        tags = {
            FLOW_RUN_TAG: flow_run.id,
            "prefect.flow_run_name": flow_run.name,
            "prefect.deployment": flow_run.deployment_id or "none",
            "recipe": recipe.name,
            "documents": recipe.target_documents,
            "logs": logs,
        }
        journal = Journal(logs / JOURNAL)
        reporter = _reporter()
        shipper = Shipper(settings, journal.path, tell=lambda line: reporter.note(printable(line)))
        name = f"{parameters.flow} {recipe.name} {flow_run.name}"
        record = RunRecord(journal, recipe=recipe, name=name, tags=tags, shipper=shipper)
        try:
            ending.enter_context(shipper)
            launcher = ending.enter_context(LauncherWhenNeeded(recipe))
            store = run_store(settings)
            if not store.names("law"):  # else nothing may be left to compute
                _ = launcher.started  # its imports run while documents are read
            for lack in confinement.missing():
                reporter.note(f"This kernel gives {lack} (SECURITY.md)")
            yield PipelineRun(
                recipe=recipe,
                settings=settings,
                logs=logs,
                launcher=launcher,
                reporter=reporter,
                record=record,
                as_task=prefect_task,
            )
        except BaseException as error:  # no Exception: cancelled by Prefect, a signal or Ctrl-C
            reporter.failure = error
            record.close("FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        record.close("FINISHED")
        try:
            store.trim(int(settings.cache_gib * 2**30), keep=("checkpoint", "law"))
        except BucketError as error:
            reporter.note(f"Nothing was removed from {settings.store_folder}: {error}")


def _reporter() -> Reporter:
    """What stages did is on Prefect's page in any case; progress only where no terminal shows it."""
    log = get_run_logger().info
    terminal = current_reporter.get()
    if terminal is None:
        return Reporter(write=log, interval=30.0)
    terminal.log = log
    return terminal


def publish(run: PipelineRun, law: Output) -> dict[str, Any]:
    """Show the result in MLflow, in Prefect's log and as the newest report of the output folder."""
    finding = law.json("verdict.json")
    rows, readings = dose_table(finding), reading_table(finding)
    run.record.dose_response(rows)
    run.record.dose_response(readings, heading="reading")
    run.record.report(law)
    result = {
        **{name: finding[name] for name in ("verdict", "reasons", "decision", "search_with", "baselines")},
        "table": rows,
        "readings": readings,
        "training": run.record.training(),
        "report": str(_newest_report(run.settings, law.path / "report.html")),
        "kept_report": str(law.path / "report.html"),
        "logs": str(run.logs),
    }
    get_run_logger().info(
        "\n".join((f"Verdict: {result['verdict']}", *result["reasons"], result["decision"]))
    )
    return result


def _show_in_prefect(result: Mapping[str, Any], recipe: str) -> None:
    """The table and a card for its page; nothing else needs them."""
    table = [{name: round(value, 4) for name, value in row.items()} for row in values(result["table"])]
    description = "Generative quality and retrieval by dose"
    try:
        create_table_artifact(key="dose-response", table=table, description=description)
        create_markdown_artifact(key="run-card", markdown=run_card(result, recipe))
    except Exception as error:  # noqa: BLE001 - whatever Prefect's client raises, the results are there
        logger.warning("Prefect's page lacks the table and the run card of this run: %s", error)


def _newest_report(settings: Settings, report: Path) -> Path:
    """Copy the report to places that stay the same from run to run."""
    if settings.bucket:
        open_bucket(settings.bucket).write(
            "report.html", report.read_bytes(), media_type="text/html; charset=utf-8"
        )
    newest = settings.output / "report.html"
    new = newest.with_name(f".{newest.name}.{time.time_ns()}")
    shutil.copyfile(report, new)
    new.replace(newest)
    return newest
