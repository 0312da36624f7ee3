"""Where the server is ours, we alone configure Prefect; where it is the person's, they do."""

import os
from pathlib import Path

import httpx
import pytest

from infra.process import child_environment
from infra.settings import Settings
from pipelines.prefect_settings import our_prefect, prefect_environment, users_prefect, users_server

OURS = {"PREFECT_API_URL": "http://127.0.0.1:7/api", "PREFECT_API_AUTH_STRING": "lco:secret"}
THEIRS = {
    "PREFECT_API_KEY": "theirs",
    "PREFECT_PROFILE": "theirs",
    "PREFECT_HOME": "/theirs",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////theirs.db",
    "MLFLOW_TRACKING_URI": "http://theirs",
    "MLFLOW_TRACKING_TOKEN": "theirs",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "all_proxy": "socks5://127.0.0.1:9",
    "NO_PROXY": "intranet",
}


@pytest.fixture(autouse=True)
def theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PREFECT_", "MLFLOW_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in THEIRS.items():
        monkeypatch.setenv(name, value)


def of_prefect() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("PREFECT_")}


def test_nothing_of_the_persons_is_left_where_both_are_ours_and_all_is_back_afterwards(
    tmp_path: Path,
) -> None:
    settings, before, here = Settings(output=tmp_path), dict(os.environ), Path.cwd()
    with pytest.raises(RuntimeError), our_prefect(settings, OURS):
        assert of_prefect() == OURS | {
            name: value for name, value in prefect_environment(settings, {}).items() if name in of_prefect()
        }
        assert os.environ["PREFECT_HOME"] == str(tmp_path / "prefect") == str(Path.cwd())
        assert not [name for name in os.environ if name.startswith("MLFLOW_")]
        assert not {"HTTP_PROXY", "all_proxy"} & os.environ.keys()
        raise RuntimeError
    assert (dict(os.environ), Path.cwd()) == (before, here)


def test_a_tracker_elsewhere_is_reached_as_mlflow_reaches_it_and_loopback_directly(tmp_path: Path) -> None:
    settings = Settings(output=tmp_path, tracking_uri="http://tracker:5000")
    with our_prefect(settings, OURS):
        assert os.environ["MLFLOW_TRACKING_TOKEN"] == "theirs"
        assert os.environ["HTTP_PROXY"] == THEIRS["HTTP_PROXY"]
        assert os.environ["no_proxy"] == "intranet,127.0.0.1,localhost,::1"
        client = httpx.Client()  # as Prefect makes it; the SOCKS proxy would have it ask for a library
        assert client._transport_for_url(httpx.URL(OURS["PREFECT_API_URL"])) is client._transport
        assert client._transport_for_url(httpx.URL("http://tracker:5000")) is not client._transport


def test_a_server_of_the_persons_gets_their_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert users_server() is None
    monkeypatch.setenv("PREFECT_API_URL", "")
    assert users_server() is None, "empty is unset"
    assert prefect_environment(Settings(output=tmp_path))["PREFECT_HOME"] == "/theirs"
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:8/api")
    here = Path.cwd()
    with users_prefect(Settings(output=tmp_path, tracking_uri="http://tracker")):
        kept = THEIRS.keys() - {"NO_PROXY"}
        assert {name: os.environ[name] for name in kept} == {name: THEIRS[name] for name in kept}
        assert Path.cwd() == here and os.environ["NO_PROXY"].startswith("intranet,127.0.0.1")


def test_a_tracker_of_ours_is_not_configured_by_the_persons_variables_beside_their_prefect_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:8/api")
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "")
    with users_prefect(Settings(output=tmp_path)):
        assert not [name for name in os.environ if name.startswith("MLFLOW_")]
        assert os.environ["PREFECT_CLIENT_MAX_RETRIES"] == "2", "empty is unset"
    with users_prefect(Settings(output=tmp_path, tracking_uri="http://tracker")):
        assert os.environ["MLFLOW_TRACKING_TOKEN"] == "theirs"


def test_what_the_person_names_from_where_they_stand_is_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"SSL_CERT_FILE": "ca.pem", "HF_HOME": "models", "PYTHONPATH": "a:/b", "LCO_STORE": "store"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    whole = {"SSL_CERT_FILE": f"{tmp_path}/ca.pem", "HF_HOME": f"{tmp_path}/models"}
    whole |= {"PYTHONPATH": f"{tmp_path}/a:/b"}
    assert child_environment({}).items() >= whole.items()
    assert child_environment({"PYTHONPATH": "c:/d"})["PYTHONPATH"] == f"{tmp_path}/c:/d"
    settings = Settings.from_environment(output="out")
    with our_prefect(settings, OURS):
        assert child_environment({}).items() >= whole.items()
        assert Settings.from_environment() == settings and settings.store == f"{tmp_path}/store"


def test_a_current_folder_that_is_removed_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for removed_before in (True, False):
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        if removed_before:
            (tmp_path / "here").rmdir()
        with our_prefect(Settings(output=tmp_path / "out"), OURS):
            if not removed_before:
                (tmp_path / "here").rmdir()
