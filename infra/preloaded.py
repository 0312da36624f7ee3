"""The parent of local ranks: it imports what they need once, and forks each of them in 0.1 s instead of 10.

    python -m infra.preloaded SOCKET NETWORK MODULE...       (infra.launcher starts it)

With the network `private`, no other user reaches its ranks, where the kernel gives them their own loopback.
It has one thread, so that a fork is safe, and does nothing but fork, reap and tell. A request on the socket
is `{"module", "job", "threads", "environments": [one a rank]}`, with the log's pipe and a socket for answers:
`{"pids": [...]}`, then `{"rank", "code"}` at the end of each. A rank has a session of its own, shares the
imported memory and ends as any Python program does, or with this process, which ends with its supervisor.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from threadpoolctl import threadpool_limits

from infra.confinement import private_network
from infra.process import LIFE_LINE, SCRATCH, remove_own_folder, watch_parent

POLL_SECONDS = 0.05


def preload(modules: Sequence[str]) -> None:
    """Import all of them; one that fails is left to the rank that needs it, whose log then says why."""
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception:  # noqa: BLE001 - whatever a module does when it is imported
            traceback.print_exc()
    gc.collect()
    gc.freeze()  # a collection in a rank would touch, and so copy, all that is shared


def serve(requests: socket.socket) -> Callable[[], None] | None:
    """Fork what is asked for until the supervisor is gone. Returns a rank's work, in the rank; else None."""
    supervisor = os.getppid()
    life_line, held = os.pipe()  # of the ranks; only we hold the write end
    running: dict[int, tuple[int, socket.socket]] = {}  # pid: rank, where to tell its end
    while os.getppid() == supervisor:
        if select.select([requests], [], [], POLL_SECONDS)[0]:
            message, descriptors, *_ = socket.recv_fds(requests, 1 << 20, 2)
            if not message:
                break
            request = json.loads(message)
            log, answers = descriptors[0], socket.socket(fileno=descriptors[1])
            pids = []
            begun, beginning = os.pipe()
            for rank, environment in enumerate(request["environments"]):
                pids.append(os.fork())
                if not pids[-1]:
                    os.setsid()
                    for descriptor in (begun, beginning, held):
                        os.close(descriptor)  # our sockets close when we return
                    environment[LIFE_LINE] = f"/dev/fd/{life_line}"
                    return lambda: run_rank(request, environment, log)
                running[pids[-1]] = rank, answers
            os.close(log)
            os.close(beginning)
            os.read(begun, 1)  # ends when each has the session by which it can be signalled
            os.close(begun)
            if not _tell(answers, pids=pids):
                for pid in pids:  # nobody waits for them
                    os.kill(pid, signal.SIGKILL)
        for pid, (rank, answers) in list(running.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)  # what it left behind, while its number is still its own
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                _tell(answers, rank=rank, code=code)
                del running[pid]
    return None


def _tell(answers: socket.socket, **message: object) -> bool:
    try:
        answers.send(json.dumps(message).encode())
    except OSError:  # the launch was given up
        return False
    return True


def run_rank(request: dict, environment: dict[str, str], log: int) -> None:
    """Become a rank: own environment, log and threads; then run the module's `main`."""
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    os.environ.update(environment)
    os.environ.pop(SCRATCH, None)  # the parent's to remove
    watch_parent()
    use_threads(request["threads"])
    sys.argv = [request["module"], request["job"]]
    importlib.import_module(request["module"]).main(Path(request["job"]))


def use_threads(count: int) -> None:
    """Do to the imported libraries what OMP_NUM_THREADS does to those that are imported later."""
    threadpool_limits(count)
    torch = sys.modules.get("torch")
    if torch is not None:
        # In each new thread, torch asks MKL how many of so many are of use on this machine.
        with ThreadPoolExecutor(1, initializer=threadpool_limits, initargs=(count,)) as fresh:
            torch.set_num_threads(fresh.submit(torch.get_num_threads).result())


if __name__ == "__main__":
    if sys.argv[2] == "private":
        private_network()  # now, before there are threads
    preload(sys.argv[3:])
    rank = serve(socket.socket(fileno=int(sys.argv[1])))
    if rank is None:
        remove_own_folder()
    else:
        rank()
