"""Where MLflow's SQLite database says that files lie: whole paths, wrong once the output folder was moved.

A run's artifacts would go to the old place, and those that are there would not be found.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from infra.databases import LOCK_SECONDS, tables_of
from infra.settings import Settings, SettingsError, database_path

_PLACES = (  # table, column, which rows
    ("experiments", "artifact_location", ""),
    ("runs", "artifact_uri", ""),
    ("logged_models", "artifact_location", ""),
    ("model_versions", "source", ""),
    ("model_versions", "storage_location", ""),
    ("tags", "value", "WHERE key IN ('logs', 'output', 'report')"),
)


def repair_artifact_locations(settings: Settings) -> None:
    """Lead MLflow to the files of an output folder that was moved or copied with its database.

    What lies elsewhere, or never was in the folder, stays. Nothing to do without a database of SQLite. Raises
    SettingsError where the experiment's files would go to a folder that is gone, and cannot be led back.
    """
    path = database_path(settings.tracking_uri)
    if path is None or not path.exists():
        return
    with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database, database:
        tables = tables_of(database)
        if not {"experiments", "runs", "tags"} <= tables:  # MLflow has not made them yet
            return
        if settings.output.exists() and path.parent.samefile(settings.output):
            _repair(database, tables, settings)
        _require_place(database, settings)


def _repair(database: sqlite3.Connection, tables: set[str], settings: Settings) -> None:
    earlier = _earlier_outputs(database, settings) - {settings.output}
    if not earlier:
        return
    for table, column, which in _PLACES:
        if table not in tables:
            continue
        for row, value in database.execute(f"SELECT rowid, {column} FROM {table} {which}").fetchall():
            place = _moved(value, earlier, settings.output)
            if place is not None:
                database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (place, row))


def _earlier_outputs(database: sqlite3.Connection, settings: Settings) -> set[Path]:
    """Where the folder was when its runs wrote their logs, or when MLflow made its default experiment."""
    logs = [Path(one) for (one,) in database.execute("SELECT DISTINCT value FROM tags WHERE key = 'logs'")]
    ours = (one for one in logs if not _only_there(one, settings.runs / one.name))
    found = {one.parents[1] for one in ours if one.parent.name == settings.runs.name} - {Path("/")}
    default = database.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0")
    for (location,) in default:
        place = _local_path(location)
        if place is not None and place.match(f"{settings.artifact_root.name}/0"):
            found.add(place.parents[1])
    return found


def _only_there(old: Path, new: Path) -> bool:
    """Whether something stayed where it was: a run with another output folder has used this database."""
    return old.exists() and not new.exists()


def _moved(value: str | None, earlier: Iterable[Path], output: Path) -> str | None:
    """Where a file or folder is now that was in an earlier output folder; None if it stays what it is."""
    old = _local_path(value)
    if old is None:
        return None
    holders = [folder for folder in (*earlier, output) if old.is_relative_to(folder)]
    holder = max(holders, key=lambda folder: len(folder.parts), default=output)
    new = output / old.relative_to(holder) if holder != output else old
    if new == old or _only_there(old, new):
        return None
    return new.as_uri() if value.startswith("file:") else str(new)


def _local_path(value: str | None) -> Path | None:
    """The path of a `file:` address or a plain path; None for other addresses."""
    if value and value.startswith("file:"):
        return Path(unquote(urlsplit(value).path))
    return Path(value) if value and value.startswith("/") else None


def _require_place(database: sqlite3.Connection, settings: Settings) -> None:
    """Raises SettingsError where MLflow would make a folder anew that is gone."""
    asked = "SELECT artifact_location FROM experiments WHERE name = ?"
    for (location,) in database.execute(asked, (settings.experiment,)):
        place = _local_path(location)
        inside = place is None or place.is_relative_to(settings.output)
        if not inside and not place.exists() and not place.parent.exists():
            raise SettingsError(
                f"MLflow experiment {settings.experiment!r} keeps its files in {place}, and {place.parent} "
                "is not there: bring that folder back, or set LCO_EXPERIMENT to another name"
            )
