"""Real databases of MLflow, of this version and of older ones."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from infra.databases import _MIGRATIONS


def scripts(package: Path, name: str) -> ScriptDirectory:
    """A library's migrations, as alembic reads them."""
    config = Config()
    versions = package / _MIGRATIONS[name]
    config.set_main_option("script_location", str(package))
    config.set_main_option("version_locations", str(versions))
    config.set_main_option("path_separator", "newline")
    return ScriptDirectory.from_config(config)


def older_mlflow_database(path: Path, revision: str) -> None:
    """What the MLflow of `revision` had left, with an experiment in it."""
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base

    path.parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    config = utils._get_alembic_config(str(engine.url))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def execute(path: Path, statement: str, *values: Any) -> list[tuple]:
    """The rows of one statement, committed."""
    with closing(sqlite3.connect(path)) as database, database:
        return database.execute(statement, values).fetchall()
