"""What each stage is to the pipeline: its program, the part of the recipe that it uses, and its code.

The fingerprint of a cell (one dose, one CL seed, ...) is built from this table. A part that is missing here
would let a changed setting reuse an old output; a part too many only costs a recomputation. When in doubt:
too many.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.fingerprint import fingerprint
from stages.law.cells import PLACE
from stages.recipes import Recipe, RefineConfig

Reference = dict[str, Any]
"""A committed output as tasks hand it on: its cell's fields, "path" (folder), "digest" (of its content)."""


@dataclass(frozen=True, kw_only=True)
class StageDefinition:
    """One stage. `recipe_parts` names recipe fields that are used; `not_used`, dotted names, what of them
    is not.

    `distributed`: one cell takes the processes that the recipe's part asks for; one process otherwise.
    `milestone`: the field of a cell's key that a training passes through; such cells share one training.
    `independent_cells`: the program shares its cells out, so that several workers may run side by side.
    """

    name: str
    title: str
    module: str
    recipe_parts: tuple[str, ...]
    packages: tuple[str, ...]
    not_used: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ("torch", "transformers")
    schema_version: int = 1
    distributed: bool = False
    milestone: str | None = None
    independent_cells: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One unit of a stage's work, committed as one output.

    `key` names it (its place, and for refinement the changes of the recipe that its arm makes); `job` holds
    what else the program needs (paths); `inputs` the content digests of what `job` points to. Paths never
    enter the fingerprint: a moved store stays valid.
    """

    key: Mapping[str, Any]
    job: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)


# Where the base model lies changes nothing; its content does, as an input of pretraining.
LOCATION = ("backbone.location",)
# Neither do the number of ranks and the rhythm of checkpoints.
ENGINE_ONLY = ("processes", "checkpoint_steps")
# Of refinement, the projection and L_cl use only these.
NOT_OF_RETRIEVAL = tuple(
    f"refine.{setting.name}"
    for setting in dataclasses.fields(RefineConfig)
    if setting.name not in ("temperature", "batch_size", "same_document_negatives")
)
# How shards are read. How they were written enters a fingerprint by their digest.
_SHARDS = tuple(
    f"data_prep.{module}"
    for module in ("config", "errors", "open_shards", "order", "packing", "queries", "shards")
)
# Every stage that holds a model opens shards, builds token sequences and reads a job.
_COMMON = (*_SHARDS, "stages.backbone", "stages.train")

STAGES: Mapping[str, StageDefinition] = {
    stage.name: stage
    for stage in (
        StageDefinition(
            name="pretrain",
            title="generative pretraining (CGP)",
            module="stages.pretrain",
            recipe_parts=("backbone", "pretrain"),
            not_used=(*LOCATION, "pretrain.doses", *(f"pretrain.engine.{name}" for name in ENGINE_ONLY)),
            packages=(*_COMMON, "stages.pretrain"),
            libraries=("torch", "transformers", "deepspeed", "grain"),
            distributed=True,
            milestone="dose",
        ),
        StageDefinition(
            name="generation",
            title="generation quality",
            module="stages.evaluate.generation",
            recipe_parts=("backbone", "evaluate"),
            not_used=LOCATION,
            packages=(*_COMMON, "stages.evaluate.generation", "stages.evaluate.search_task"),
            libraries=("torch", "transformers", "rapidfuzz"),
            independent_cells=True,
        ),
        StageDefinition(
            name="critic",
            title="generative critic",
            module="stages.evaluate.critic",
            recipe_parts=("backbone", "evaluate"),
            not_used=LOCATION,
            packages=(
                *_COMMON,
                "stages.evaluate.critic",
                "stages.evaluate.bound",
                "stages.evaluate.likelihood",
                "stages.evaluate.score",
                "stages.evaluate.search_task",
            ),
            libraries=("torch", "transformers", "scipy", "pytrec-eval-terrier"),
            independent_cells=True,
        ),
        StageDefinition(
            name="refine",
            title="contrastive refinement (CL)",
            module="stages.refine",
            recipe_parts=("backbone", "refine"),
            not_used=(
                *LOCATION,
                "refine.seeds",
                "refine.arms",
                "refine.steps",  # a cell has its own
                *(f"refine.engine.{name}" for name in ENGINE_ONLY),
            ),
            packages=(*_COMMON, "stages.refine"),
            libraries=("torch", "transformers", "deepspeed", "grain", "peft"),
            distributed=True,
            milestone="steps",
            independent_cells=True,
        ),
        StageDefinition(
            name="mine",
            title="hard negatives",
            module="stages.refine.mining",
            recipe_parts=("backbone", "refine"),
            not_used=(*LOCATION, "refine.seeds", "refine.arms", "refine.steps"),
            packages=(*_COMMON, "stages.refine.mining"),
            libraries=("torch", "transformers", "bm25s"),
        ),
        StageDefinition(
            name="retrieval",
            title="page retrieval",
            module="stages.evaluate.retrieval",
            recipe_parts=("backbone", "evaluate", "refine"),
            not_used=(*LOCATION, *NOT_OF_RETRIEVAL),
            packages=(
                *_COMMON,
                "stages.evaluate.retrieval",
                "stages.evaluate.encoding",
                "stages.evaluate.linear_maps",
                "stages.evaluate.bound",
                "stages.evaluate.search_task",
                "stages.evaluate.score",
                "stages.evaluate.geometry",
            ),
            libraries=("torch", "transformers", "bm25s", "pytrec-eval-terrier", "scipy", "scikit-learn"),
            independent_cells=True,
        ),
        StageDefinition(
            name="law",
            title="scaling law and report",
            module="stages.law",
            recipe_parts=("name", "documents", "backbone", "pretrain", "refine", "evaluate", "law"),
            not_used=LOCATION,
            packages=(*_SHARDS, "stages.law", "stages.train.job"),
            libraries=("scipy", "matplotlib", "jinja2", "rapidfuzz"),
        ),
    )
}


def recipe_part(recipe: Mapping[str, Any], stage: StageDefinition) -> dict[str, Any]:
    """The part of a recipe (as nested dict) that `stage` uses.

    Raises KeyError for a field that the recipe lacks.
    """
    part = copy.deepcopy({name: recipe[name] for name in stage.recipe_parts})
    for dotted in stage.not_used:
        *owners, name = dotted.split(".")
        try:
            del functools.reduce(operator.getitem, owners, part)[name]
        except KeyError as error:
            raise KeyError(
                f"stage {stage.name!r} names the recipe field {dotted!r}, which recipe {recipe['name']} lacks"
            ) from error
    return part


def cell_fingerprint(stage: StageDefinition, recipe: Recipe, cell: Cell, inputs: Mapping[str, str]) -> str:
    """Name of a cell's output.

    `recipe`: the dataclass; `inputs`: name -> content digest of the stage's inputs.
    """
    digests = {**inputs, **{f"cell.{name}": digest for name, digest in cell.inputs.items()}}
    return fingerprint(
        stage=stage.name,
        schema_version=stage.schema_version,
        configuration={"recipe": recipe_part(dataclasses.asdict(recipe), stage), "cell": dict(cell.key)},
        inputs=digests,
        packages=stage.packages,
        libraries=stage.libraries,
    )


def training_fingerprint(
    stage: StageDefinition, recipe: Recipe, cell: Cell, inputs: Mapping[str, str]
) -> str:
    """Name of the training that makes a cell, whose checkpoints it continues from: milestones share one."""
    key = {name: value for name, value in cell.key.items() if name != stage.milestone}
    return cell_fingerprint(stage, recipe, dataclasses.replace(cell, key=key), inputs)


def model_cells(models: Iterable[Reference], **place: Any) -> list[Cell]:
    """One cell per model, for the stages that evaluate models; `place` is added to the key of each."""
    return [
        Cell(
            key={name: model[name] for name in PLACE if name in model} | place,
            job={"model": f"{model['path']}/model"},
            inputs={"model": model["digest"]},
        )
        for model in models
    ]
