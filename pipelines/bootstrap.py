"""`lco bootstrap`: the program `stages.bootstrap`, in the foreground of this terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from infra.launcher import local_environment
from infra.settings import Settings
from pipelines.parameters import BadParameter, documents_folder


def bootstrap(*, recipe: str, documents: Path, output: Path, steps: int | None) -> int:
    """Run `python -m stages.bootstrap --name value ...` in this terminal; return its exit status.

    `steps`: None, those of the recipe. Raises BadParameter.
    """
    if steps is not None and steps < 1:
        raise BadParameter(f"steps {steps}: give 1 or more, or leave it out for the recipe's")
    settings = Settings.from_environment()
    options = {
        "recipe": recipe,
        "documents": documents_folder(documents, output=settings.output),
        "output": output,
        "steps": steps,
        "work": settings.output / "bootstrap",
        "workers": settings.processes,
    }
    given = {name: value for name, value in options.items() if value is not None}
    arguments = [text for name, value in given.items() for text in (f"--{name}", str(value))]
    environment = {**os.environ, **local_environment()}
    return subprocess.run([sys.executable, "-m", "stages.bootstrap", *arguments], env=environment).returncode
