"""What a person sees when something is wrong, and the exit status."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.errors import NoUsableDocuments
from infra.launcher import LocalLauncher
from infra.settings import Settings
from infra.store import CorruptOutput
from pipelines.cli import main
from pipelines.parameters import BadParameter
from pipelines.run import exit_code
from pipelines.runner import OutputMissing, PipelineRun, run_stage
from pipelines.stage_table import Output
from pipelines.sweep_cells import base_model, pretrain_work
from tests.unit.pipelines.conftest import Workplace

ROOT = Path(__file__).parents[3]


@pytest.fixture
def real(workplace: Workplace) -> Iterator[PipelineRun]:
    """A run whose stages are processes."""
    with LocalLauncher() as launcher:
        yield workplace.new_run(launcher=launcher)


def pretrain(run: PipelineRun, *doses: int) -> list[Output]:
    return run_stage(run, "pretrain", inputs={}, work=pretrain_work(base_model(run.recipe), doses))


def test_a_failed_stage_says_how_it_ended_where_its_log_is_and_keeps_what_it_finished(
    real: PipelineRun, capsys: pytest.CaptureFixture
) -> None:
    assert exit_code(lambda: pretrain(real, 0, 666)) == 1
    message, log = capsys.readouterr().err, real.logs / "pretrain" / "output.log"
    assert "fake_stages failed with exit code 1" in message
    assert "the made-up loss became NaN" in message
    assert str(log) in message and log.is_file()
    [kept] = pretrain(real, 0)
    assert kept.path.name in (real.logs / "pretrain" / "job.json").read_text()
    assert not (real.logs / "pretrain-2").exists(), "it was computed again"


def test_a_stage_that_commits_too_little_is_an_error_and_its_log_its_own(real: PipelineRun) -> None:
    pretrain(real, 0)
    with pytest.raises(OutputMissing, match="did not commit dose 777") as missing:
        pretrain(real, 777)
    log = real.logs / "pretrain-2" / "output.log"
    assert str(missing.value).endswith(f"see {log}") and log.is_file()


def test_damaged_outputs_and_leftovers_are_errors_not_silent_recomputations(workplace: Workplace) -> None:
    outputs = workplace.run()
    weights = outputs["pretrain"][0].path / "model" / "weights.json"
    content = weights.read_text()
    weights.write_text("damaged")
    with pytest.raises(CorruptOutput, match=r"weights\.json"):
        workplace.run()
    weights.write_text(content)
    folder = outputs["retrieval"][0].path
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(CorruptOutput):
        workplace.run()


def test_documents_of_which_none_is_usable(workplace: Workplace, capsys: pytest.CaptureFixture) -> None:
    workplace.write("target", "a.txt", "")
    assert exit_code(workplace.run) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(NoUsableDocuments):
        workplace.run()


def test_passwords_of_servers_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.run import prefect_of_the_run
    from pipelines.up import up

    secret = "http://anna:secret@127.0.0.1:9"
    with pytest.raises(BadParameter, match=r"LCO_TRACKING_URI=http://127\.0\.0\.1:9: "):
        up(Settings(output=tmp_path, tracking_uri=secret))
    monkeypatch.setenv("PREFECT_API_URL", f"{secret}/api")
    unreachable = pytest.raises(BadParameter, match=r"PREFECT_API_URL=http://127\.0\.0\.1:9/api does")
    with unreachable, prefect_of_the_run(Settings(output=tmp_path)):
        pass


def test_the_command_refuses_bad_input_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "run", "--documents", str(tmp_path / "none")]
    ours = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=ours, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"lco: documents folder {tmp_path / 'none'} does not exist: check the path"
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "example"),
    [
        ([], "lco run --documents"),
        ([], "prefect deployment run lco/full-pipeline --watch"),
        (["plan"], "lco plan --recipe paper-3b --gpus 8 --device h100 --price 2.50"),
    ],
)
def test_help_shows_examples(capsys: pytest.CaptureFixture, command: list[str], example: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0 and example in capsys.readouterr().out
