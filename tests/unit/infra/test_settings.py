"""Settings come from the environment once; nothing is served beyond this machine."""

from pathlib import Path

import pytest

from infra.settings import Settings, SettingsError, without_password


def test_defaults_lie_below_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environment({})
    assert settings.output == tmp_path / "lco-output"
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/lco-output/mlflow.db"
    assert (
        settings.store_root.parent == settings.runs.parent == settings.prefect_home.parent == settings.output
    )
    assert (settings.prefect_url, settings.mlflow_url) == ("http://127.0.0.1:4200", "http://127.0.0.1:5000")


def test_the_environment_is_read_and_the_command_line_wins():
    given = {"LCO_OUTPUT": "/data/out", "LCO_TRACKING_URI": "http://127.0.0.1:9", "LCO_MLFLOW_PORT": "5001"}
    settings = Settings.from_environment(given)
    assert (settings.output, settings.tracking_uri, settings.mlflow_port) == (
        Path("/data/out"),
        "http://127.0.0.1:9",
        5001,
    )
    assert Settings.from_environment(given, output="/other").output == Path("/other")


@pytest.mark.parametrize("processes", ["0", "-1", "two"])
def test_a_number_of_processes_that_is_none_is_refused(processes):
    assert Settings.from_environment({"LCO_PROCESSES": "3"}).processes == 3
    with pytest.raises(SettingsError, match="LCO_PROCESSES"):
        Settings.from_environment({"LCO_PROCESSES": processes})


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1"])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(SettingsError, match="LCO_PREFECT_PORT"):
        Settings.from_environment({"LCO_PREFECT_PORT": port})


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
