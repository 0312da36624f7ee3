"""torchrun with three habits of ours: `python -m infra.torchrun <torchrun arguments>`.

* It dies with its supervisor (`watch_parent`), and so do its ranks, which call it themselves.
* Its rendezvous store listens on loopback only; torch binds it to every interface, without authentication.
* It exits with the first failed rank's own code, so that "preempted" and "out of memory" stay visible.

This is a program, not a library: the only place in `infra` where torch is imported, in a process of its own.
"""

import signal
import socket
import sys

from torch import distributed

from infra.process import watch_parent


class LoopbackTCPStore(distributed.TCPStore):
    """A TCPStore whose server side listens on 127.0.0.1 only."""

    def __init__(self, host_name, port, world_size=None, is_master=False, *args, **kwargs):
        if not is_master:
            super().__init__(host_name, port, world_size, is_master, *args, **kwargs)
            return
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        chosen = listener.getsockname()[1]
        kwargs["master_listen_fd"] = listener.detach()
        super().__init__("127.0.0.1", chosen, world_size, is_master, *args, **kwargs)


def main(arguments: list[str]) -> int:
    """Run the ranks to their end; return 0 or the exit code of the rank that failed first."""
    watch_parent()
    distributed.TCPStore = LoopbackTCPStore  # before the rendezvous modules import it by name
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(arguments)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        code = exit_code_of(codes, first=error.get_first_failure()[0])
        print(f"a rank ended with exit code {code}", file=sys.stderr, flush=True)
        return code
    return 0


def exit_code_of(codes: dict[int, int], *, first: int) -> int:
    """One exit code for all failed ranks (rank -> code or minus the signal).

    A killed rank explains the others: they fail in a collective a moment later, within one poll.
    """
    code = next((code for code in codes.values() if code == -signal.SIGKILL), codes[first])
    return code if code > 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
