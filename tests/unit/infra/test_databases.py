"""A database that MLflow or Prefect cannot use is one line that says what to do, before either is loaded."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import mlflow
import prefect
import pytest

from infra.databases import (
    UnusableDatabase,
    _installed_revisions,
    check_mlflow_database,
    check_prefect_database,
)
from infra.mlflow_client import MLflow
from infra.settings import Settings, SettingsError, database_address
from tests.unit.infra.databases import execute, older_mlflow_database, scripts

ROOT = Path(__file__).parents[3]
SET_REVISION = "UPDATE alembic_version SET version_num = ?"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An output folder with the databases that the installed libraries make."""
    settings = Settings(output=tmp_path_factory.mktemp("output"))
    MLflow(settings)
    program = (
        "from prefect.server.database import provide_database_interface as db; import asyncio;"
        "asyncio.run(db().create_db())"
    )
    address = database_address(settings.prefect_database).replace("sqlite", "sqlite+aiosqlite", 1)
    ours = {"PREFECT_HOME": str(settings.prefect_home), "PREFECT_SERVER_DATABASE_CONNECTION_URL": address}
    subprocess.run([sys.executable, "-c", program], env=os.environ | ours, check=True, timeout=200)
    return settings


@pytest.fixture
def settings(made: Settings, tmp_path: Path) -> Settings:
    """A copy of it."""
    shutil.copytree(made.output, tmp_path / "output")
    return Settings(output=tmp_path / "output")


def check_both(settings: Settings) -> None:
    check_prefect_database(settings)
    check_mlflow_database(settings)


def refusal(settings: Settings) -> str:
    with pytest.raises(UnusableDatabase) as raised:
        check_both(settings)
    assert isinstance(raised.value, SettingsError) and "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(("name", "library"), [("MLflow", mlflow), ("Prefect", prefect)])
def test_the_revisions_are_those_that_alembic_finds(name, library):
    known = scripts(Path(library.__file__).parent, name)
    found, newest = _installed_revisions(name)
    assert found == {script.revision for script in known.walk_revisions()}
    assert [newest] == known.get_heads()


def test_databases_of_the_installed_versions_and_none_at_all_are_used(settings, tmp_path):
    check_both(settings)
    check_both(Settings(output=tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_nothing_slow_is_imported(settings):
    program = (
        "import sys; from infra.databases import *; from infra.settings import Settings;"
        f"settings = Settings(output={str(settings.output)!r});"
        "check_mlflow_database(settings); check_prefect_database(settings);"
        "sys.exit(bool({'mlflow', 'prefect', 'alembic', 'sqlalchemy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_a_newer_mlflow_wrote_it(settings):
    execute(settings.output / "mlflow.db", SET_REVISION, "ffffffffffff")
    told = refusal(settings)
    assert told.startswith(
        f"MLflow's database {settings.output / 'mlflow.db'} was written by a newer version"
    )
    assert "revision ffffffffffff is not known" in told
    assert f"install that version again, or name another output folder than {settings.output}" in told


def test_a_newer_prefect_wrote_it_which_matters_only_to_a_server_of_ours(settings):
    execute(settings.prefect_database, SET_REVISION, "ffffffffffff")
    told = refusal(settings)
    assert told.startswith(f"Prefect's database {settings.prefect_database} was written by a newer version")
    check_mlflow_database(settings)


def test_an_older_prefect_database_is_prefects_to_migrate(settings):
    known = scripts(Path(prefect.__file__).parent, "Prefect")
    execute(settings.prefect_database, SET_REVISION, list(known.walk_revisions())[5].revision)
    check_both(settings)


def test_an_older_mlflow_database_is_usable_after_the_command_that_the_line_names(tmp_path):
    settings = Settings(output=tmp_path / "my output")
    path = settings.output / "mlflow.db"
    known = scripts(Path(mlflow.__file__).parent, "MLflow")
    older_mlflow_database(path, list(known.walk_revisions())[1].revision)
    check_both(settings)  # a first start that was killed: MLflow goes on
    execute(path, "INSERT INTO experiments (name, lifecycle_stage) VALUES ('lco', 'active')")
    told = refusal(settings)
    assert told.startswith(f"MLflow's database {path} was written by an older version of MLflow: make a copy")
    upgrade = told.partition("then run ")[2].partition(" (or")[0]
    subprocess.run(upgrade, shell=True, check=True, timeout=120, capture_output=True)
    check_both(settings)
    assert execute(path, "SELECT name FROM experiments") == [("lco",)]


def test_a_client_refuses_what_the_command_would_refuse(settings):
    execute(settings.output / "mlflow.db", SET_REVISION, "ffffffffffff")
    with pytest.raises(UnusableDatabase):
        MLflow(settings)


def test_a_file_that_is_no_database(settings):
    settings.prefect_database.write_text("SQLite, but not really" * 100)
    assert f"{settings.prefect_database} is no SQLite database: move the file away, or" in refusal(settings)


def test_a_damaged_database(settings):
    path = settings.output / "mlflow.db"
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(4000) + content[4100:])
    assert f"{path} is damaged" in refusal(settings)


def test_a_folder_in_its_place(settings):
    path = settings.output / "mlflow.db"
    path.unlink()
    path.mkdir()
    assert f"{path} cannot be opened: see that it is a file" in refusal(settings)


def test_a_database_that_somebody_holds(settings, monkeypatch):
    monkeypatch.setattr("infra.databases.LOCK_SECONDS", 0.1)
    path = settings.output / "mlflow.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert f"{path} is locked by another program: end that one, or" in refusal(settings)
    check_both(settings)


@pytest.mark.parametrize(("name", "mode"), [("mlflow.db", 0o444), (".", 0o555)])
def test_a_database_that_may_only_be_read(made, name, mode):
    """In a process that is not root, who may write everything."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        shutil.copytree(made.output, output)
        Path(folder).chmod(0o755)
        output.chmod(0o777)
        (output / "mlflow.db").chmod(0o666)
        (output / name).chmod(mode)
        program = (
            "import os; from infra.databases import *; os.geteuid() or os.setuid(65534)\n"
            f"try: check_mlflow_database(Settings(output={str(output)!r}))\n"
            "except UnusableDatabase as error: print(error)"
        )
        command = [sys.executable, "-c", program]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        told = f"{output / 'mlflow.db'} may not be written: get the right to write it and its folder, or name"
        assert told in result.stdout, result.stderr
        output.chmod(0o777)


def test_the_database_of_another_program(settings):
    path = settings.output / "mlflow.db"
    path.unlink()
    execute(path, "CREATE TABLE songs (title TEXT)")
    assert refusal(settings).startswith(
        f"{path} is a database, but not MLflow's: move the file away, or name"
    )
    assert execute(path, "SELECT name FROM sqlite_master") == [("songs",)]


def test_prefects_database_is_none_of_mlflows(settings):
    given = Settings(output=settings.output, tracking_uri=database_address(settings.prefect_database))
    told = refusal(given)
    assert told.startswith(f"MLflow's database {settings.prefect_database} was written by a newer version")
    assert told.endswith("or name another database with LCO_TRACKING_URI")
