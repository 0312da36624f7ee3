"""torchrun with three habits of ours: `python -m infra.torchrun <torchrun arguments>`.

* It dies with its supervisor (`watch_parent`), and so do its ranks, which call it themselves.
* Its rendezvous store listens on loopback only; torch binds it to every interface, without authentication.
* It exits with the first failed rank's own code, so that "preempted" and "out of memory" stay visible.

This is a program, not a library: the only place in `infra` where torch is imported, in a process of its own.
"""

import socket
import sys

import torch.distributed as distributed

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
        rank, failure = error.get_first_failure()
        print(f"rank {rank} ended first, with exit code {failure.exitcode}", file=sys.stderr, flush=True)
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
