"""Sandboxes whose children do what a test tells them."""

import json
import textwrap
from pathlib import Path

import pytest

from infra.sandbox import Limits, Sandbox
from tests.unit.data_prep.conftest import scan  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary-hunter2"
SECRETS = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_KEY", "SECRET")
MODULE = "tests.security.any_program"


@pytest.fixture(scope="module")
def sandbox():
    """One for a module's tests; the process around it has secrets in its environment."""
    limits = Limits(seconds=20, memory_bytes=2**30, file_bytes=100_000)
    with pytest.MonkeyPatch.context() as patch:
        for name in SECRETS:
            patch.setenv(name, CANARY)
        with Sandbox(module=MODULE, limits=limits, processes=2) as running:
            yield running


@pytest.fixture
def told(sandbox):
    """told(program): what a child says that runs it."""

    def run(program: str, inputs=()):
        with sandbox.start({"program": textwrap.dedent(program)}, inputs).result() as output:
            return json.loads(output.read())

    return run
