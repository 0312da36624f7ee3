"""The `lco` command: inspect, run, sweep, plan, up and bootstrap. Imports nothing slow before it must."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import tyro
from rich.console import Console

from infra.settings import Settings, bucket_address
from pipelines.console import terminal_reporter
from pipelines.parameters import BadParameter, RecipeName, Run, Sweep, documents_folder
from pipelines.plan import Plan, plan
from pipelines.run import exit_code, run
from pipelines.screen import lasting_screen, open_closed_streams
from stages.recipes import BOOTSTRAPS, get_recipe


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Show what the reader makes of documents, before anything is trained on them.

    Reads PDFs and page images as a run does, in the same sandbox, and keeps nothing: which blocks there are,
    which of them are trained on, and what is left out or refused, and why. With --html, the pages to look at.

    For example
      lco inspect scan.pdf ~/pdfs
      lco inspect ~/pdfs --html seen
      lco inspect ~/pdfs --recipe paper-3b
      lco inspect scan.pdf --model lco-output --html seen
      lco inspect a.pdf --json | jq 'select(.trainable == false)'

    Ends with status 1 if no document could be read.
    """

    files: tyro.conf.Positional[tuple[Path, ...]]
    """PDFs and page images, and folders of them, which are read with their subfolders. An image takes the
    .txt of the same name beside it."""
    recipe: RecipeName = "tiny"
    """Whose settings say what a block is."""
    unit: Literal["page", "block"] | None = None
    """Read whole pages, or a block for each paragraph. Default: the recipe's."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON lines, and nothing else on standard output. One for each block, or page that is read whole:
    `document`, `page` (from 1), `block` (from 0; null: the whole page), `text`, `box` ([left, top, right,
    bottom] in pixels of the page at the recipe's dots per inch, from its upper left), `ink` ([darkest,
    lightest] grey of what the box shows, 0 to 255), `trainable`, `reason` (why it is not trained on).
    One for each refused file or page: `document`, `page` (null: the file), `reason`. One for each page with
    text that is in no block: `document`, `page`, `left_out` ({reason: characters}). With --model, blocks have
    `written` too."""
    html: Path | None = None
    """Write the pages with their boxes in reading order to this folder, to be opened in a browser. It must be
    new, empty or of an earlier `lco inspect`, whose pages are replaced."""
    model: Path | None = None
    """Show what this model writes when it reads the blocks, beside their text: the folder of a model, or the
    output folder of a run, whose checkpoint of the highest dose is taken."""


@dataclass(frozen=True, kw_only=True)
class Up:
    """Start Prefect, MLflow and the deployment lco/full-pipeline on this machine; Ctrl-C stops all."""

    output: Path | None = None
    """Folder for databases, outputs, reports and logs. Default: LCO_OUTPUT, else ./lco-output."""
    prefect_port: int | None = None
    """Port of the Prefect server. Default: LCO_PREFECT_PORT, else 4200."""
    mlflow_port: int | None = None
    """Port of the MLflow server. Default: LCO_MLFLOW_PORT, else 5000."""


BootstrapName = Literal[tuple(BOOTSTRAPS)]  # type: ignore[valid-type]


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Train a recipe's base model; the tiny recipe's is in the repository."""

    recipe: BootstrapName = "tiny"
    """Whose base; smoke shares tiny's, the other recipes start from published models."""
    documents: Path
    """Folder of documents in the base language; benchmarks/typeface_documents.py makes those used."""
    base: Path | None = None
    """Folder of a base to go on from, with long passages only. Default: random weights."""
    output: Path
    """Folder to write the model to."""
    steps: int | None = None
    """Training steps. Default: the recipe's."""


EXAMPLES = """\
Does continual generative pretraining raise page retrieval on these documents?

  lco inspect ~/pdfs --html seen                   what is read of your documents, page by page
  lco run                                          the sample documents, recipe tiny
  lco run --documents ~/pdfs --output ~/lco        your own folder of PDFs
  lco run --documents ~/pdfs --recipe smoke        only whether it runs on them: minutes, no verdict
  lco run --doses 0 3200 9600 --seeds 0 1 2        other doses and seeds
  lco sweep                                        more doses, controls, ceilings, the bound
  lco plan --recipe paper-3b --gpus 8              memory, time and GPU-hours before a launch
  lco plan --recipe tiny --device cpu --peak-tflops 0.05
  lco up                                           Prefect and MLflow pages, then:
  prefect deployment run lco/full-pipeline --watch
  lco bootstrap --documents corpus --output base   a base model from random weights
"""

Command = (
    Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Up, tyro.conf.subcommand("up")]
    | Annotated[Bootstrap, tyro.conf.subcommand("bootstrap")]
)


def main(arguments: list[str] | None = None) -> int:
    """Parse `arguments` (default: the command line), run the command, return the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    with lasting_screen():
        return exit_code(lambda: _run(given))


def _run(arguments: Sequence[str]) -> int:
    _require_no_empty(arguments)
    command = tyro.cli(
        Command, prog="lco", description=EXAMPLES, args=arguments, config=(tyro.conf.OmitArgPrefixes,)
    )
    commands = {Run: run, Sweep: run, Inspect: _inspect, Plan: plan, Up: _up, Bootstrap: _bootstrap}
    return commands[type(command)](command)


def _require_no_empty(arguments: Sequence[str]) -> None:
    """Raises BadParameter: the path of a shell's variable that is not set would mean the current folder."""
    option = "lco"
    for argument in arguments:
        if argument.startswith("--"):
            option, given, value = argument.partition("=")
        else:
            given, value = True, argument
        if given and not value:
            raise BadParameter(f"{option} is given an empty value: give one, or leave the option out")


def _inspect(command: Inspect) -> int:
    if not command.files:
        raise BadParameter("inspect: name the files to read, or a folder")
    from pipelines.inspect import inspect  # slow to import: codecs

    recipe = get_recipe(command.recipe)
    config = recipe.documents.reading
    return inspect(
        command.files,
        recipe,
        replace(config, unit=command.unit or config.unit),
        as_json=command.json,
        html=command.html,
        model=command.model,
        workers=Settings.from_environment().processes,
    )


def _up(command: Up) -> int:
    from pipelines.up import up

    ports = {"prefect_port": command.prefect_port, "mlflow_port": command.mlflow_port}
    given = {name: port for name, port in ports.items() if port is not None}
    return up(Settings.from_environment(output=command.output).model_copy(update=given))


def _bootstrap(command: Bootstrap) -> int:
    """Train; return the exit status 0."""
    if command.steps is not None and command.steps < 1:
        raise BadParameter(f"steps {command.steps}: give 1 or more, or leave it out for the recipe's")
    if command.base and not (command.base / "config.json").is_file():
        raise BadParameter(
            f"base {command.base}: no model is there; name a folder that `lco bootstrap` wrote"
        )
    base = str(command.base.absolute()) if command.base else ""  # ranks may work elsewhere
    settings, config = Settings.from_environment(), BOOTSTRAPS[command.recipe]
    documents = documents_folder(command.documents, output=settings.output)
    if bucket_address(documents):
        raise BadParameter(f"documents {command.documents}: a base is trained on a folder; fetch them first")
    settings.make_private()
    from pipelines.bootstrap import bootstrap

    bootstrap(
        get_recipe(command.recipe),
        replace(config, steps=command.steps or config.steps, base=base),
        documents,
        command.output,
        settings,
        terminal_reporter(Console()),
    )
    return 0


def program() -> NoReturn:
    """`main`, as a process of its own that ends with it."""
    open_closed_streams()
    code = main()
    # All of ours has ended. The interpreter's own end would wait for Prefect's client, and that, for minutes,
    # for a server that is gone.
    os._exit(code)


if __name__ == "__main__":
    program()
