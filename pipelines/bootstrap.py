"""`lco bootstrap`: the program `stages.bootstrap`, in the foreground of this terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from infra.launcher import local_environment


def bootstrap(options: Mapping[str, Any]) -> int:
    """Run `python -m stages.bootstrap --name value ...` in this terminal; return its exit status.

    Options that are None are left to the program.
    """
    given = {name: value for name, value in options.items() if value is not None}
    arguments = [text for name, value in given.items() for text in (f"--{name}", str(value))]
    environment = {**os.environ, **local_environment(processes=1)}
    return subprocess.run([sys.executable, "-m", "stages.bootstrap", *arguments], env=environment).returncode
