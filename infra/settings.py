"""Where things are on this machine: output root, tracking, ports. Read once, at the edge, and passed down."""

import difflib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.launcher import usable_cores

# Each loads torch and a model of its own: more of them than this is somebody's decision, not a default.
MOST_PROCESSES = 8
# Where every server of ours listens: from another machine, use an SSH tunnel with the same port numbers.
LOOPBACK = "127.0.0.1"
SQLITE = "sqlite:///"
# Names in the output folder beside those that have a property.
_OURS = ("store", "documents", "logs", "bootstrap", "mlflow.db", "report.html", ".lock", ".servers.lock")
Port = Annotated[int, Field(gt=0, lt=65536, title="a port: give a number from 1 to 65535")]
Count = Annotated[int, Field(gt=0, title="a number of processes: give 1 or more")]


def without_password(text: str) -> str:
    """An address, or a message with addresses in it, without `user:password@`: as it may be shown."""
    return re.sub(r"(?<=://)[^/?#\s]*@", "", text)


def database_address(path: Path) -> str:
    """`sqlite:///...` of a database at `path`: SQLAlchemy reads `%20` as a space, and ends a path at `?`."""
    return SQLITE + str(path).replace("%", "%25").replace("?", "%3F")


def database_path(address: str) -> Path | None:
    """Where the database of an address `sqlite:///...` is; None for a server's or one in memory."""
    path = unquote(address.removeprefix(SQLITE).partition("?")[0])
    return Path(path) if address.startswith(SQLITE) and path not in ("", ":memory:") else None


def command(name: str) -> str:
    """A program of our environment, as a line for any shell: the user's PATH need not have it."""
    path = Path(sys.executable).with_name(name)
    return shlex.quote(str(path)) if path.is_file() else name


class SettingsError(Exception):
    """A setting cannot be used."""


def absolute_path(path: Path) -> Path:
    """The same place wherever a process stands later. Raises ValueError, in words for people."""
    try:
        absolute = path.expanduser().absolute()
        os.fsencode(absolute).decode()
    except RuntimeError as error:
        raise ValueError(f"{error}: write the path without ~") from error
    except FileNotFoundError as error:
        raise ValueError(
            "the current folder has been removed: go to another, or give a whole path"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError("the path is not UTF-8, and databases cannot name it: choose another") from error
    return absolute


def _tracker(uri: str) -> str:
    path, (_, mark, options) = database_path(uri), uri.partition("?")
    if path is None and uri.startswith("sqlite"):
        raise ValueError(f"no run would find what another recorded: give {SQLITE}PATH of a file")
    return uri if path is None else f"{database_address(absolute_path(path))}{mark}{options}"


def bucket_address(place: Path | str) -> str | None:
    """`s3://bucket/prefix` of what a person gave as a place, also where it was made a path; else None."""
    found = re.fullmatch(r"s3:/{1,2}([^/].*)", str(place))
    return f"s3://{found[1].rstrip('/')}" if found else None


def _store(place: str) -> str:
    if address := bucket_address(place):
        return address
    if "://" in place:
        raise ValueError("there is no store of this kind: give a folder, or s3://bucket/prefix")
    return str(absolute_path(Path(place)))


def _require_known(environment: Mapping[str, str], known: Iterable[str]) -> None:
    """Raises SettingsError for a variable that is nearly one of ours: it was meant to be."""
    names = [f"LCO_{name.upper()}" for name in known]
    for name in sorted(name for name in environment if name.startswith("LCO_") and name not in names):
        if meant := difflib.get_close_matches(name, names, 1, 0.85):
            raise SettingsError(f"{name} is no setting: {meant[0]} is; rename the variable, or unset it")


class Settings(BaseSettings):
    """Paths below one output root, and the addresses of the servers that `lco up` starts.

    What is not given is read from LCO_OUTPUT, _TRACKING_URI, _EXPERIMENT, _STORE, _CACHE_GIB, _PROCESSES,
    _PREFECT_PORT and _MLFLOW_PORT. `tracking_uri` is an SQLite database below the output root, or the address
    of an MLflow server. `store`: where committed outputs are, a folder or `s3://bucket/prefix`; of what is in
    a bucket, `cache_gib` stay here after a run. `processes` may run at once in a stage; independent cells run
    side by side in them.
    """

    model_config = SettingsConfigDict(env_prefix="LCO_", env_ignore_empty=True, extra="forbid", frozen=True)

    output: Annotated[Path, AfterValidator(absolute_path)] = Field(Path("lco-output"), validate_default=True)
    tracking_uri: Annotated[str, AfterValidator(_tracker)] = Field(
        default_factory=lambda given: database_address(given["output"] / "mlflow.db")
    )
    experiment: Annotated[str, Field(max_length=500, title="a name of at most 500 characters")] = "lco"
    store: Annotated[str, AfterValidator(_store)] = Field(
        default_factory=lambda given: str(given["output"] / "store")
    )
    cache_gib: Annotated[float, Field(ge=0, title="a size in GiB: give 0 or more")] = 100.0
    processes: Count = Field(default_factory=lambda: min(usable_cores(), MOST_PROCESSES))
    prefect_port: Port = 4200
    mlflow_port: Port = 5000

    @property
    def bucket(self) -> str | None:
        """`s3://bucket/prefix`, where the store is in one too."""
        return bucket_address(self.store)

    @property
    def store_folder(self) -> Path:
        """Where programs read and write committed outputs, whether or not a bucket has them too."""
        return self.output / "store" if self.bucket else Path(self.store)

    @property
    def tracks_here(self) -> bool:
        """Whether MLflow is a database file, and no server."""
        return self.tracking_uri.startswith("sqlite:")

    @property
    def places(self) -> dict[str, str]:
        """As variables, where everything is: for a process that stands elsewhere."""
        given = {"OUTPUT": self.output, "STORE": self.store, "TRACKING_URI": self.tracking_uri}
        return {f"LCO_{name}": str(place) for name, place in given.items()}

    @property
    def runs(self) -> Path:
        """A folder for each run, with its journal, job files and logs."""
        return self.output / "runs"

    @property
    def artifact_root(self) -> Path:
        """Files that MLflow holds, when it runs on SQLite here."""
        return self.output / "mlflow-artifacts"

    @property
    def prefect_home(self) -> Path:
        """Prefect's database and results."""
        return self.output / "prefect"

    @property
    def prefect_database(self) -> Path:
        """The file of the Prefect server that we start."""
        return self.prefect_home / "prefect.db"

    @property
    def credential_path(self) -> Path:
        """The file with the name and password that the servers of the last `lco up` ask for."""
        return self.output / "credential"

    @property
    def prefect_url(self) -> str:
        """The Prefect page; its API is below /api."""
        return f"http://{LOOPBACK}:{self.prefect_port}"

    @property
    def mlflow_url(self) -> str:
        """The MLflow page that `lco up` serves."""
        return f"http://{LOOPBACK}:{self.mlflow_port}"

    def make_private(self) -> None:
        """Let nobody else read what this process and its children write, nor what is in the output folder.

        A folder that was there before keeps its own mode: it may be shared. What we made in it does not.
        Raises SettingsError where there can be no such folder.
        """
        os.umask(0o077)
        _make(self.output, "output folder", "--output")
        if not self.store_folder.is_relative_to(self.output):
            _make(self.store_folder, "store", "LCO_STORE")
        ours = (self.runs, self.artifact_root, self.prefect_home, *(self.output / name for name in _OURS))
        for path in ours:
            if path.exists() and path.stat().st_uid == os.geteuid():
                path.chmod(0o700 if path.is_dir() else 0o600)

    @classmethod
    def from_environment(cls, *, output: Path | str | None = None) -> "Settings":
        """Settings; `output`, from a command line, wins. Raises SettingsError, in one line.

        An `output` in a bucket is the store; logs and databases stay in the usual folder.
        """
        _require_known(os.environ, cls.model_fields)
        given = {"store": address} if (address := bucket_address(output or "")) else {"output": output}
        try:
            return cls(**(given if output else {}))
        except ValidationError as error:
            wrong = error.errors()[0]
            name = wrong["loc"][0]
            if "error" in wrong.get("ctx", {}):  # ours, in words
                raise SettingsError(f"{name} {str(wrong['input'])!r}: {wrong['ctx']['error']}") from error
            meant = cls.model_fields[name].title or wrong["msg"]
            raise SettingsError(f"LCO_{name.upper()}={wrong['input']!r} is not {meant}") from error


def _make(folder: Path, what: str, option: str) -> None:
    """Make a folder, where it is missing. Raises SettingsError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror.lower()
        raise SettingsError(
            f"{what} {folder} cannot be made ({reason}): name another with {option}"
        ) from error
