"""`lco bootstrap`: options on their way to the stage's program, and the advice that leads there."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.parameters import BadParameter, require_base_model
from stages.recipes import get_recipe


def test_options_reach_the_program_and_those_not_given_do_not(monkeypatch, tmp_path):
    commands = []

    def run(command: list[str], env: dict) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", run)
    status = main(["bootstrap", "--recipe", "small", "--documents", "a", "--output", str(tmp_path)])
    assert status == 3
    assert commands[0][:3] == [sys.executable, "-m", "stages.bootstrap"]
    assert commands[0][3:] == ["--recipe", "small", "--documents", "a", "--output", str(tmp_path)]
    main(["bootstrap", "--documents", "a", "--output", "b", "--steps", "7"])
    assert commands[1][3:] == ["--recipe", "tiny", "--documents", "a", "--output", "b", "--steps", "7"]


def test_a_missing_base_is_answered_with_the_command_that_makes_it():
    small = get_recipe("small")
    if Path(small.backbone.location).is_dir():
        pytest.skip("the base of recipe small has been made here")
    with pytest.raises(BadParameter, match="lco bootstrap --recipe small --documents") as error:
        require_base_model(small)
    assert f"--output {small.backbone.location}" in str(error.value)


def test_published_models_need_no_folder():
    require_base_model(get_recipe("paper-3b"))
