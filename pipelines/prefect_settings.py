"""What configures Prefect in our processes: we alone where the server is ours, the person where it is theirs.

Prefect reads variables, a profile in its home, and prefect.toml, pyproject.toml and .env of the current
folder. Any of them may name another server, another database, a credential or a number of retries.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from infra.credential import Credential
from infra.process import whole_places
from infra.settings import LOOPBACK, Settings

PREFECTS = "PREFECT_"
MLFLOWS = "MLFLOW_"
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy", "socks_proxy", "ftp_proxy")
_LOOPBACK_NAMES = (LOOPBACK, "localhost", "::1")


def users_server(environment: Mapping[str, str] = os.environ) -> str | None:
    """The address of the Prefect server that a person has chosen; a variable that is empty is not set."""
    return environment.get("PREFECT_API_URL") or None


def prefect_environment(settings: Settings, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What Prefect reads when it is imported; a value that the user has set wins.

    Without a server of the user's everything, profiles and database included, lies in the output folder and
    ~/.prefect is not touched. With one, their own Prefect folder is used.
    """
    wanted = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        # Five would wait for a server that is gone for a minute at each request; two wait some seconds.
        "PREFECT_CLIENT_MAX_RETRIES": "2",
    }
    if not users_server(environment):
        wanted["PREFECT_HOME"] = str(settings.prefect_home)
    return {name: environment.get(name) or value for name, value in wanted.items()}


def prefect_client_environment(credential: Credential, port: int) -> dict[str, str]:
    """What leads a Prefect client to our server on `port`, and lets it in."""
    return {
        "PREFECT_API_URL": f"http://{LOOPBACK}:{port}/api",
        "PREFECT_API_AUTH_STRING": credential.pair,
    }


@contextlib.contextmanager
def our_prefect(settings: Settings, client: Mapping[str, str]) -> Iterator[None]:
    """Inside the block, variables and files of the person's do not configure Prefect, nor MLflow where its
    database is ours. The current folder is one of ours.
    """
    foreign = (PREFECTS, MLFLOWS) if settings.tracks_here else (PREFECTS,)
    unused = is_proxy if settings.tracks_here else _is_unknown_proxy
    dropped = {name for name in os.environ if name.startswith(foreign) or unused(name)}
    ours = prefect_environment(settings, {}) | dict(client) | around_proxies(os.environ)
    elsewhere = whole_places(os.environ) | settings.places
    settings.prefect_home.mkdir(parents=True, exist_ok=True)
    with changed_environment(dropped, elsewhere | ours), _standing_in(settings.prefect_home):
        yield


@contextlib.contextmanager
def users_prefect(settings: Settings) -> Iterator[None]:
    """Inside the block, Prefect is configured as the person's `prefect` is; what loopback serves is reached
    directly."""
    empty = {name for name, value in os.environ.items() if name.startswith(PREFECTS) and not value}
    foreign = {name for name in os.environ if settings.tracks_here and name.startswith(MLFLOWS)}
    ours = prefect_environment(settings) | around_proxies(os.environ)
    with changed_environment(empty | foreign, ours):
        yield


@contextlib.contextmanager
def _standing_in(folder: Path) -> Iterator[None]:
    """`folder` is the current one inside the block. The one before may be removed, or closed to us."""
    before = os.open(".", os.O_PATH | os.O_DIRECTORY)
    try:
        os.chdir(folder)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.fchdir(before)
        os.close(before)


@contextlib.contextmanager
def changed_environment(dropped: set[str], added: Mapping[str, str]) -> Iterator[None]:
    """The environment without `dropped` and with `added`, inside the block; behind it, as it was."""
    before = dict(os.environ)
    for name in dropped:
        del os.environ[name]
    os.environ.update(added)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def around_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that lead requests to this machine round the person's proxies, which could not reach it."""
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    return dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(filter(None, (given, *_LOOPBACK_NAMES))))


def is_proxy(name: str) -> bool:
    """Whether a variable of this name tells of a proxy."""
    return name.lower() in _PROXIES


def _is_unknown_proxy(name: str) -> bool:
    """Whether Prefect's client would not start: it has no library for this kind of proxy (SOCKS), though it
    would not use it."""
    scheme, separator, _ = os.environ[name].partition("://")
    return is_proxy(name) and bool(separator) and scheme.lower() not in ("http", "https")
