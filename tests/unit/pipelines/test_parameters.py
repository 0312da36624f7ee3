"""What a run is made of, from what a person chose; and what they cannot choose."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from data_prep.order import BatchOrder, Lengths
from pipelines import flow as flows
from pipelines.cli import main
from pipelines.parameters import BadParameter, Run, Sweep, folder_digest
from stages.recipes import get_recipe
from stages.refine.config import LARGEST_SEED
from stages.train.checkpoint import Checkpoints
from stages.train.config import MOST_STEPS


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
        ({"seeds": (0, 2**32)}, "4294967296 is no seed: give at most 4,294,967,295"),
        ({"seeds": (10**30,)}, "is no seed"),
        ({"doses": (0, 32 * 10**30)}, "more than a training can see: give at most 31,999,999,968"),
        ({"documents": Path("~nobody-at-all/x")}, "Could not determine home directory"),
        ({"documents": Path("\udcff")}, "not UTF-8"),
    ],
)
def test_bad_parameters_are_named_in_one_line(changes: dict, message: str) -> None:
    with pytest.raises(BadParameter, match=message) as error:
        Run(**changes).checked()
    assert "\n" not in str(error.value)


def test_the_largest_seed_and_dose_are_those_that_every_library_takes() -> None:
    recipe = get_recipe("tiny").pretrain
    largest = Run(seeds=(LARGEST_SEED,), doses=(0, recipe.batch_size * MOST_STEPS)).checked()
    [seed], [_, dose] = largest.seeds, largest.doses
    torch.manual_seed(seed)
    np.random.RandomState(seed)
    order = BatchOrder(sources=[Lengths.of([1, 2, 3])], weights=[1.0], batch_size=2, seed=seed)
    last = dose // recipe.batch_size
    assert len(order.batch(last)) == 2
    # Names are compared as text, and a longer number would come before a shorter one.
    checkpoints = Checkpoints(None, "training")
    assert checkpoints._name(last - 1) < checkpoints._name(last)
    assert len(checkpoints._name(last)) == len(checkpoints._name(0))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OMP_NUM_THREADS", "abc"),
        ("OMP_NUM_THREADS", "0"),
        ("OMP_NUM_THREADS", "-1"),
        ("OMP_NUM_THREADS", "4,2"),
        ("OMP_NUM_THREADS", "1000000000"),
        ("LCO_PROCESSES", "1000000000"),
    ],
)
def test_a_variable_that_a_stage_would_fail_on_is_refused(monkeypatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(BadParameter, match=name) as error:
        Run().checked()
    assert text in str(error.value) and "unset it" in str(error.value)


@pytest.mark.parametrize("text", ["", "1", " 2", "64"])
def test_a_number_of_threads_that_can_be_used_is(monkeypatch, text: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    Run().checked()


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "\u202egnp"])
def test_a_folder_whose_name_would_break_tables_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(BadParameter, match="cannot be shown") as error:
        Sweep(other_documents=(tmp_path / name,), output=tmp_path / "output").checked()
    assert str(error.value).isprintable()


# --- what Prefect's form and API send ------------------------------------------------------------


class Taken(Exception):
    """The flow has got as far as its parameters."""


@pytest.fixture
def flow_parameters(monkeypatch):
    """The parameters with which a flow would go on."""

    def stop(parameters: Run) -> None:
        raise Taken(parameters)

    monkeypatch.setattr(flows, "pipeline_run", stop)

    def called(flow, **given: object) -> Run:
        with pytest.raises(Taken) as taken:
            flow.fn(**given)
        return taken.value.args[0]

    return called


def test_empty_fields_of_the_form_mean_what_it_says(flow_parameters, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LCO_OUTPUT", str(tmp_path / "out"))
    empty = {"documents": "", "doses": [], "seeds": [], "output": ""}
    assert flow_parameters(flows.lco, **empty) == Run().checked()
    assert flow_parameters(flows.sweep, **empty, other_documents=[]) == Sweep().checked()
    assert flow_parameters(flows.lco) == Run().checked()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"documents": "pdfs"}, "documents 'pdfs' is relative"),
        ({"documents": "."}, r"documents '\.' is relative"),
        ({"documents": " "}, "documents ' ' is relative"),
        ({"output": "out"}, "output 'out' is relative"),
        ({"other_documents": ["/", "more"]}, "other_documents 'more' is relative"),
        ({"other_documents": [""]}, "other_documents has an empty entry"),
        ({"doses": [0, 100]}, "no multiple"),
        ({"seeds": [2**40]}, "is no seed"),
    ],
)
def test_a_flow_refuses_what_means_something_else_where_it_runs(
    monkeypatch, tmp_path: Path, given: dict, message: str
) -> None:
    (tmp_path / "pdfs").mkdir()  # it exists, where this process stands
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadParameter, match=message):
        flows.sweep.fn(**given)
    assert [path.name for path in tmp_path.iterdir()] == ["pdfs"]


def test_a_home_folder_works_in_the_form_and_on_the_command_line(
    flow_parameters, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pdfs").mkdir()
    at_home = flow_parameters(flows.lco, documents="~/pdfs", output="~/out")
    assert at_home == Run(documents=Path("~/pdfs"), output=Path("~/out")).checked()
    assert (at_home.documents, at_home.output) == (tmp_path / "pdfs", tmp_path / "out")


def test_a_relative_folder_of_the_command_line_reaches_the_flow_whole(
    flow_parameters, monkeypatch, tmp_path: Path
) -> None:
    (tmp_path / "pdfs").mkdir()
    monkeypatch.chdir(tmp_path)
    parameters = Run(documents=Path("pdfs"), output=Path("out")).checked()
    sent = TypeAdapter(Run).dump_python(parameters, mode="json")
    assert flow_parameters(flows.lco, **sent) == parameters


def test_a_relative_output_beside_a_store_in_a_bucket_reaches_the_flow_whole(
    flow_parameters, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LCO_STORE", "s3://team/lco")
    parameters = Run(output=Path("out")).checked()
    assert parameters.output == tmp_path / "out"
    assert flow_parameters(flows.lco, **TypeAdapter(Run).dump_python(parameters, mode="json")) == parameters


def test_folders_in_a_bucket_reach_the_flow_as_they_are(flow_parameters) -> None:
    parameters = Run(documents=Path("s3://team/pdfs"), output=Path("s3://team/lco")).checked()
    assert flow_parameters(flows.lco, **TypeAdapter(Run).dump_python(parameters, mode="json")) == parameters
    assert parameters.chosen_recipe().target_documents == "s3://team/pdfs"


@pytest.mark.parametrize("arguments", [["--documents", ""], ["--documents="], ["--output", ""]])
def test_a_shell_variable_that_is_not_set_is_not_the_current_folder(capsys, arguments: list[str]) -> None:
    assert main(["run", *arguments]) == 2
    name = arguments[0].removesuffix("=")
    assert (
        capsys.readouterr().err == f"lco: {name} is given an empty value: give one, or leave the option out\n"
    )


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
    (tmp_path / "curve.csv").write_text("phase,step")
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
