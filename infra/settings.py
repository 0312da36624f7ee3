"""Where things are on this machine: output root, tracking, ports. Read once, at the edge, and passed down."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.launcher import usable_cores

DEFAULT_OUTPUT = "lco-output"
# Each loads torch and a model of its own: more of them than this is somebody's decision, not a default.
MOST_PROCESSES = 8
# Where every server of ours listens. None asks who is there, and a Prefect server runs what it is told to:
# from another machine, use an SSH tunnel.
LOOPBACK = "127.0.0.1"


def without_password(text: str) -> str:
    """An address, or a message with addresses in it, without `user:password@`: as it may be shown."""
    return re.sub(r"(?<=://)[^/?#\s]*@", "", text)


class SettingsError(Exception):
    """A setting cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Paths below one output root, and the addresses of the servers that `lco up` starts.

    `tracking_uri` is an SQLite database below the output root, or the address of an MLflow server.
    """

    output: Path = field(default_factory=lambda: Path(DEFAULT_OUTPUT).absolute())
    tracking_uri: str = ""
    experiment: str = "lco"
    processes: int = field(default_factory=lambda: min(usable_cores(), MOST_PROCESSES))
    """Processes that a stage may use at once; independent cells run side by side in them."""
    prefect_port: int = 4200
    mlflow_port: int = 5000

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", Path(self.output).expanduser().absolute())
        if not self.tracking_uri:
            object.__setattr__(self, "tracking_uri", f"sqlite:///{self.output / 'mlflow.db'}")

    @property
    def store_root(self) -> Path:
        """Committed outputs (infra.store.LocalStore)."""
        return self.output / "store"

    @property
    def runs(self) -> Path:
        """Job files, logs and metrics of each run."""
        return self.output / "runs"

    @property
    def artifact_root(self) -> Path:
        """Files that MLflow holds, when it runs on SQLite here."""
        return self.output / "mlflow-artifacts"

    @property
    def pending_tracking(self) -> Path:
        """Events that MLflow did not take; replayed when it is back."""
        return self.output / "tracking-pending"

    @property
    def prefect_home(self) -> Path:
        """Prefect's database and results."""
        return self.output / "prefect"

    @property
    def prefect_url(self) -> str:
        """The Prefect page; its API is below /api."""
        return f"http://{LOOPBACK}:{self.prefect_port}"

    @property
    def mlflow_url(self) -> str:
        """The MLflow page that `lco up` serves."""
        return f"http://{LOOPBACK}:{self.mlflow_port}"

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, output: Path | str | None = None
    ) -> "Settings":
        """Settings from LCO_OUTPUT, _TRACKING_URI, _EXPERIMENT, _PROCESSES, _PREFECT_PORT and _MLFLOW_PORT.

        `output`, from a command line, wins over LCO_OUTPUT. Raises SettingsError for an unusable value.
        """
        given = os.environ if environment is None else environment
        return cls(
            output=Path(output or given.get("LCO_OUTPUT") or DEFAULT_OUTPUT),
            tracking_uri=given.get("LCO_TRACKING_URI", ""),
            experiment=given.get("LCO_EXPERIMENT") or cls.experiment,
            **({"processes": _count(given, "LCO_PROCESSES")} if given.get("LCO_PROCESSES") else {}),
            prefect_port=_port(given, "LCO_PREFECT_PORT", cls.prefect_port),
            mlflow_port=_port(given, "LCO_MLFLOW_PORT", cls.mlflow_port),
        )


def _port(given: Mapping[str, str], name: str, default: int) -> int:
    text = given.get(name) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise SettingsError(f"{name}={text!r} is not a port: give a number from 1 to 65535")
    return int(text)


def _count(given: Mapping[str, str], name: str) -> int:
    text = given[name]
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"{name}={text!r} is not a number of processes: give 1 or more")
    return int(text)
