"""Start a stage's program as one process or several ranks on this machine, and see it to its end.

    with LocalLauncher(preload=["stages.pretrain.program"]) as launcher:
        launcher.run(Launch(module="stages.pretrain.program", job_path=..., processes=2, ...), on_event=print)

The ranks are forked by one preloaded parent (infra.preloaded), which starts in the background. Any exception
here (a cancel, Ctrl-C, a bug) ends all of them: TERM, grace, KILL. Progress is what they append to the
journal; when none comes for long, they hang.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from infra.fingerprint import ROOT
from infra.journal import JournalTail
from infra.process import (
    SUPERVISION,
    ProcessFailed,
    Supervised,
    child_environment,
    kill_marked,
    last_lines,
    log_pump,
    outcome_of,
    signal_group,
)

POLL_SECONDS = 0.25
RENDEZVOUS = "LCO_RENDEZVOUS"  # a private folder in which ranks find each other
MOST_THREADS = 1_024  # of a process
# While the parent imports: a library that starts threads then would make the fork unsafe.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


@dataclass(frozen=True, kw_only=True)
class Launch:
    """`module.main(job_path)` as `processes` ranks of `threads` each; their output goes to `log_path`."""

    module: str
    job_path: Path
    processes: int
    threads: int
    log_path: Path
    journal_path: Path

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError(
                f"{self.module}: processes is {self.processes}; at least one is needed, correct the recipe"
            )


class Launcher(Protocol):
    """Runs a stage's program on some machines, to its end."""

    def run(self, launch: Launch, on_event: Callable[[dict], None]) -> None:
        """Each progress event that the ranks append to the journal goes to `on_event`, in this thread.

        Raises infra.process.ProcessFailed with the log's end.
        """
        ...


@dataclass(kw_only=True)
class LocalLauncher:
    """This machine, in a `with`. The preloaded parent imports `preload`.

    Ranks trust whoever connects to them: their network is private, and they reach no other, unless it is
    `shared`.
    """

    preload: Sequence[str] = ()
    network: Literal["private", "shared"] = "private"
    grace_seconds: float = 20.0
    hang_seconds: float = 600.0

    def __enter__(self) -> "LocalLauncher":
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._parent = Supervised(
                [sys.executable, "-m", "infra.preloaded", str(theirs.fileno()), self.network, *self.preload],
                environment=child_environment(local_environment()) | ONE_THREAD,
                pass_fds=(theirs.fileno(),),
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.stop()
        self._requests.close()
        self._parent.folder.cleanup()

    def run(self, launch: Launch, on_event: Callable[[dict], None]) -> None:
        """See Launcher.run."""
        tail = JournalTail(launch.journal_path)
        place = tempfile.TemporaryDirectory(dir=self._parent.folder.name)
        with place as rendezvous, log_pump(launch.log_path) as output:
            ranks = self._fork(launch, rendezvous, output)
            try:
                hung = self._wait(ranks, tail, on_event)
                codes = dict(ranks.codes)
            finally:
                ranks.stop(self.grace_seconds)
        _deliver(tail, on_event)
        if hung or len(codes) < launch.processes or any(codes.values()):
            raise self._failure(launch, codes, hung=hung)

    def _fork(self, launch: Launch, rendezvous: str, output: int) -> "_Ranks":
        """Ask for the ranks; they begin when the parent has imported what they need."""
        marker = uuid.uuid4().hex
        shared = {SUPERVISION: marker, RENDEZVOUS: rendezvous, "OMP_NUM_THREADS": str(launch.threads)}
        environments = [shared]
        if launch.processes > 1:
            world = {"WORLD_SIZE": str(launch.processes), "LOCAL_WORLD_SIZE": str(launch.processes)}
            ranks = map(str, range(launch.processes))
            environments = [shared | world | {"RANK": rank, "LOCAL_RANK": rank} for rank in ranks]
        request = {"module": launch.module, "job": str(launch.job_path), "threads": launch.threads}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.suppress(BrokenPipeError):  # it has ended: the answers then end at once
            message = json.dumps(request | {"environments": environments}).encode()
            socket.send_fds(self._requests, [message], [output, theirs.fileno()])
        return _Ranks(ours, marker)

    def _wait(self, ranks: "_Ranks", tail: JournalTail, on_event: Callable[[dict], None]) -> bool:
        """Wait for the end of all, or of the first that fails; True if they hang instead."""
        last_progress = time.monotonic()
        while not ranks.ended:
            ranks.listen(POLL_SECONDS)
            if _deliver(tail, on_event):
                last_progress = time.monotonic()
            if any(ranks.codes.values()):
                ranks.listen(POLL_SECONDS)  # the one that explains it may be told second
                break
            if time.monotonic() - last_progress > self.hang_seconds:
                return True
        return False

    def _failure(self, launch: Launch, codes: Mapping[int, int], *, hung: bool) -> ProcessFailed:
        lost = not hung and not any(codes.values())
        code = (self._parent.exit_code or 1) if lost else exit_code_of(codes)
        outcome = "hung" if hung else outcome_of(code)
        reason = {
            "hung": f"made no progress for {self.hang_seconds} s and was stopped: "
            "a rank or a data source is stuck",
            "preempted": f"was preempted after saving a checkpoint (exit code {code}): run again to continue",
            "killed": f"was killed (exit code {code}), probably out of memory: use smaller batches",
            "failed": f"failed with exit code {code}",
        }[outcome]
        if lost:
            words = last_lines(self._parent.log_path) or "nothing"
            reason = f"lost the parent of its ranks, which {reason}; it said: {words}"
        return ProcessFailed(
            command=launch.module, outcome=outcome, exit_code=code, reason=reason, log_path=launch.log_path
        )


def _deliver(tail: JournalTail, on_event: Callable[[dict], None]) -> bool:
    """Hand on new progress; whether there was any."""
    events = [event for event in tail if event["event"] == "progress"]
    for event in events:
        on_event(event)
    return bool(events)


def exit_code_of(codes: Mapping[int, int]) -> int:
    """One exit code (or minus the signal) for all ranks, in the order in which they ended.

    A killed rank explains the others: they fail in a collective a moment later.
    """
    failed = [code for code in codes.values() if code]
    return -signal.SIGKILL if -signal.SIGKILL in failed else next(iter(failed), 1)


class _Ranks:
    """The ranks of one launch: `codes` has the exit code of each that has ended, in that order."""

    def __init__(self, answers: socket.socket, marker: str) -> None:
        self._answers = answers
        self._marker = marker
        self._pids: list[int] = []
        self._lost = False
        self.codes: dict[int, int] = {}

    @property
    def ended(self) -> bool:
        return self._lost or 0 < len(self._pids) == len(self.codes)

    def listen(self, seconds: float) -> None:
        """Take in what the parent says next, if it says it in time."""
        if self.ended:
            return
        self._answers.settimeout(seconds)
        try:
            message = self._answers.recv(1 << 16)
        except TimeoutError:
            return
        told = json.loads(message or "{}")
        self._lost = not told
        self._pids = told.get("pids", self._pids)
        if "rank" in told:
            self.codes[told["rank"]] = told["code"]

    def stop(self, grace_seconds: float) -> None:
        """TERM, `grace_seconds`, KILL to every rank that runs and all it started. Harmless after the end."""
        if not self._pids:
            self._answers.shutdown(socket.SHUT_RD)  # ranks that nobody can be told of are ended by the parent
            self.listen(0.1)  # it may have told just before
        try:
            self._signal(signal.SIGTERM)
            self._wait(grace_seconds)
        finally:  # a second cancel during the grace cuts it short
            self._signal(signal.SIGKILL)
            kill_marked(self._marker)
            self._wait(5.0)
            self._answers.close()

    def _signal(self, number: int) -> None:
        for rank, pid in enumerate(self._pids):
            if rank not in self.codes:
                signal_group(pid, number)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._pids and not self.ended and time.monotonic() < deadline:
            self.listen(0.1)


def local_environment() -> dict[str, str]:
    """CPU, loopback transport, and our own source tree whatever the folder."""
    inherited = os.environ.get("PYTHONPATH")
    return {
        "GLOO_SOCKET_IFNAME": "lo",
        "TOKENIZERS_PARALLELISM": "false",
        # This version trains on the CPU only: no batch is moved to a device, so none may be found.
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{inherited}" if inherited else str(ROOT),
        "PYTHONSAFEPATH": "1",  # a json.py in the user's folder must not become ours
    }


def threads_of_each(processes: int) -> int:
    """A fair share of the cores for each of so many processes, or what the user's OMP_NUM_THREADS says.

    It decides the last digits of a sum, and so must not depend on how much work is left to do. Raises
    ValueError for a variable that is no number of threads.
    """
    given = os.environ.get("OMP_NUM_THREADS")
    if not given:
        return max(1, usable_cores() // processes)
    if not (given.strip().isdecimal() and 1 <= int(given) <= MOST_THREADS):
        raise ValueError(
            f"OMP_NUM_THREADS={given!r} is no number of threads: give 1 to {MOST_THREADS:,}, or unset it"
        )
    return int(given)


def usable_cores() -> int:
    """Cores this process may run on (a container or Slurm may allow fewer than the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
