"""The name and password that our servers ask for: random, new at each start, for the one who started them.

Loopback is no boundary between the users of a machine. A server that has ended leaves its port to anybody,
and browsers and command lines send what they know to whoever listens there: by then it opens nothing.
"""

import base64
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

USER = "lco"


class NotPrivate(Exception):
    """A file system does not keep a file to its owner."""


@dataclass(frozen=True)
class Credential:
    """A name and a password, for HTTP's basic authentication."""

    user: str
    password: str = field(repr=False)

    @classmethod
    def new(cls) -> "Credential":
        return cls(USER, secrets.token_urlsafe(24))

    @property
    def pair(self) -> str:
        """`user:password`, as Prefect's page and settings take it."""
        return f"{self.user}:{self.password}"

    @property
    def header(self) -> dict[str, str]:
        """What a request needs."""
        return {"Authorization": f"Basic {base64.b64encode(self.pair.encode()).decode()}"}

    def write(self, path: Path) -> None:
        """Replace `path` by a file that holds it, for its owner's eyes. Raises NotPrivate."""
        new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            if os.fstat(descriptor).st_mode & 0o077:
                new.unlink()
                raise NotPrivate(
                    f"{path.parent} lies on a file system that keeps no file to its owner: "
                    "name a folder on another one with --output"
                )
            file.write(f"{self.pair}\n")
        new.replace(path)
