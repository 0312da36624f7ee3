"""`lco bootstrap`: options on their way to the stage's program."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli import main


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty folder of documents, and an output folder beside it."""
    monkeypatch.setenv("LCO_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("LCO_PROCESSES", "3")
    (tmp_path / "documents").mkdir()
    return tmp_path


def test_options_reach_the_program_and_those_not_given_do_not(monkeypatch, place):
    commands = []

    def run(command: list[str], env: dict) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", run)
    documents = str(place / "documents")
    settings = ["--work", str(place / "output" / "bootstrap"), "--workers", "3"]
    assert main(["bootstrap", "--recipe", "small", "--documents", documents, "--output", "a"]) == 3
    assert commands[0][:3] == [sys.executable, "-m", "stages.bootstrap"]
    assert commands[0][3:] == ["--recipe", "small", "--documents", documents, "--output", "a", *settings]
    main(["bootstrap", "--documents", documents, "--output", "b", "--steps", "7"])
    shared = ["--recipe", "tiny", "--documents", documents, "--output", "b"]
    assert commands[1][3:] == [*shared, "--steps", "7", *settings]


@pytest.mark.parametrize(
    ("documents", "steps", "message"),
    [
        ("none", "1", "documents folder {place}/none does not exist: check the path"),
        (".", "1", "output {place}/output lies inside the documents folder {place}"),
        ("documents", "0", "steps 0: give 1 or more"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, place, capsys, documents, steps, message):
    monkeypatch.setattr(subprocess, "run", None)
    options = ["--documents", str(place / documents), "--output", "a", "--steps", steps]
    assert main(["bootstrap", *options]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lco: {message.format(place=place)}")


def test_documents_of_which_none_is_usable(place, capfd):
    assert main(["bootstrap", "--documents", str(place / "documents"), "--output", str(place / "model")]) == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error and f"lco: {place / 'documents'}: " in error
    assert not (place / "model").exists()
