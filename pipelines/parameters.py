"""The parameters of a run, checked before anything slow is imported."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from infra.launcher import threads_of_each, usable_cores
from infra.settings import Settings, absolute_path, bucket_address
from stages.recipes import RECIPES, Recipe, get_recipe
from stages.refine.config import LARGEST_SEED
from stages.train.config import MOST_STEPS

# From the table itself, so that the command line and Prefect's form offer what exists.
RecipeName = Literal[tuple(RECIPES)]  # type: ignore[valid-type]
FOLDERS = ("documents", "other_documents", "output")
# Of the settings' `processes`, for each usable core: each loads torch and a model of its own.
MOST_PROCESSES_A_CORE = 8


class BadParameter(ValueError):
    """A parameter cannot be used; the message is one line that says which, why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Run the whole pipeline here, from documents to a verdict. No server needed."""

    recipe: RecipeName = "tiny"
    """Named configuration: model, training, evaluation and the verdict's thresholds."""
    documents: Path | None = None
    """Folder of PDFs and page images, read with its subfolders, or s3://bucket/prefix. Default: the sample
    documents."""
    output: Path | None = None
    """Folder for outputs, reports and logs; what is in it is reused. With s3://bucket/prefix, outputs and
    reports are there too, for all machines. Default: LCO_OUTPUT, else ./lco-output."""
    doses: tuple[int, ...] | None = None
    """Numbers of pretraining examples to compare, 0 among them. Default: the recipe's."""
    seeds: tuple[int, ...] | None = None
    """Seeds of contrastive refinement, one model each per dose. Default: the recipe's."""
    flow: ClassVar[str] = "lco"

    def checked(self) -> Self:
        """With absolute paths, sorted doses and seeds. Raises BadParameter, and SettingsError.

        All that can be known without the documents: a run that fails for it later has computed for nothing.
        """
        settings = Settings.from_environment(output=self.output)
        _require_usable_environment(settings)
        output = settings.output
        if output.exists() and not output.is_dir():
            raise BadParameter(f"output {output} is a file: name a folder")
        recipe = get_recipe(self.recipe)
        require_base_model(recipe)
        return replace(
            self,
            output=self.output if bucket_address(self.output or "") else output,
            documents=self.documents and documents_folder(self.documents, output=output),
            doses=None if self.doses is None else _doses(self.doses, recipe.pretrain.batch_size),
            seeds=None if self.seeds is None else _seeds(self.seeds),
        )

    def chosen_recipe(self) -> Recipe:
        """The named recipe with the documents, doses and seeds that the person chose."""
        recipe = get_recipe(self.recipe)
        documents = self.documents or recipe.target_documents
        return replace(
            recipe,
            target_documents=bucket_address(documents) or str(documents),
            pretrain=replace(recipe.pretrain, doses=self.doses or recipe.pretrain.doses),
            refine=replace(recipe.refine, seeds=self.seeds or recipe.refine.seeds),
        )


@dataclass(frozen=True, kw_only=True)
class Sweep(Run):
    """Run a sweep: doses, seeds, controls, ceilings, baselines, the bound. No server needed.

    The recipe's part `sweep` says what is in it. An hour or more with recipe tiny on two cores; an
    interrupted one goes on when it is started again, and what `lco run` made is reused."""

    other_documents: tuple[Path, ...] = ()
    """Folders that are only searched, to see how far what was learned carries."""
    flow: ClassVar[str] = "sweep"

    def checked(self) -> Self:
        checked = super().checked()
        return replace(checked, other_documents=_other_folders(self.other_documents, checked.output))

    def chosen_recipe(self) -> Recipe:
        """The recipe whose doses, seeds and arms are those of its sweep, or what the person chose.

        Doses of arms and controls that are not among the person's are left out; the highest always has them.
        """
        recipe = super().chosen_recipe()
        plan = recipe.sweep
        doses, seeds = self.doses or plan.doses, self.seeds or plan.seeds

        def kept(chosen: Iterable[int], always: set[int]) -> tuple[int, ...]:
            return tuple(sorted((set(chosen) & set(doses)) | always))

        compared = kept(plan.compared_doses, {0, max(doses)})
        controls = kept(set(plan.control_doses) - {0}, {max(doses)})
        arms = (recipe.law.primary_arm, *plan.arms)
        return replace(
            recipe,
            pretrain=replace(recipe.pretrain, doses=doses),
            refine=replace(recipe.refine, seeds=seeds, arms=arms),
            sweep=replace(plan, doses=doses, seeds=seeds, compared_doses=compared, control_doses=controls),
        )


def from_form(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a flow is given as parameters of a `Run`: an empty field of Prefect's form is not given.

    Raises BadParameter for a relative folder: the process of a deployment's run does not stand where the
    person does who names it.
    """
    told = {name: value for name, value in given.items() if value not in (None, "", [], ())}
    for name in FOLDERS:
        folders = told.get(name, ())
        for folder in [folders] if isinstance(folders, str) else folders:
            if not folder:
                raise BadParameter(f"{name} has an empty entry: name a folder there, or remove it")
            if not folder.startswith(("/", "~")) and not bucket_address(folder):
                raise BadParameter(
                    f"{name} {folder!r} is relative, and this process stands in another folder than you: "
                    "give the whole path, from / or ~ on"
                )
    return told


def _require_usable_environment(settings: Settings) -> None:
    """Raises BadParameter for a variable that a stage would fail on."""
    try:
        threads_of_each(1)
    except ValueError as error:
        raise BadParameter(str(error)) from error
    most = MOST_PROCESSES_A_CORE * usable_cores()
    if settings.processes > most:
        raise BadParameter(
            f"LCO_PROCESSES={settings.processes} is too much for {usable_cores()} usable core(s): "
            f"give {most} or fewer, or unset it"
        )


def base_model_digest(recipe: Recipe) -> str:
    """What names the model that pretraining starts from: the content of its folder, or its hub id."""
    location = Path(recipe.backbone.location)
    return folder_digest(location) if location.is_dir() else f"hub:{location}"


def require_base_model(recipe: Recipe) -> None:
    """Raises BadParameter when the model that the recipe starts from is a folder that is missing."""
    location = Path(recipe.backbone.location)
    if location.is_absolute() and not location.is_dir():
        raise BadParameter(
            f"recipe {recipe.name!r} starts from {location}, which does not exist: run first "
            f"`lco bootstrap --recipe {recipe.name} --documents BASE_LANGUAGE_DOCUMENTS --output {location}`"
        )


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) over the relative paths and bytes of a model's files: not its card, nor training.json
    and the curves (CSV), which tell how it was trained."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix in {".md", ".csv"} or file.name == "training.json":
            continue
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def documents_folder(documents: Path, *, output: Path) -> Path:
    """The absolute path of a folder that can be read and does not hold `output`; a bucket's address as it is.

    Raises BadParameter.
    """
    if bucket_address(documents):
        return documents
    try:
        documents = absolute_path(documents)
    except ValueError as error:
        raise BadParameter(f"documents {str(documents)!r}: {error}") from error
    if not documents.exists():
        raise BadParameter(f"documents folder {documents} does not exist: check the path")
    if not documents.is_dir():
        raise BadParameter(f"documents {documents} is not a folder: name the folder that holds the PDFs")
    if not os.access(documents, os.R_OK | os.X_OK):
        raise BadParameter(f"documents folder {documents} cannot be read: check its permissions")
    if output.resolve().is_relative_to(documents.resolve()):
        raise BadParameter(
            f"output {output} lies inside the documents folder {documents}: "
            "the next run would read it as documents"
        )
    return documents


def _other_folders(others: Sequence[Path], output: Path) -> tuple[Path, ...]:
    folders = tuple(documents_folder(folder, output=output) for folder in others)
    names = [folder.name for folder in folders]
    taken = [
        name for name in names if names.count(name) > 1 or name in ("test", "validation", "target", "base")
    ]
    if taken:
        raise BadParameter(
            f"other documents: the folder name {taken[0]!r} is taken: rename or link the folder"
        )
    for name in names:
        if not name.isprintable():
            raise BadParameter(
                f"other documents: the folder name {name!r} cannot be shown in tables and figures: rename or "
                "link the folder"
            )
    return folders


def _doses(doses: Sequence[int], multiple_of: int) -> tuple[int, ...]:
    _distinct_and_not_negative("doses", doses)
    if 0 not in doses or len(doses) < 2:
        raise BadParameter(
            f"doses {list(doses)}: give 0 and at least one more, "
            "the verdict compares the highest dose with dose 0"
        )
    odd = [dose for dose in doses if dose % multiple_of]
    if odd:
        nearest = max(multiple_of, round(odd[0] / multiple_of) * multiple_of)
        raise BadParameter(
            f"doses {list(doses)}: {odd[0]} is no multiple of the batch size {multiple_of}: "
            f"give {nearest} instead"
        )
    if max(doses) > multiple_of * MOST_STEPS:
        raise BadParameter(
            f"doses {list(doses)}: {max(doses)} is more than a training can see: give at most "
            f"{multiple_of * MOST_STEPS:,}"
        )
    return tuple(sorted(doses))


def _seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    _distinct_and_not_negative("seeds", seeds)
    if not seeds:
        raise BadParameter("seeds is empty: give at least one, or leave it out for the recipe's")
    if max(seeds) > LARGEST_SEED:
        raise BadParameter(f"seeds {list(seeds)}: {max(seeds)} is no seed: give at most {LARGEST_SEED:,}")
    return tuple(sorted(seeds))  # the first one trains what only one seed trains


def _distinct_and_not_negative(name: str, values: Sequence[int]) -> None:
    if any(value < 0 for value in values):
        raise BadParameter(f"{name} {list(values)}: negative values make no sense, use 0 and above")
    if len(set(values)) != len(values):
        raise BadParameter(f"{name} {list(values)}: every value may stand once")
