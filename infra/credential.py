"""The name and password that every server of one output folder asks for: random, in a file of its owner.

Loopback is no boundary between the users of a machine; a secret in a file that only one of them can read is.
"""

import base64
import contextlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

USER = "lco"


class CredentialError(Exception):
    """The credential's file cannot be trusted."""


@dataclass(frozen=True)
class Credential:
    """A name and a password, for HTTP's basic authentication."""

    user: str
    password: str = field(repr=False)

    @property
    def pair(self) -> str:
        """`user:password`, as Prefect's page and settings take it."""
        return f"{self.user}:{self.password}"

    @property
    def header(self) -> dict[str, str]:
        """What a request needs."""
        return {"Authorization": f"Basic {base64.b64encode(self.pair.encode()).decode()}"}


def read_credential(path: Path) -> Credential:
    """The credential in `path`, made where there is none yet. Raises CredentialError for a file that somebody
    else can read or has written."""
    if not path.exists():
        _make(path)
    with path.open() as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise CredentialError(
                f"{path} is open to other users, and so holds no secret: delete it, a new one is made"
            )
        user, _, password = file.read().strip().partition(":")
    if not user or not password:
        raise CredentialError(f"{path} does not hold user:password: delete it, a new one is made")
    return Credential(user, password)


def _make(path: Path) -> None:
    """Write a new one; of two processes that do so at once, the first wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(f"{USER}:{secrets.token_urlsafe(24)}\n")
    try:
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink()
