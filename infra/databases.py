"""The SQLite databases of MLflow and Prefect, looked at before these open them: which version wrote them.

What they cannot use ends in a traceback of alembic's. Neither is imported here: that takes seconds.
"""

import importlib.metadata
import importlib.util
import os
import re
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

from infra.settings import Settings, SettingsError, command, database_address, database_path

LOCK_SECONDS = 5.0
_REVISION = re.compile(r"""^(down_)?revision(?:\s*:[^=]+)?\s*=\s*["'](\w+)["']""", re.MULTILINE)
_MIGRATIONS = {
    "MLflow": "store/db_migrations/versions",
    "Prefect": "server/database/_migrations/versions/sqlite",
}
_FIRST_TABLE = {"MLflow": "experiments", "Prefect": "flow"}
_TROUBLES = {
    sqlite3.SQLITE_BUSY: "is locked by another program: end that one",
    sqlite3.SQLITE_NOTADB: "is no SQLite database: move the file away",
    sqlite3.SQLITE_CORRUPT: "is damaged: put a copy in its place, or move it away",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: see that it is a file, and that it and its folder are yours",
}


class UnusableDatabase(SettingsError):
    """A database of another version, or a file that is none; the message says what to do."""


def check_prefect_database(settings: Settings) -> None:
    """Raises UnusableDatabase where a Prefect server of ours cannot use its file."""
    _revisions_of(settings.prefect_database, "Prefect", _another_folder(settings))


def check_mlflow_database(settings: Settings) -> None:
    """Raises UnusableDatabase where MLflow is to use SQLite, and cannot use this file."""
    path = database_path(settings.tracking_uri)
    if path is None:
        return
    inside = path.parent == settings.output
    elsewhere = _another_folder(settings) if inside else "name another database with LCO_TRACKING_URI"
    found = _revisions_of(path, "MLflow", elsewhere)
    _, newest = _installed_revisions("MLflow")
    # MLflow would migrate it in place, without a copy, or refuse it. One without an experiment was left by a
    # first start that was killed: MLflow goes on with it.
    if found and newest not in found and _has_experiments(path):
        upgrade = f"{command('mlflow')} db upgrade {shlex.quote(database_address(path))}"
        raise UnusableDatabase(
            f"MLflow's database {path} was written by an older version of MLflow: make a copy of it, then "
            f"run {upgrade} (or {elsewhere})"
        )


def _another_folder(settings: Settings) -> str:
    return f"name another output folder than {settings.output}"


def _revisions_of(path: Path, name: str, elsewhere: str) -> set[str]:
    """What a database says of its version, all known to the installed library; nothing while it is empty."""
    if not path.exists():
        return set()
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        missing = "may not be written: get the right to write it and its folder"
        raise UnusableDatabase(f"{name}'s database {path} {missing}, or {elsewhere}")
    try:
        with closing(_opened(path)) as database:
            database.execute("BEGIN IMMEDIATE")  # nobody else holds it for long
            tables = tables_of(database)
            asked = "SELECT version_num FROM alembic_version"
            found = {one for (one,) in database.execute(asked)} if "alembic_version" in tables else set()
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what the extended codes add
        trouble = _TROUBLES.get(code, f"cannot be used ({error}): see to it")
        raise UnusableDatabase(f"{name}'s database {path} {trouble}, or {elsewhere}") from error
    known, _ = _installed_revisions(name)
    if unknown := found - known:
        installed = importlib.metadata.version(name.lower())
        raise UnusableDatabase(
            f"{name}'s database {path} was written by a newer version of {name} than {installed}, which is "
            f"installed (revision {', '.join(sorted(unknown))} is not known): install that version again, or "
            f"{elsewhere}"
        )
    if not found and tables - {"alembic_version"} and _FIRST_TABLE[name] not in tables:
        raise UnusableDatabase(f"{path} is a database, but not {name}'s: move the file away, or {elsewhere}")
    return found


def tables_of(database: sqlite3.Connection) -> set[str]:
    """Names of its tables."""
    return {one for (one,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _opened(path: Path) -> sqlite3.Connection:
    """An existing database; the caller begins its transactions."""
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS, isolation_level=None)


def _has_experiments(path: Path) -> bool:
    with closing(_opened(path)) as database:
        return bool(database.execute("SELECT 1 FROM experiments LIMIT 1").fetchall())


def _installed_revisions(name: str) -> tuple[set[str], str]:
    """All revisions that the installed library can migrate from, and the newest."""
    package = Path(importlib.util.find_spec(name.lower()).origin).parent
    before, all_of_them = set(), set()
    for script in (package / _MIGRATIONS[name]).glob("*.py"):
        for older, revision in _REVISION.findall(script.read_text(encoding="utf-8")):
            (before if older else all_of_them).add(revision)
    [newest] = all_of_them - before
    return all_of_them, newest
