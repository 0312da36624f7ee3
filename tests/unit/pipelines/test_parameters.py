"""What a run is made of, from what a person chose; and what they cannot choose."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.parameters import BadParameter, Run, Sweep, folder_digest
from stages.recipes import get_recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"documents": Path("/no/such/folder")}, "/no/such/folder does not exist"),
        ({"documents": Path(__file__)}, "is not a folder"),
        ({"documents": Path(os.fsdecode(b"/caf\xe9"))}, "documents '/caf.*the path is not UTF-8"),
        ({"documents": Path("~nobody-of-this-name/a")}, "write the path without ~"),
        ({"output": Path(__file__)}, "is a file"),
        ({"doses": (32, 64)}, "give 0 and at least one more"),
        ({"doses": (0,)}, "give 0 and at least one more"),
        ({"doses": (0, 32, 32)}, "every value may stand once"),
        ({"doses": (0, -32)}, "negative"),
        ({"doses": (0, 100)}, "100 is no multiple of the batch size 32: give 96 instead"),
        ({"seeds": ()}, "seeds is empty"),
        ({"seeds": (1, 1)}, "every value may stand once"),
    ],
)
def test_bad_parameters_are_named_in_one_line(changes: dict, message: str) -> None:
    with pytest.raises(BadParameter, match=message) as error:
        Run(**changes).checked()
    assert "\n" not in str(error.value)


def test_an_output_inside_the_documents_is_refused(tmp_path: Path) -> None:
    for given in (Run(documents=tmp_path), Sweep(other_documents=(tmp_path,))):
        with pytest.raises(BadParameter, match="lies inside the documents folder"):
            replace(given, output=tmp_path / "output").checked()


def test_the_recipe_names_the_documents_that_are_read(tmp_path: Path) -> None:
    assert Run(documents=tmp_path).checked().chosen_recipe().target_documents == str(tmp_path)
    assert Run().checked().chosen_recipe() == get_recipe("tiny")


def test_doses_and_seeds_have_one_order() -> None:
    parameters = Run(doses=(64, 0, 32), seeds=(2, 0, 1)).checked()
    assert parameters.doses == (0, 32, 64)
    assert parameters.seeds == (0, 1, 2)  # the first one trains what only one seed trains


def test_a_base_model_is_the_same_whenever_it_was_trained(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = folder_digest(tmp_path)
    (tmp_path / "training.json").write_text('{"minutes": 12}')
    (tmp_path / "README.md").write_text("a card")
    assert folder_digest(tmp_path) == before
    (tmp_path / "config.json").write_text('{"layers": 2}')
    assert folder_digest(tmp_path) != before


def test_a_missing_base_is_answered_with_the_command_that_makes_it() -> None:
    small = get_recipe("small")
    if Path(small.backbone.location).is_dir():
        pytest.skip("the base of recipe small has been made here")
    with pytest.raises(BadParameter, match="lco bootstrap --recipe small --documents") as error:
        Run(recipe="small").checked()
    assert f"--output {small.backbone.location}" in str(error.value)
