"""Which cells a run and a sweep consist of: what is trained, refined and searched, as typed `Work`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.parameters import base_model_digest
from pipelines.stage_table import Output, Work
from stages.cells import DIRECTIONS, PRIMARY_METRIC, Arm, Cell, Kind, Pages
from stages.law.config import best_learning_rate
from stages.recipes import ARMS, Recipe


def base_model(recipe: Recipe) -> dict[str, Output]:
    """The model that training starts from, as an input: its content, wherever it lies. Reads all of it."""
    digest = base_model_digest(recipe)
    return {
        "base_model": Output(stage="base", cell=Cell(), path=Path(recipe.backbone.location), digest=digest)
    }


def pretrain_work(base: Mapping[str, Output], doses: Iterable[int], *, pages: Pages = "target") -> list[Work]:
    """One cell per dose, of one training of the base model on `pages`."""
    return [Work(cell=Cell(dose=dose, pages=pages), inputs=base) for dose in doses]


def refine_work(
    models: Iterable[Output], arms: Sequence[Arm], *, seeds: Sequence[int], steps: Sequence[int]
) -> list[Work]:
    """One cell per model, seed, arm and number of steps."""
    return [
        Work(cell=replace(model.cell, arm=arm, seed=seed, steps=number), inputs=model.model_inputs)
        for model in models
        for seed in seeds
        for arm in arms
        for number in steps
    ]


def recipe_work(recipe: Recipe, models: Iterable[Output]) -> list[Work]:
    """Every arm of the recipe at every dose with every seed, dose by dose."""
    arms, refine = [ARMS[arm] for arm in recipe.refine.arms], recipe.refine
    return refine_work(models, arms, seeds=refine.seeds, steps=[refine.steps])


def measured_work(
    models: Iterable[Output], transcriptions: Iterable[Output] = (), *, split: str | None = None
) -> list[Work]:
    """One cell per model, which is measured; `split`: what is searched.

    `transcriptions`: of the same cells, or of the checkpoints that these were made from.
    """
    written = {one.cell: {"transcription": one} for one in transcriptions}
    return [
        Work(
            cell=replace(model.cell, split=split),
            inputs=model.model_inputs | (written.get(model.cell) or written.get(_checkpoint(model.cell), {})),
        )
        for model in models
    ]


def searched_work(recipe: Recipe, models: Sequence[Output], written: Iterable[Output]) -> list[Work]:
    """Retrieval on the test split; what the law judges in every reading (checkpoints of the target's pages,
    and the law's own CL) with what the checkpoints wrote."""
    own = [one.cell for one in models if one.cell == Cell(dose=one.cell.dose)]
    judged = {*own, *(one.cell for one in primary(recipe, models))}
    of_judged = measured_work([one for one in models if one.cell in judged], written, split="test")
    others = measured_work([one for one in models if one.cell not in judged], split="test")
    return [*of_judged, *others]


def _checkpoint(cell: Cell) -> Cell:
    """The cell of the model that CL started from."""
    return Cell(dose=cell.dose, pages=cell.pages)


def mine_work(base: Mapping[str, Output]) -> list[Work]:
    """The only cell of the mining of hard negatives, by the base model."""
    return [Work(cell=Cell(), inputs=base)]


def law_work(measured: Iterable[Output]) -> list[Work]:
    """The law's only cell: it depends on every output's content, whose it is, and the kind of its arm."""
    named = {f"{one.stage}: {one.cell.words} (kind: {one.cell.arm.kind})": one for one in measured}
    return [Work(cell=Cell(), inputs=named)]


# --- the sweep ------------------------------------------------------------


def learning_rate_arm(recipe: Recipe, learning_rate: float) -> Arm:
    """The primary arm at a learning rate; at the recipe's, that arm itself."""
    primary = ARMS[recipe.law.primary_arm]
    if learning_rate == recipe.refine.learning_rate:
        return primary
    return _changed(primary, f"lr {learning_rate:g}", "learning rate", learning_rate=learning_rate)


def adapter_arms(recipe: Recipe) -> list[Arm]:
    """The primary arm with other ranks and alphas."""
    primary = ARMS[recipe.law.primary_arm]
    return [
        _changed(primary, f"rank {rank}, alpha {alpha}", "adapter", lora_rank=rank, lora_alpha=alpha)
        for rank, alpha in recipe.sweep.adapters
    ]


def _changed(arm: Arm, name: str, kind: Kind, **changes: float) -> Arm:
    return Arm(name=name, kind=kind, changes={**arm.changes, **changes})


def at_doses(models: Iterable[Output], doses: Iterable[int]) -> list[Output]:
    chosen = set(doses)
    return [model for model in models if model.cell.dose in chosen]


def learning_rate_work(recipe: Recipe, pretrained: Sequence[Output]) -> list[Work]:
    """Every learning rate at every dose with the first seed, at every budget."""
    plan = recipe.sweep
    arms = [learning_rate_arm(recipe, rate) for rate in plan.learning_rates]
    return refine_work(pretrained, arms, seeds=plan.seeds[:1], steps=plan.budgets)


def primary_work(recipe: Recipe, models: Sequence[Output]) -> list[Work]:
    """The law's own CL, the same for every dose of all pages."""
    arms = [ARMS[recipe.law.primary_arm]]
    return refine_work(models, arms, seeds=recipe.sweep.seeds, steps=[recipe.refine.steps])


def ceiling_work(recipe: Recipe, pretrained: Sequence[Output], validation: Sequence[Output]) -> list[Work]:
    """Every budget and seed at the learning rate that the validation documents chose for the dose."""
    plan, work = recipe.sweep, []
    for model in pretrained:
        best = {
            rate: max(
                _primary_score(one)
                for one in validation
                if (one.cell.dose, one.cell.arm) == (model.cell.dose, learning_rate_arm(recipe, rate))
            )
            for rate in plan.learning_rates
        }
        arms = [learning_rate_arm(recipe, best_learning_rate(best))]
        work += refine_work([model], arms, seeds=plan.seeds, steps=plan.budgets)
    return work


def _primary_score(retrieval: Output) -> float:
    return retrieval.json("retrieval.json")["directions"][DIRECTIONS[0]]["means"][PRIMARY_METRIC]


def compared_work(recipe: Recipe, pretrained: Sequence[Output]) -> list[Work]:
    """Other ways to refine, at a few doses; ranks and alphas of the adapter, at the highest."""
    plan, steps = recipe.sweep, [recipe.refine.steps]
    models, top = (at_doses(pretrained, doses) for doses in (plan.compared_doses, [max(plan.doses)]))
    work = [
        one for arm in plan.arms for one in refine_work(models, [ARMS[arm]], seeds=plan.seeds, steps=steps)
    ]
    return work + refine_work(top, adapter_arms(recipe), seeds=plan.seeds[:1], steps=steps)


def equal_compute_work(recipe: Recipe, pretrained: Sequence[Output], grid: Sequence[Output]) -> list[Work]:
    """CL of dose 0 that costs as much as CGP of the highest dose and its CL together, in FLOPs."""
    plan = recipe.sweep
    [top] = at_doses(pretrained, [max(plan.doses)])
    measured = at_doses(grid, [0])[0]
    flops_per_step = measured.json("training.json")["flops"] / measured.cell.steps
    steps = recipe.refine.steps + round(top.json("training.json")["flops"] / flops_per_step)
    arm = _changed(ARMS[recipe.law.primary_arm], "equal compute", "equal compute")
    return refine_work(at_doses(pretrained, [0]), [arm], seeds=plan.seeds, steps=[steps])


def soup_work(recipe: Recipe, pretrained: Sequence[Output], refined: Sequence[Output]) -> list[Work]:
    """The mean of the primary arm's adapters over the seeds, at the compared doses."""
    arm = _changed(ARMS[recipe.law.primary_arm], "adapter soup", "soup")
    models = at_doses(pretrained, recipe.sweep.compared_doses)
    soups = []
    for work in refine_work(models, [arm], seeds=[0], steps=[recipe.refine.steps]):
        own = at_doses(primary(recipe, refined), [work.cell.dose])
        parts = {f"adapter of seed {one.cell.seed}": one for one in own}
        soups.append(replace(work, inputs={**work.inputs, **parts}))
    return soups


def primary(recipe: Recipe, refined: Iterable[Output]) -> list[Output]:
    """Those of the law's own CL after CGP on the target's pages."""
    own = Cell(arm=ARMS[recipe.law.primary_arm], steps=recipe.refine.steps)
    return [one for one in refined if one.cell == replace(own, dose=one.cell.dose, seed=one.cell.seed)]


def drifted(recipe: Recipe, refined: Iterable[Output]) -> list[Output]:
    """Whose generation is measured again after CL: the primary arm and other adapters, highest dose, first
    seed."""
    arms = [ARMS[recipe.law.primary_arm], *adapter_arms(recipe)]
    top, seed, steps = max(recipe.sweep.doses), recipe.sweep.seeds[0], recipe.refine.steps
    wanted = [Cell(dose=top, arm=arm, seed=seed, steps=steps) for arm in arms]
    return [one for one in refined if one.cell in wanted]


def linear_map_work(
    recipe: Recipe, pretrained: Sequence[Output], pages: Output, queries: Output
) -> list[Work]:
    """Linear maps of the vectors before CL, fitted on training pages and their queries."""
    models = at_doses(pretrained, recipe.sweep.compared_doses)
    return [
        Work(
            cell=replace(model.cell, arm=ARMS[arm], seed=seed, split="test"),
            inputs={**model.model_inputs, "fit_pages": pages, "fit_queries": queries},
        )
        for arm in recipe.sweep.linear_maps
        for seed in (recipe.sweep.seeds if ARMS[arm].changes.get("drawn") else [0])
        for model in models
    ]
