"""`lco bootstrap`: options on their way to the training."""

from pathlib import Path

import pytest

from infra.process import ProcessFailed
from pipelines.bootstrap import _write_curve
from pipelines.cli import main
from stages.recipes import BOOTSTRAPS, get_recipe

BASE = get_recipe("tiny").backbone.location


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of documents, and an output folder beside it."""
    monkeypatch.setenv("LCO_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("LCO_PROCESSES", "3")
    (tmp_path / "documents").mkdir()
    return tmp_path


def test_options_reach_the_training_and_the_recipe_says_the_others(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    given: list[tuple] = []
    monkeypatch.setattr("pipelines.bootstrap.bootstrap", lambda *a: given.append(a))
    shared = ["bootstrap", "--documents", str(place / "documents"), "--output", "a"]
    assert main([*shared, "--recipe", "small"]) == main([*shared, "--steps", "7", "--base", BASE]) == 0
    paths = (place / "documents", Path("a"))
    assert given[0][:4] == (get_recipe("small"), BOOTSTRAPS["small"], *paths)
    assert given[1][0] == get_recipe("tiny") and given[1][2:4] == paths
    assert (given[1][1].steps, given[1][1].base, given[0][1].base) == (7, BASE, "")
    monkeypatch.chdir(Path(BASE).parent)
    assert main([*shared, "--base", Path(BASE).name]) == 0 and given[2][1].base == BASE
    assert given[0][4].processes == 3 and given[0][4].output == place / "output"


@pytest.mark.parametrize(
    ("documents", "steps", "message"),
    [
        ("none", "1", "documents folder {place}/none does not exist: check the path"),
        (".", "1", "output {place}/output lies inside the documents folder {place}"),
        ("documents", "0", "steps 0: give 1 or more"),
        ("documents", "1", "{place}/documents: no documents found"),
    ],
)
def test_bad_input_is_one_line(place: Path, capsys, documents: str, steps: str, message: str) -> None:
    options = ["--documents", str(place / documents), "--output", str(place / "model"), "--steps", steps]
    assert main(["bootstrap", *options]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"lco: {message.format(place=place)}")
    assert not (place / "model").exists()


def test_a_base_that_is_not_there_is_one_line(place: Path, capsys) -> None:
    options = ["--documents", str(place / "documents"), "--output", str(place / "model")]
    assert main(["bootstrap", *options, "--base", str(place)]) == 2
    assert capsys.readouterr().err.startswith(f"lco: base {place}: no model is there")


def test_a_training_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, place: Path, capsys) -> None:
    def bootstrap(*arguments: object) -> None:
        raise ProcessFailed(
            command="stages.bootstrap.program",
            outcome="failed",
            exit_code=1,
            reason="failed with exit code 1",
            log_path=place / "output.log",
        )

    monkeypatch.setattr("pipelines.bootstrap.bootstrap", bootstrap)
    options = ["--documents", str(place / "documents"), "--output", str(place / "model")]
    assert main(["bootstrap", *options]) == 1
    assert "stages.bootstrap.program failed with exit code 1" in capsys.readouterr().err


def test_the_curve_has_the_mean_loss_of_each_objective_for_every_hundred_steps(tmp_path: Path) -> None:
    def step(objective: str, loss: float | None) -> dict:
        return {"objective": objective, "loss": loss, "skipped": None if loss is not None else "loss"}

    first = [step("transcribe_image", 2.0)] * 100 + [step("transcribe_image", 1.0), step("repeat_text", None)]
    _write_curve(tmp_path / "curve.csv", [first, [step("summarize_text", 4.0)]])
    assert (tmp_path / "curve.csv").read_text().splitlines() == [
        "phase,step,transcribe_image,summarize_image,summarize_text,repeat_text",
        "1,100,2.0,,,",
        "1,102,1.0,,,",
        "2,103,,,4.0,",
    ]
