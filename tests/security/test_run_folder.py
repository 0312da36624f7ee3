"""The folder of a run is named after its flow run, and whoever reaches Prefect's API names that."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import runner


@given(
    name=st.text()
    | st.sampled_from(["x/../../escaped", "..", ".", "", "/etc", "a\0b", "-", "n" * 5000, "đọc"])
)
def test_whatever_the_name_is_the_folder_is_new_and_lies_directly_below_the_runs(
    tmp_path_factory, name
) -> None:
    runs = tmp_path_factory.mktemp("output") / "runs"
    folders = [runner.new_run_folder(runs, name) for _ in range(3)]
    assert len(set(folders)) == 3
    for folder in folders:
        assert folder.is_dir() and folder.resolve().parent == runs.resolve()
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,100}", folder.name)
    assert [path.name for path in runs.parent.iterdir()] == ["runs"]


@pytest.mark.parametrize("other", ["a b", "a/b", "a:b"])
def test_two_runs_of_one_second_whose_names_become_equal_have_two_folders(
    tmp_path: Path, monkeypatch, other
) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "20261130-101010")
    one, two = runner.new_run_folder(tmp_path, "a.b"), runner.new_run_folder(tmp_path, other)
    assert (one.name, two.name) == ("20261130-101010-a-b", "20261130-101010-a-b-2")
