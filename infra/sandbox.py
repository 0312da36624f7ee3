"""Work on hostile input in processes that hold nothing of ours: a crash, a hang or a takeover costs one call.

    limits = Limits(seconds=300, memory_bytes=2**32, file_bytes=2**28)
    with Sandbox(module="data_prep.reader", limits=limits, processes=2) as sandbox:
        call = sandbox.start({"name": "a.pdf"}, [descriptor])
        with call.result() as output: ...

The host (`python -m infra.sandbox SOCKET PROCESSES MODULE`) has one thread, an allowed environment and, where
the kernel lets it, no network. It imports the module once and forks a child a call, of which PROCESSES run at
a time; later requests wait in its socket. A child has its inputs, already open, a file for its output, and
where the kernel lets it no other files; it ends with the host, which ends with its supervisor. Nothing that a
child wrote is executed or unpickled here.
"""

import contextlib
import gc
import importlib
import json
import math
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from infra.confinement import die_with_parent, leave_calls, leave_files, leave_rights, private_network
from infra.launcher import ONE_THREAD, local_environment
from infra.process import ProcessFailed, Supervised, child_environment, outcome_of, remove_own_folder

POLL_SECONDS = 0.005
OVERDUE_SECONDS = 30.0  # after a call's own limit, the host is lost
OPEN_FILES = 64
MOST_DESCRIPTORS = 16
MESSAGE_BYTES = 1 << 20
# The interpreter and its libraries, for what is imported late.
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", sys.prefix, sys.base_prefix)

Work = Callable[[dict[str, Any], list[int], int], None]
"""A module's `main(arguments, inputs, output)`: JSON values and open descriptors."""


class CallFailed(Exception):
    """A child did not end well: with `exit_code` (or minus the signal), or not in its time (None)."""

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code = exit_code
        super().__init__("took too long" if exit_code is None else f"died with exit code {exit_code}")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one child: wall-clock and CPU seconds, address space, and size of every file that it writes.

    Where the kernel lets it, a child opens no file but its inputs, its libraries, and what lies below the
    folders `readable` and `writable`.
    """

    seconds: float
    memory_bytes: int
    file_bytes: int
    readable: Sequence[str] = ()
    writable: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call that waits or runs. Ask for results in the order in which the calls were started."""

    sandbox: "Sandbox"
    answers: socket.socket
    output: BinaryIO

    def result(self) -> BinaryIO:
        """Wait for the child's end, and return what it wrote, from the beginning.

        Raises CallFailed, and infra.process.ProcessFailed when the host is lost.
        """
        self.answers.settimeout(self.sandbox.limits.seconds + OVERDUE_SECONDS)
        with self.answers:
            try:
                answer = self.answers.recv(1024)
            except TimeoutError:
                raise self.sandbox.lost("did not answer") from None
            except ConnectionResetError:  # it ended before it took the request
                answer = b""
        if not answer:
            raise self.sandbox.lost("ended")
        code = json.loads(answer)["code"]
        if code != 0:
            raise CallFailed(code)
        self.output.seek(0)
        return self.output


@dataclass(kw_only=True)
class Sandbox:
    """Children that run `module.main`, in a `with`; its end does not wait for those that run."""

    module: str
    limits: Limits
    processes: int

    def __enter__(self) -> "Sandbox":
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            host = ["-m", "infra.sandbox", str(theirs.fileno()), str(self.processes), self.module]
            self._host = Supervised(
                [sys.executable, *host],
                environment=child_environment(local_environment()) | ONE_THREAD,
                pass_fds=(theirs.fileno(),),
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._host.stop()
        self._requests.close()
        self._host.folder.cleanup()

    def start(self, arguments: dict[str, Any], inputs: Sequence[int]) -> Call:
        """Ask for one call. `inputs`: descriptors of open files, which may be closed when this returns."""
        # In memory: on a disk, each sync of the caller's own files would wait for it.
        output = open(os.memfd_create("output"), "r+b")  # noqa: SIM115 - the call's
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        message = json.dumps({"limits": asdict(self.limits), "arguments": arguments}).encode()
        with theirs, contextlib.suppress(ConnectionError):  # the host has ended: the result says so
            socket.send_fds(self._requests, [message], [theirs.fileno(), output.fileno(), *inputs])
        return Call(sandbox=self, answers=ours, output=output)

    def lost(self, how: str) -> ProcessFailed:
        """Stop the host; what to raise."""
        self._host.stop()
        code = self._host.exit_code or 1
        return ProcessFailed(
            command=f"The sandbox of {self.module}",
            outcome=outcome_of(code),
            exit_code=code,
            reason=f"{how} (exit code {code}): run again",
            log_path=self._host.log_path,
        )


@dataclass(kw_only=True)
class _Child:
    answers: socket.socket
    deadline: float
    overdue: bool = False


def serve(requests: socket.socket, processes: int, work: Work) -> None:
    """Fork a child for each request, until the supervisor is gone."""
    supervisor = os.getppid()
    running: dict[int, _Child] = {}
    while os.getppid() == supervisor:
        heard = [requests] if len(running) < processes else []
        if select.select(heard, [], [], POLL_SECONDS)[0]:
            message, descriptors, *_ = socket.recv_fds(requests, MESSAGE_BYTES, MOST_DESCRIPTORS)
            if not message:
                return
            pid, child = _fork(work, json.loads(message), *descriptors)
            running[pid] = child
        for pid, child in list(running.items()):
            if _has_ended(pid, child):
                del running[pid]


def _fork(work: Work, request: dict, answers: int, output: int, *inputs: int) -> tuple[int, _Child]:
    limits, host = Limits(**request["limits"]), os.getpid()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            _confine(host, limits, (output, *inputs))
            work(request["arguments"], list(inputs), output)
            code = 0
        finally:
            os._exit(code)  # that and what it wrote to its output is all that leaves it
    for descriptor in (output, *inputs):
        os.close(descriptor)
    return pid, _Child(answers=socket.socket(fileno=answers), deadline=time.monotonic() + limits.seconds)


def _has_ended(pid: int, child: _Child) -> bool:
    """End a child whose time is over; of one that has ended, tell how."""
    if time.monotonic() > child.deadline and not child.overdue:
        child.overdue = True
        os.kill(pid, signal.SIGKILL)
        _answer(child, None)  # now: it ends later where it waits for a disk
    if not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it left behind, while its number is still its own
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not child.overdue:
        _answer(child, code)
    return True


def _answer(child: _Child, code: int | None) -> None:
    with child.answers, contextlib.suppress(OSError):  # the call was given up
        child.answers.send(json.dumps({"code": code}).encode())


def _confine(host: int, limits: Limits, keep: Sequence[int]) -> None:
    """Give up all but the descriptors to keep, and what goes beyond the limits."""
    die_with_parent(host)
    leave_rights()
    os.setsid()
    os.umask(0o077)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in (0, 1, 2, *keep):
            with contextlib.suppress(OSError):  # the listing's own is closed already
                os.close(descriptor)
    for kind, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, math.ceil(limits.seconds) + 1),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    leave_files(readable=(*_LIBRARIES, *limits.readable), writable=limits.writable)
    leave_calls()


if __name__ == "__main__":
    private_network()  # or not: infra.confinement.missing says so to people
    main = importlib.import_module(sys.argv[3]).main
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, all that is shared
    serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), main)
    remove_own_folder()
