from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.launcher import LocalLauncher
from stages.backbones.tiny import build_tiny_backbone
from stages.recipes import get_recipe
from tests.integration.restarting import Bench
from tests.unit.stages.conftest import SHAPE, backbone, samples, split_folder  # noqa: F401


@pytest.fixture(scope="session")
def launcher() -> Iterator[LocalLauncher]:
    """One preloaded parent for all launches of the session: imports take longer than most tests."""
    with LocalLauncher(preload=["tests.integration.interrupted", "stages.refine.program"]) as launcher:
        yield launcher


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A random backbone, committed as CGP commits one: the weights are in MODEL/model."""
    folder = tmp_path_factory.mktemp("cgp")
    build_tiny_backbone(SHAPE, get_recipe("tiny").backbone, seed=0).save(folder / "model")
    return folder


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory, launcher, model, split_folder):  # noqa: F811
    """{stage: bench} after a run in one go."""
    benches = {}

    def bench(stage: str) -> Bench:
        if stage not in benches:
            benches[stage] = Bench(tmp_path_factory.mktemp(stage), launcher, model, split_folder, stage)
            benches[stage].run()
        return benches[stage]

    return bench


@pytest.fixture
def bench(tmp_path, launcher, model, split_folder):  # noqa: F811
    return lambda stage: Bench(tmp_path, launcher, model, split_folder, stage)
