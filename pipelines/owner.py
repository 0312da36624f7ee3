"""Who an output folder belongs to: one run at a time, and one `lco up`.

The system frees a lock when its process ends, however it ends; processes that it starts do not inherit it.
"""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from pipelines.parameters import BadParameter

POLL_SECONDS = 1.0


@contextmanager
def only_run(output: Path, *, wait: Callable[[str], object] | None = None) -> Iterator[None]:
    """Hold the output folder for one run: two of the same cells would remove each other's checkpoints.

    While another run, of any process, holds it: says so once to `wait` and waits. Raises BadParameter where
    there is no `wait`.
    """
    with _lock(output / ".lock") as lock:
        told = False
        while not _taken(lock):
            if wait is None:
                raise BadParameter(f"another run uses {output}: wait for it, or give another output folder")
            if not told:
                wait(f"another run uses {output}: this one begins when that one has ended")
            told = True
            time.sleep(POLL_SECONDS)
        yield


@contextmanager
def only_servers(output: Path, addresses: str) -> Iterator[None]:
    """Hold the output folder for the servers of one `lco up`, which `addresses` are of: others would write
    to the same databases, and each lock the other's clients out. Raises BadParameter while another holds it.
    """
    with _lock(output / ".servers.lock") as lock:
        if not _taken(lock):
            lock.seek(0)
            raise BadParameter(
                f"another `lco up` serves {output} ({lock.read().strip()}): use that one, stop it, "
                "or give another output folder"
            )
        lock.truncate(0)
        lock.write(addresses)
        lock.flush()
        yield


@contextmanager
def _lock(path: Path) -> Iterator[TextIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        yield lock


def _taken(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
