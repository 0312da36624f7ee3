"""One output folder, one run at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.parameters import BadParameter


@contextmanager
def only_run(output: Path) -> Iterator[None]:
    """Hold the output folder for one run. Raises BadParameter while another run, of any process, holds it.

    Two runs of the same cells would remove each other's checkpoints. The system frees the lock when this
    process ends, however it ends; processes that it starts do not inherit it.
    """
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadParameter(
                f"another run uses {output}: wait for it, or give another output folder"
            ) from None
        yield
