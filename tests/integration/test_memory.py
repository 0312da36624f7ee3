"""The planned bytes of weights, gradients and optimiser are those that two DeepSpeed processes hold."""

import json

import pytest

from infra.launcher import Launch, LocalLauncher
from stages.train.config import EngineConfig
from stages.train.cost import state_bytes

PARAMETERS = 1_331_776  # recipe tiny
VISION = 336_704  # not reached by a text: no gradients
CASES = [(1, "float32"), (1, "bfloat16"), (2, "bfloat16"), (3, "bfloat16")]


@pytest.fixture(scope="module")
def held(tmp_path_factory) -> dict[tuple[int, str], dict[str, int]]:
    folder = tmp_path_factory.mktemp("memory")
    job = {"processes": 2, "cases": CASES, "output": str(folder / "held.json")}
    (folder / "job.json").write_text(json.dumps(job))
    launch = Launch(
        module="tests.integration.held_bytes",
        job_path=folder / "job.json",
        processes=2,
        threads=1,
        log_path=folder / "log",
    )
    LocalLauncher().run(launch, lambda event: None)
    return dict(zip(CASES, json.loads((folder / "held.json").read_text()), strict=True))


@pytest.mark.parametrize(("zero_stage", "precision"), CASES)
def test_deepspeed_holds_what_is_planned(held, zero_stage, precision):
    engine = EngineConfig(zero_stage=zero_stage, precision=precision)
    planned = state_bytes(engine, trained=PARAMETERS, frozen=0, processes=2)
    width = 4 if precision == "float32" else 2
    # Shards are rounded up a little; a vision tower would have gradients if it had had an image.
    assert held[zero_stage, precision]["weights"] == pytest.approx(planned["weights"], rel=1e-3)
    assert held[zero_stage, precision]["optimizer"] == pytest.approx(planned["optimizer"], rel=1e-3)
    assert held[zero_stage, precision]["gradients"] == planned["gradients"] - width * VISION
