"""The command line as a person uses it, on the smallest sample documents: minutes become seconds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.recipes import get_recipe

DOCUMENTS = 6  # enough to be split by document, one of them for validation
LCO = [sys.executable, "-m", "pipelines.cli"]


def lco_environment() -> dict[str, str]:
    """Ours without what would lead Prefect or MLflow to somebody else's server."""
    foreign = ("PREFECT_", "MLFLOW_", "LCO_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def lco(*arguments: str | Path, timeout: float = 840, **environment: str) -> subprocess.CompletedProcess:
    """Run a command to its end."""
    ours = lco_environment() | environment
    return subprocess.run([*LCO, *arguments], env=ours, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def few_documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    samples = Path(get_recipe("smoke").target_documents).glob("*.pdf")
    for sample in sorted(samples, key=lambda path: path.stat().st_size)[:DOCUMENTS]:
        shutil.copy(sample, folder)
    return folder
