"""Settings come from the environment once; nothing is served beyond this machine."""

import os
import re
from pathlib import Path

import pytest

from infra.settings import Settings, SettingsError, database_path, without_password


@pytest.fixture
def given(monkeypatch):
    """Set variables of the environment."""
    for field in Settings.model_fields:
        monkeypatch.delenv(f"LCO_{field.upper()}", raising=False)
    return lambda **variables: [monkeypatch.setenv(f"LCO_{name}", text) for name, text in variables.items()]


def test_defaults_lie_below_the_current_folder(given, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given(EXPERIMENT="", PREFECT_PORT="")  # set to nothing is not set
    settings = Settings.from_environment()
    assert settings.output == tmp_path / "lco-output"
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/lco-output/mlflow.db"
    folders = (Path(settings.store), settings.runs, settings.prefect_home, settings.artifact_root)
    assert {folder.parent for folder in folders} == {settings.output}
    assert (settings.prefect_url, settings.mlflow_url) == ("http://127.0.0.1:4200", "http://127.0.0.1:5000")
    assert (settings.experiment, 1 <= settings.processes <= 8) == ("lco", True)


def test_the_environment_is_read_and_the_command_line_wins(given):
    given(OUTPUT="~/out", TRACKING_URI="http://host:9", MLFLOW_PORT="5001", PROCESSES="3", EXPERIMENT="e")
    settings = Settings.from_environment()
    assert (settings.output, settings.tracking_uri) == (Path.home() / "out", "http://host:9")
    assert (settings.mlflow_port, settings.processes, settings.experiment) == (5001, 3, "e")
    assert Settings.from_environment(output="/other").output == Path("/other")


@pytest.mark.parametrize(
    ("name", "text", "meant"),
    [(name, text, "a port: give a number from 1 to 65535") for name in ("PREFECT_PORT", "MLFLOW_PORT")
     for text in ("0", "65536", "x", "-1")]
    + [("PROCESSES", text, "a number of processes: give 1 or more") for text in ("0", "-1", "two")],
)  # fmt: skip
def test_a_number_that_cannot_be_used_is_refused_in_one_line(given, name, text, meant):
    given(**{name: text})
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment()
    assert str(caught.value) == f"LCO_{name}={text!r} is not {meant}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://anna:p%40ss@host:5000/x", "http://host:5000/x"),
        ("postgresql://anna@host/mlflow", "postgresql://host/mlflow"),
        ("http://anna:p@ss@host", "http://host"),
        ("no answer from https://anna:secret@a.b/c, ask me@a.b", "no answer from https://a.b/c, ask me@a.b"),
        ("http://host:5000/page@2", "http://host:5000/page@2"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_its_password(text, shown):
    assert without_password(text) == shown


def test_relative_places_are_those_of_the_folder_where_the_person_stands(given, monkeypatch, tmp_path):
    """Servers and runs have other current folders."""
    monkeypatch.chdir(tmp_path)
    given(OUTPUT="out", STORE="kept", TRACKING_URI="sqlite:///runs.db")
    settings = Settings.from_environment()
    monkeypatch.chdir("/")
    assert (settings.output, settings.store) == (tmp_path / "out", str(tmp_path / "kept"))
    assert settings.tracking_uri == f"sqlite:///{tmp_path / 'runs.db'}"
    for name, place in settings.places.items():
        monkeypatch.setenv(name, place)
    assert Settings.from_environment() == settings, "another process, elsewhere, finds the same"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "STORE",
            "gs://bucket/place",
            "there is no store of this kind: give a folder, or s3://bucket/prefix",
        ),
        (
            "TRACKING_URI",
            "sqlite:///:memory:",
            "no run would find what another recorded: give sqlite:///PATH",
        ),
        ("TRACKING_URI", "sqlite+pysqlite:///runs.db", "give sqlite:///PATH of a file"),
        ("EXPERIMENT", "e" * 501, "is not a name of at most 500 characters"),
        ("PROCESES", "3", "LCO_PROCESES is no setting: LCO_PROCESSES is; rename the variable, or unset it"),
        ("MLFLOW_PROT", "5001", "LCO_MLFLOW_PROT is no setting: LCO_MLFLOW_PORT is"),
    ],
)
def test_what_would_fail_late_or_be_passed_over_is_one_line(given, name, text, told):
    given(**{name: text})
    with pytest.raises(SettingsError, match=f"^[^\n]*{re.escape(told)}[^\n]*$"):
        Settings.from_environment()


@pytest.mark.parametrize("place", ["s3://bucket/a/b", "s3://bucket/a/b/", Path("s3://bucket/a/b")])
def test_an_output_in_a_bucket_is_its_store_and_the_rest_stays_here(given, monkeypatch, tmp_path, place):
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environment(output=place)
    assert (settings.bucket, settings.output) == ("s3://bucket/a/b", tmp_path / "lco-output")
    assert settings.store_folder == tmp_path / "lco-output" / "store"
    for name, value in settings.places.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment() == settings, "another process, elsewhere, finds the same"


def test_variables_of_our_processes_and_of_other_programs_are_no_settings(given):
    given(SUPERVISION="x", LIFE_LINE="x", SCRATCH="x", RENDEZVOUS="x", TEST_GO_ON="x", MLFLOW_CREDENTIAL="x")
    given(SOMETHING_ELSE="x")
    Settings.from_environment()


def test_a_store_that_cannot_be_made_is_one_line_too(given, tmp_path):
    (tmp_path / "file").touch()
    given(STORE=str(tmp_path / "file" / "store"))
    with pytest.raises(SettingsError, match=r"^store .* cannot be made .*: name another with LCO_STORE$"):
        Settings.from_environment(output=tmp_path / "out").make_private()


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (b"/tmp/caf\xe9", "the path is not UTF-8"),
        (b"~nobody-of-this-name/out", "write the path without ~"),
    ],
)
def test_an_output_folder_that_cannot_be_used_is_one_line(given, output, reason):
    with pytest.raises(SettingsError, match=f"^output .*{reason}[^\n]*$"):
        Settings.from_environment(output=os.fsdecode(output))


def test_a_current_folder_that_is_gone_is_one_line(given, monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SettingsError, match="the current folder has been removed: go to another"):
        Settings.from_environment()
    assert Settings.from_environment(output=tmp_path).output == tmp_path


@pytest.mark.parametrize("name", ["file/inside", "x" * 300, "round/and/round"])
def test_an_output_folder_that_cannot_be_made_is_one_line(given, tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(SettingsError, match=r"^output folder .* cannot be made \([a-z ]+\): name another"):
        Settings.from_environment(output=tmp_path / name).make_private()


def test_the_database_lies_where_its_address_leads_whatever_the_folder_is_called(
    given, monkeypatch, tmp_path
):
    (folder := tmp_path / "a%20b?c").mkdir()
    monkeypatch.chdir(folder)
    for uri, path in (("sqlite:///x.db", "x.db"), ("sqlite:///my%20x.db?timeout=5", "my x.db")):
        given(TRACKING_URI=uri)
        settings = Settings.from_environment()
        assert database_path(settings.tracking_uri) == folder / path
        assert settings.tracking_uri.endswith(uri.partition("x.db")[2])
