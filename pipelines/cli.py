"""The `lco` command: run, sweep, plan, up and bootstrap. Imports nothing slow before it must."""

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import tyro

from infra.launcher import local_environment
from infra.settings import Settings
from pipelines.parameters import BadParameter, Run, Sweep, documents_folder
from pipelines.plan import Plan, plan
from pipelines.run import exit_code, run
from pipelines.screen import lasting_screen, open_closed_streams
from stages.recipes import BOOTSTRAPS, get_recipe


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
    """Train a recipe's base model from nothing; the tiny recipe's is in the repository."""

    recipe: BootstrapName = "tiny"
    """Whose base; smoke shares tiny's, the other recipes start from published models."""
    documents: Path
    """Folder of documents in the base language; benchmarks/sample_documents.py makes the one used."""
    output: Path
    """Folder to write the model to."""
    steps: int | None = None
    """Training steps. Default: the recipe's."""


EXAMPLES = """\
Does continual generative pretraining raise page retrieval on these documents?

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
    commands = {Run: run, Sweep: run, Plan: plan, Up: _up, Bootstrap: _bootstrap}
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


def _up(command: Up) -> int:
    from pipelines.up import up

    ports = {"prefect_port": command.prefect_port, "mlflow_port": command.mlflow_port}
    given = {name: port for name, port in ports.items() if port is not None}
    return up(Settings.from_environment(output=command.output).model_copy(update=given))


def _bootstrap(command: Bootstrap) -> int:
    """Train in this process; return the exit status 0."""
    if command.steps is not None and command.steps < 1:
        raise BadParameter(f"steps {command.steps}: give 1 or more, or leave it out for the recipe's")
    settings, config = Settings.from_environment(), BOOTSTRAPS[command.recipe]
    documents = documents_folder(command.documents, output=settings.output)
    settings.make_private()
    with tempfile.TemporaryDirectory(prefix="lco-") as caches:
        # torch reads them when it is loaded.
        os.environ.update(local_environment() | {"TORCHINDUCTOR_CACHE_DIR": caches})
        from stages.bootstrap import bootstrap

        bootstrap(
            get_recipe(command.recipe),
            replace(config, steps=command.steps or config.steps),
            documents,
            command.output,
            work=settings.output / "bootstrap",
            workers=settings.processes,
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
