import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.launcher import Launch, LocalLauncher
from stages.backbones.tiny import build_tiny_backbone
from stages.recipes import get_recipe
from tests.integration.restarting import Bench
from tests.unit.stages.conftest import SHAPE, backbone, queries_folder, samples, split_folder  # noqa: F401

Run = Callable[..., None]


@pytest.fixture(scope="session")
def launch() -> Iterator[Run]:
    """launch(module, job, folder): a job's file and log in a folder, and `module.main` to its end.

    One preloaded parent serves all launches of the session: imports take longer than most tests.
    """

    def run(module: str, job: dict, folder: Path, *, name: str = "job") -> None:
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.json"
        path.write_text(json.dumps(job))
        launch = Launch(
            module=module,
            job_path=path,
            processes=job["processes"],
            threads=1,
            log_path=folder / f"{name}.log",
            journal_path=folder / "journal.jsonl",
        )
        launcher.run(launch, lambda event: None)

    with LocalLauncher(preload=["tests.integration.restarting", "stages.refine.program"]) as launcher:
        yield run


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A random backbone as CGP commits one: the weights are in MODEL/model."""
    folder = tmp_path_factory.mktemp("cgp")
    build_tiny_backbone(SHAPE, get_recipe("tiny").backbone, seed=0).save(folder / "model")
    return folder


@pytest.fixture
def bench(tmp_path, launch, model, split_folder, queries_folder):  # noqa: F811
    def new(stage: str, name: str = "") -> Bench:
        return Bench(tmp_path / name, launch, model, split_folder, queries_folder, stage)

    return new


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory, launch, model, split_folder, queries_folder):  # noqa: F811
    """{stage: bench} after a run in one go."""
    benches = {}

    def bench(stage: str) -> Bench:
        if stage not in benches:
            root = tmp_path_factory.mktemp(stage)
            benches[stage] = Bench(root, launch, model, split_folder, queries_folder, stage)
            benches[stage].run()
        return benches[stage]

    return bench
