"""Start a stage: `python -m stages.<stage> JOB.json`, as one process or as several ranks on this machine."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from infra.process import run_supervised


class Launcher(Protocol):
    """Runs a module with a job file on some machines, to its end. Raises infra.process.ProcessFailed."""

    def run(
        self,
        module: str,
        job_path: Path,
        *,
        processes: int,
        sharing_cores: int | None = None,
        log_path: Path,
        metrics_path: Path | None,
        on_event: Callable[[dict], None],
    ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class LocalLauncher:
    """One machine. One process runs as plain Python, several through torchrun; all traffic stays on loopback.

    `environment` is given to every process, beside what infra.process allows through.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    grace_seconds: float = 20.0
    hang_seconds: float = 600.0

    def run(
        self,
        module: str,
        job_path: Path,
        *,
        processes: int,
        sharing_cores: int | None = None,
        log_path: Path,
        metrics_path: Path | None,
        on_event: Callable[[dict], None],
    ) -> None:
        """Run `python -m module job_path` as `processes` ranks. Raises ProcessFailed with the log's end.

        `sharing_cores`: by how many the cores are divided; None: by `processes`. The number of threads
        decides the last digits of a sum, and must not depend on how much is left to do.
        """
        run_supervised(
            command(module, job_path, processes=processes),
            environment=local_environment(processes=sharing_cores or processes) | dict(self.environment),
            log_path=log_path,
            metrics_path=metrics_path,
            on_event=on_event,
            grace_seconds=self.grace_seconds,
            hang_seconds=self.hang_seconds,
        )


def command(module: str, job_path: Path, *, processes: int) -> list[str]:
    """The command line for `processes` ranks on this machine (1 or more)."""
    if processes < 1:
        raise ValueError(f"{module}: processes is {processes}; at least one is needed, correct the recipe")
    if processes == 1:
        return [sys.executable, "-m", module, str(job_path)]
    torchrun = [sys.executable, "-m", "infra.torchrun", "--standalone", "--nproc-per-node", str(processes)]
    return [*torchrun, "--local-addr", "127.0.0.1", "-m", module, str(job_path)]


def local_environment(*, processes: int) -> dict[str, str]:
    """CPU, loopback transport, a fair share of the cores, and our own source tree whatever the folder."""
    source = str(Path(__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {
        "MASTER_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, usable_cores() // processes)),
        "TOKENIZERS_PARALLELISM": "false",
        # This version trains on the CPU only: no batch is moved to a device, so none may be found.
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": f"{source}{os.pathsep}{inherited}" if inherited else source,
        "PYTHONSAFEPATH": "1",  # a json.py in the user's folder must not become ours
    }


def usable_cores() -> int:
    """Cores this process may run on (a container or Slurm may allow fewer than the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
