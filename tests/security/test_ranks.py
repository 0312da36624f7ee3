"""Ranks talk to each other and to nobody else: another user of the machine reads and sets nothing."""

import contextlib
import itertools
import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from infra.confinement import missing
from infra.settings import Settings
from tests.unit.infra.conftest import launch, launcher, source  # noqa: F401 - fixtures

PRELOAD = ("small_stage", "torch.distributed")
NOBODY = 65534
ROOT = Path(__file__).resolve().parents[2]


class Canary:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def attack(folder: Path, private: list[Path], canary: bytes) -> dict:
    """As another user, while two ranks meet and meet again: connect, send, read what is there."""
    connected, read, deadline = 0, [], time.monotonic() + 60
    while not (folder / "totals0").exists() and time.monotonic() < deadline:
        for ports in folder.glob("ports?"):
            for port, number in itertools.product(json.loads(ports.read_text()), range(8)):
                with contextlib.suppress(OSError), socket.socket() as line:
                    line.settimeout(0.2)
                    line.connect(("127.0.0.1", port))
                    connected += 1
                    line.sendall(number.to_bytes(8, "little") + canary)  # gloo's first word: which pair
        for top in private:
            read += [names for _, *names in os.walk(top)]  # it passes over what it may not read
        time.sleep(0.01)
    return {"connected": connected, "read": read}


class Child:
    """`function(*arguments)` in a process of another user; `result` waits for what it returns."""

    def __init__(self, function, *arguments) -> None:
        self._result, theirs = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                os.write(theirs, json.dumps(function(*arguments)).encode())
            finally:
                os._exit(0)
        os.close(theirs)

    def result(self):
        with open(self._result, "rb") as pipe:
            told = pipe.read()
        os.waitpid(self._pid, 0)
        return json.loads(told)


@pytest.mark.chaos
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
@pytest.mark.skipif("no private network" in str(missing()), reason="the kernel gives no private network")
def test_another_user_reads_and_sets_nothing_while_two_ranks_train(launch, launcher, tmp_path):  # noqa: F811
    for folder in (
        tmp_path,
        *tmp_path.parents,
    ):  # pytest closes them; the attack is on the output
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    settings = Settings(output=tmp_path / "output")
    settings.make_private()
    settings.runs.mkdir()
    (settings.runs / "journal.jsonl").write_text("private")
    touched = tmp_path / "touched"
    private = [settings.output, Path(launcher._parent.folder.name)]  # ranks meet in the second
    attacker = Child(attack, tmp_path, private, pickle.dumps(Canary(touched)))
    launch(
        """
        import psutil, torch
        os.umask(0o022)  # the attacker is told the ports
        from torch import distributed
        store = distributed.FileStore(os.path.join(os.environ["LCO_RENDEZVOUS"], "worker-0"), 2)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
        sockets = psutil.Process().net_connections()
        say(f"ports{rank}", [one.laddr.port for one in sockets if one.status == "LISTEN"])
        totals = []
        for number in range(20):
            total = torch.full((1000,), float(rank + number))
            distributed.all_reduce(total, group=distributed.new_group())
            totals.append(total.unique().tolist())
            time.sleep(0.05)
        say(f"totals{rank}", totals)
        distributed.destroy_process_group()
        """,
        processes=2,
    )
    assert json.loads((tmp_path / "ports0").read_text()), "a rank that does not listen is not to be attacked"
    assert attacker.result() == {"connected": 0, "read": []}
    for rank in (0, 1):
        assert json.loads((tmp_path / f"totals{rank}").read_text()) == [[2.0 * n + 1] for n in range(20)]
    assert not touched.exists()


def test_no_room_reads_or_sends_a_pickle(tmp_path):
    """The rule `TID251` and its names are in pyproject.toml."""

    def check(folder: Path) -> subprocess.CompletedProcess:
        command = [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--select",
            "TID251",
            "--config",
            ROOT / "pyproject.toml",
        ]
        return subprocess.run([*command, folder], capture_output=True, text=True, timeout=60)

    assert check(ROOT).returncode == 0
    for statement in ("import pickle", "import torch; torch.load('x')"):
        (tmp_path / "intruder.py").write_text(statement)
        assert check(tmp_path).returncode == 1, statement
