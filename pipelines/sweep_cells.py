"""Which cells a sweep consists of: a dose, a seed, a way to refine and its budget each."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from pipelines.results import read_json
from pipelines.stage_definition import Cell, Reference, model_cells
from pipelines.tasks import Prepared, refine_cells
from stages.law.laboratory import best_learning_rate
from stages.recipes import ARMS, Recipe


def at_doses(models: Iterable[Reference], doses: Iterable[int]) -> list[Reference]:
    chosen = set(doses)
    return [model for model in models if model["dose"] in chosen]


def learning_rate_arm(recipe: Recipe, learning_rate: float) -> tuple[str, dict[str, Any]]:
    """Name and changes of the primary arm at a learning rate: its own name at the recipe's."""
    primary = recipe.law.primary_arm
    if learning_rate == recipe.refine.learning_rate:
        return primary, ARMS[primary]
    return f"lr {learning_rate:g}", ARMS[primary] | {"learning_rate": learning_rate}


def learning_rate_cells(recipe: Recipe, pretrained: list[Reference]) -> list[Cell]:
    """Every learning rate at every dose with the first seed, at every budget."""
    plan = recipe.sweep
    return [
        cell
        for model in pretrained
        for arm, changes in (learning_rate_arm(recipe, rate) for rate in plan.learning_rates)
        for cell in refine_cells([model], arm=arm, seeds=plan.seeds[:1], steps=plan.budgets, changes=changes)
    ]


def primary_cells(recipe: Recipe, models: list[Reference]) -> list[Cell]:
    """The law's own CL, the same for every dose of all pages."""
    return refine_cells(
        models, arm=recipe.law.primary_arm, seeds=recipe.sweep.seeds, steps=[recipe.refine.steps]
    )


def ceiling_cells(recipe: Recipe, pretrained: list[Reference], validation: list[Reference]) -> list[Cell]:
    """Every budget and seed at the learning rate that the validation documents chose for the dose."""
    cells = []
    for model in pretrained:
        found: dict[float, float] = {}
        for rate in recipe.sweep.learning_rates:
            arm, _ = learning_rate_arm(recipe, rate)
            own = [one for one in validation if (one["dose"], one["arm"]) == (model["dose"], arm)]
            found[rate] = max(_ndcg(one) for one in own)
        arm, changes = learning_rate_arm(recipe, best_learning_rate(found))
        cells += refine_cells(
            [model], arm=arm, seeds=recipe.sweep.seeds, steps=recipe.sweep.budgets, changes=changes
        )
    return cells


def compared_cells(recipe: Recipe, pretrained: list[Reference]) -> list[Cell]:
    """Other ways to refine, at a few doses; ranks and alphas of the adapter, at the highest."""
    plan, top = recipe.sweep, at_doses(pretrained, [max(recipe.sweep.doses)])
    models, steps = at_doses(pretrained, plan.compared_doses), [recipe.refine.steps]
    cells = [
        cell for arm in plan.arms for cell in refine_cells(models, arm=arm, seeds=plan.seeds, steps=steps)
    ]
    for rank, alpha in plan.adapters:
        changes = ARMS[recipe.law.primary_arm] | {"lora_rank": rank, "lora_alpha": alpha}
        arm = f"rank {rank}, alpha {alpha}"
        cells += refine_cells(top, arm=arm, seeds=plan.seeds[:1], steps=steps, changes=changes)
    return cells


def equal_compute_cells(recipe: Recipe, pretrained: list[Reference], grid: list[Reference]) -> list[Cell]:
    """CL of dose 0 that costs as much as CGP of the highest dose and its CL together, in FLOPs."""
    plan = recipe.sweep
    [top] = at_doses(pretrained, [max(plan.doses)])
    arm, _ = learning_rate_arm(recipe, recipe.refine.learning_rate)
    measured = next(one for one in grid if one["dose"] == 0)
    refined = read_json(measured["path"], "training.json")
    flops_per_step = refined["flops"] / refined["steps"]
    steps = recipe.refine.steps + round(read_json(top["path"], "training.json")["flops"] / flops_per_step)
    return refine_cells(
        at_doses(pretrained, [0]), arm="equal compute", seeds=plan.seeds, steps=[steps], changes=ARMS[arm]
    )


def soup_cells(recipe: Recipe, pretrained: list[Reference], refined: list[Reference]) -> list[Cell]:
    """The mean of the primary arm's adapters over the seeds, at the compared doses."""
    arm, steps, cells = recipe.law.primary_arm, recipe.refine.steps, []
    for cell in refine_cells(
        at_doses(pretrained, recipe.sweep.compared_doses),
        arm="adapter soup",
        seeds=[0],
        steps=[steps],
        changes=ARMS[arm],
    ):
        place = (cell.key["dose"], "target", arm, steps)
        parts = [one for one in refined if (one["dose"], one["pages"], one["arm"], one["steps"]) == place]
        paths = [one["path"] for one in parts]
        digests = {f"adapter of seed {one['seed']}": one["digest"] for one in parts}
        cells.append(
            dataclasses.replace(cell, job={**cell.job, "adapters": paths}, inputs={**cell.inputs, **digests})
        )
    return cells


def adapter_models(recipe: Recipe, refined: list[Reference]) -> list[Reference]:
    """The models whose generation is measured again after CL: the primary arm and other adapters."""
    plan = recipe.sweep
    arms = {recipe.law.primary_arm} | {f"rank {rank}, alpha {alpha}" for rank, alpha in plan.adapters}
    return [
        one
        for one in refined
        if one["arm"] in arms
        and one["pages"] == "target"
        and (one["dose"], one["seed"], one["steps"]) == (max(plan.doses), plan.seeds[0], recipe.refine.steps)
    ]


def linear_map_cells(recipe: Recipe, pretrained: list[Reference], target: Prepared) -> list[Cell]:
    """Whitening and a trained projection of the vectors before CL, fitted on training pages."""
    train = target["train"]
    models = at_doses(pretrained, recipe.sweep.compared_doses)
    cells = model_cells(models, seed=0, arm="whitening", steps=None, split="test")
    for seed in recipe.sweep.seeds:
        cells += model_cells(models, seed=seed, arm="projection", steps=None, split="test")
    return [
        dataclasses.replace(
            cell,
            job={**cell.job, "fit_pages": train["path"]},
            inputs={**cell.inputs, "fit_pages": train["digest"]},
        )
        for cell in cells
    ]


def ends(recipe: Recipe, refined: list[Reference]) -> list[Reference]:
    """Dose 0 and the highest dose after the primary CL."""
    arm, steps = recipe.law.primary_arm, recipe.refine.steps
    doses = (0, max(recipe.sweep.doses))
    return [
        one
        for one in at_doses(refined, doses)
        if (one["pages"], one["arm"], one["steps"]) == ("target", arm, steps)
    ]


def distinct(references: Iterable[Reference]) -> list[Reference]:
    """Each output once, in order."""
    return list({one["path"]: one for one in references}.values())


def _ndcg(reference: Reference) -> float:
    retrieval = read_json(reference["path"], "retrieval.json")
    return retrieval["directions"]["query_to_image"]["means"]["ndcg@10"]
