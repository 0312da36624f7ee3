from pathlib import Path

import pytest

from stages.backbone import build_tiny_backbone
from stages.recipes import get_recipe
from tests.integration.restarting import Bench
from tests.unit.stages.conftest import SHAPE, backbone, samples, split_folder  # noqa: F401


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    build_tiny_backbone(SHAPE, get_recipe("tiny").backbone, seed=0).save(folder)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, model, split_folder):  # noqa: F811
    """{stage: bench} after a run in one go."""
    benches = {}

    def bench(stage: str) -> Bench:
        if stage not in benches:
            benches[stage] = Bench(tmp_path_factory.mktemp(stage), model, split_folder, stage)
            benches[stage].run()
        return benches[stage]

    return bench


@pytest.fixture
def bench(tmp_path, model, split_folder):  # noqa: F811
    return lambda stage: Bench(tmp_path, model, split_folder, stage)
