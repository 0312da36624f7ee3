"""The flow `sweep`: the law's laboratory.

Beside the dose-response of the flow `lco`: more doses and seeds, controls that could refute the law, ceilings
by CL budget, ways to refine that the paper compares, and the generative critic. Every cell is committed under
its fingerprint: an interrupted sweep goes on where it was, and a larger one reuses a smaller one.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow

from data_prep.errors import NoUsableDocuments
from infra.launcher import Launcher, LocalLauncher
from pipelines.flow import pipeline_run, publish
from pipelines.parameters import RecipeName, RunParameters, check_parameters, chosen_recipe
from pipelines.results import read_json
from pipelines.stage_definition import STAGES, Reference, StageDefinition, model_cells
from pipelines.stage_runner import PipelineRun
from pipelines.sweep_cells import (
    adapter_models,
    ceiling_cells,
    compared_cells,
    distinct,
    ends,
    equal_compute_cells,
    learning_rate_cells,
    linear_map_cells,
    primary_cells,
    soup_cells,
)
from pipelines.tasks import (
    Prepared,
    PrepareDocuments,
    before_refinement,
    generation_quality,
    generative_critic,
    hard_negatives,
    page_retrieval,
    prepare_base_documents,
    prepare_other_documents,
    prepare_target_documents,
    pretrain,
    refine,
    scaling_law,
)
from stages.law.words import thresholds_in_words
from stages.recipes import CONTROLS, Recipe


@flow(name="sweep", persist_result=False)
def sweep(
    recipe: RecipeName = "tiny",
    documents: str | None = None,
    other_documents: list[str] | None = None,
    doses: list[int] | None = None,
    seeds: list[int] | None = None,
    output: str | None = None,
) -> dict[str, Any]:
    """The law's laboratory: a verdict that could come out negative, with controls, ceilings and the bound.

    Args:
        recipe: Named configuration; its part `sweep` says which doses, seeds, budgets, arms and controls.
        documents: Folder of PDFs and page images on the machine that runs this. Empty: the sample documents.
        other_documents: Folders that are only searched, to see how far what was learned carries.
        doses: Numbers of pretraining examples to compare, 0 among them. Empty: the recipe's sweep.
        seeds: Seeds of contrastive refinement. Empty: the recipe's sweep.
        output: Folder for outputs, reports and logs. Empty: LCO_OUTPUT, else ./lco-output.
    """
    parameters = check_parameters(
        recipe=recipe, documents=documents, doses=doses, seeds=seeds, output=output, others=other_documents
    )
    return run_sweep(parameters)


def sweep_recipe(parameters: RunParameters) -> Recipe:
    """The recipe whose doses, seeds and arms are those of its sweep, or what the person chose.

    Doses of arms and controls that are not among the person's are left out; the highest always has them.
    """
    recipe = chosen_recipe(parameters)
    plan = recipe.sweep
    doses, seeds = parameters.doses or plan.doses, parameters.seeds or plan.seeds

    def kept(chosen: Iterable[int], always: set[int]) -> tuple[int, ...]:
        return tuple(sorted((set(chosen) & set(doses)) | always))

    plan = dataclasses.replace(
        plan,
        doses=doses,
        seeds=seeds,
        compared_doses=kept(plan.compared_doses, {0, max(doses)}),
        control_doses=kept(set(plan.control_doses) - {0}, {max(doses)}),
    )
    return dataclasses.replace(
        recipe,
        pretrain=dataclasses.replace(recipe.pretrain, doses=doses),
        refine=dataclasses.replace(recipe.refine, seeds=seeds, arms=(recipe.law.primary_arm, *plan.arms)),
        sweep=plan,
    )


def run_sweep(
    parameters: RunParameters,
    *,
    stages: Mapping[str, StageDefinition] = STAGES,
    launcher: Launcher | None = None,
    prepare: PrepareDocuments | None = None,
) -> dict[str, Any]:
    """The whole sweep, inside a flow run. Returns what a person wants to see of the result.

    `stages`, `launcher`, `prepare`: what does the work; tests bring their own.
    """
    recipe = sweep_recipe(parameters)
    with pipeline_run("sweep", recipe, parameters, stages, launcher or LocalLauncher()) as run:
        return publish(run, sweep_stages(run, parameters.others, prepare))


def sweep_stages(
    run: PipelineRun, other_folders: Sequence[Path], prepare: PrepareDocuments | None = None
) -> Reference:
    """All cells of the sweep in their order; return the law's output."""
    recipe = run.recipe
    for line in thresholds_in_words(recipe.law):
        run.reporter.note(f"Fixed before the results: {line}")
    target = prepare_target_documents(run, prepare)
    _check_validation(run, target)
    base = prepare_base_documents(run, prepare)
    others = [prepare_other_documents(run, str(folder), prepare) for folder in other_folders]
    pretrained = pretrain(run, target, base)
    controls = [
        model
        for pages in CONTROLS
        for model in pretrain(run, target, base, pages, recipe.sweep.control_doses)
    ]
    models = pretrained + controls
    generation = generation_quality(run, models, target, base)
    negatives = hard_negatives(run, target) if recipe.refine.hard_negatives else None
    grid = refine(run, learning_rate_cells(recipe, pretrained), target, negatives)
    validation = page_retrieval(run, model_cells(grid, split="validation"), target["validation"])
    refined = refine(
        run,
        [
            *primary_cells(recipe, models),
            *ceiling_cells(recipe, pretrained, validation),
            *compared_cells(recipe, pretrained),
            *equal_compute_cells(recipe, pretrained, grid),
        ],
        target,
        negatives,
    )
    soups = refine(run, soup_cells(recipe, pretrained, refined), target, negatives)
    drift = generation_quality(run, adapter_models(recipe, refined), target, base)
    found = before_refinement(models) + linear_map_cells(recipe, pretrained, target)
    found += model_cells([*refined, *soups], split="test")
    retrieval = page_retrieval(run, found, target["test"])
    for folder, other in zip(other_folders, others, strict=True):
        cells = model_cells(ends(recipe, refined), split=folder.name)
        retrieval += page_retrieval(run, cells, other["test"])
    critics = generative_critic(run, models, target)
    measured = {
        "pretrain": models,
        # The grid's trainings say which learning rate each of their names stands for.
        "refine": distinct([*grid, *refined, *soups]),
        "generation": generation + drift,
        "critic": critics,
        "retrieval": retrieval + validation,
    }
    return scaling_law(run, measured, target, base)


def _check_validation(run: PipelineRun, target: Prepared) -> None:
    """Raises NoUsableDocuments before anything is trained: validation documents choose the learning rate."""
    if not read_json(target["validation"]["path"], "manifest.json")["counts"]["queries"]:
        raise NoUsableDocuments(
            f"{run.recipe.target_documents}: no search query is left for validation, which chooses CL's "
            "learning rate: add documents (`lco run` does without)"
        )
