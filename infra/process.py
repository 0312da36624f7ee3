"""Children that cannot outlive us, hold our pipes or see our secrets.

* the child never inherits our stdout: whoever waits for its end of file would wait for the orphan;
* the child watches us (`watch_parent`): end of file on the life line means that we died, however we died;
* when we stop it, its whole tree ends: TERM, grace, KILL, reap;
* it stands in a folder of its own, with its temporary files: nothing in the person's current folder
  configures it, and it leaves nothing behind.

`Supervised` is one such child: a server, or the parent of a stage's ranks (infra.launcher).
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import psutil

EXIT_PREEMPTED = 75  # EX_TEMPFAIL: the child saved a checkpoint and stopped because it was asked to
LIFE_LINE = "LCO_LIFE_LINE"  # path of a pipe whose only writer is the supervisor
SUPERVISION = "LCO_SUPERVISION"  # marks every process of one supervised tree, across sessions
SCRATCH = "LCO_SCRATCH"  # the child's own folder, which an orphan removes
ORPHAN_GRACE_SECONDS = 3.0
LOG_TAIL_LINES = 200
LOG_TAIL_BYTES = 32 * 1024
LOG_LIMIT_BYTES = 64 * 1024 * 1024

# What a training needs from the surrounding environment. Credentials are not here: give them explicitly.
ALLOWED_ENVIRONMENT = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE",
    "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
)  # fmt: skip
# Those of them that name places, some of them several with `:` between.
PLACES = (
    "PATH", "HOME", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "CUDA_HOME",
    "HF_HOME", "HF_HUB_CACHE", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
)  # fmt: skip
ALLOWED_PREFIXES = ("LC_", "NCCL_", "GLOO_", "OMP_", "MKL_", "TORCH_", "PYTORCH_", "TRITON_", "LCO_TEST_")

Outcome = Literal["preempted", "killed", "hung", "failed"]


class ProcessFailed(Exception):
    """A stage's process did not end well.

    `outcome` says how, `exit_code` is the code or minus the signal, `log_path` holds the whole output and
    `log_tail` its last lines.
    """

    def __init__(
        self, *, command: str, outcome: Outcome, exit_code: int, reason: str, log_path: Path
    ) -> None:
        self.command = command
        self.outcome = outcome
        self.exit_code = exit_code
        self.log_path = log_path
        self.log_tail = last_lines(log_path)
        super().__init__(
            f"{command} {reason}. Its log is {log_path}; it ends with:\n{self.log_tail or '(nothing)'}"
        )


def outcome_of(exit_code: int) -> Outcome:
    """What a non-zero exit code means; 137 is how shells and containers report signal 9."""
    if exit_code == EXIT_PREEMPTED:
        return "preempted"
    return "killed" if exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL) else "failed"


def child_environment(given: Mapping[str, str]) -> dict[str, str]:
    """The allowed part of our environment, plus what is given explicitly."""
    allowed = {
        name: value
        for name, value in os.environ.items()
        if value and (name in ALLOWED_ENVIRONMENT or name.startswith(ALLOWED_PREFIXES))
    }
    # Text is UTF-8 in our files, whatever it is in the person's terminal.
    environment = allowed | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"} | dict(given)
    return environment | whole_places(environment)


def whole_places(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that name places, relative to where we stand, for a process that stands elsewhere."""
    named = {name: environment[name].split(os.pathsep) for name in PLACES if environment.get(name)}
    return {name: os.pathsep.join(map(_whole, places)) for name, places in named.items()}


def _whole(place: str) -> str:
    try:
        return os.path.abspath(place)
    except FileNotFoundError:  # the current folder has been removed: so has what was in it
        return place


class Supervised:
    """A running child: own session, no stdin, output to a file, a life line that ends it when we die.

    `environment` is all that the child gets, but for its places: `folder` is its current one and that of its
    temporary files, and holds its output unless `log_path` says where. It must call `watch_parent` itself.
    Whoever has stopped it cleans `folder` up.
    """

    def __init__(
        self, argv: Sequence[str], *, environment: Mapping[str, str], log_path: Path | None = None,
        grace_seconds: float = 20.0, pass_fds: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self._grace_seconds = grace_seconds
        self._marker = uuid.uuid4().hex
        self.folder = tempfile.TemporaryDirectory(prefix="lco-", ignore_cleanup_errors=True)
        self.log_path = log_path or Path(self.folder.name, "log")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        # matplotlib would read settings of the person's, and write a cache into their home.
        places = dict.fromkeys(("TMPDIR", "MPLCONFIGDIR", SCRATCH), self.folder.name)
        # Only we hold the write end: the child reads its end of file when we die, by whatever means.
        life_line, self._life_line = os.pipe()
        marks = {LIFE_LINE: f"/dev/fd/{life_line}", SUPERVISION: self._marker}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                list(argv),
                cwd=self.folder.name,
                env={**environment, **places, **marks},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(life_line, *pass_fds),
            )
        os.close(life_line)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or minus the signal; None while it runs."""
        return self._process.poll()

    @property
    def ended(self) -> bool:
        return self.exit_code is not None

    def stop(self) -> None:
        """TERM the group, give its whole tree the grace, KILL what is left of it, reap."""
        deadline = time.monotonic() + self._grace_seconds
        try:
            if not self.ended:  # it tells what it has started
                signal_group(self._process.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(self._grace_seconds)
            else:
                signal_all(marked(self._marker), signal.SIGTERM)
            while marked(self._marker) and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:  # a second cancel during the grace cuts it short
            if not self.ended:
                signal_group(self._process.pid, signal.SIGKILL)
            self._process.wait()
            kill_marked(self._marker)
            with contextlib.suppress(OSError):  # closed by an earlier stop
                os.close(self._life_line)


def signal_group(group: int, number: int) -> None:
    """Signal a process group; one that has ended needs none."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def marked(marker: str) -> list[psutil.Process]:
    """Every living process that was started with `marker`, also in a session of its own."""
    return [process for process in psutil.process_iter() if _is_marked(process, marker)]


def signal_all(processes: Sequence[psutil.Process], number: int) -> None:
    """Signal processes; those that have ended need none."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def kill_marked(marker: str) -> None:
    """KILL every process that was started with `marker`."""
    for _ in range(3):  # again, in case one was being started meanwhile
        left = marked(marker)
        if not left:
            return
        signal_all(left, signal.SIGKILL)
        psutil.wait_procs(left, timeout=5)


def _is_marked(process: psutil.Process, marker: str) -> bool:
    try:
        return process.environ().get(SUPERVISION) == marker and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):  # gone, or another user's
        return False


def watch_parent() -> None:
    """Called first by every supervised program: stop this process group when the supervisor is gone.

    Does nothing when there is no supervisor (the module was started by hand).
    """
    path = os.environ.get(LIFE_LINE)
    if path:
        threading.Thread(target=_end_with_parent, args=(path,), name="watch-parent", daemon=True).start()


def _end_with_parent(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # the supervisor ended before we began
        descriptor = os.open(path, os.O_RDONLY)
        os.read(descriptor, 1)  # nothing is ever written: this returns at end of file
    # We lead a group of our own only if the supervisor made it; never signal somebody's shell.
    group = os.getpgrp()
    if group != os.getsid(0):
        os.kill(os.getpid(), signal.SIGKILL)
    remove_own_folder()  # now: the signal may end us at once
    os.killpg(group, signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_SECONDS)
    remove_own_folder()
    os.killpg(group, signal.SIGKILL)


def remove_own_folder() -> None:
    """Called by a supervised program whose supervisor may be gone: that one can no longer do it."""
    if SCRATCH in os.environ:
        shutil.rmtree(os.environ[SCRATCH], ignore_errors=True)


@contextlib.contextmanager
def handled(numbers: Sequence[int], handler: Callable[..., object]) -> Iterator[None]:
    """Signals are the handler's inside the block, which only the main thread can do; an ignored SIGHUP stays
    ignored: that is what nohup is for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    wanted = [number for number in numbers if not (number == signal.SIGHUP and ignored)]
    before = {number: signal.signal(number, handler) for number in wanted}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def log_pump(log_path: Path) -> Iterator[int]:
    """A pipe's write end; a thread copies what arrives to `log_path`, at 64 MiB moved to `<log_path>.1`."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    read_end, write_end = os.pipe()
    pump = threading.Thread(target=_copy_log, args=(read_end, log_path), name="log-pump", daemon=True)
    pump.start()
    try:
        yield write_end
    finally:
        os.close(write_end)
        pump.join(timeout=5)  # a stranger may still hold the pipe; the log is then complete up to here


def _copy_log(read_end: int, log_path: Path) -> None:
    """A log that cannot be written (the disk is full) stops nobody; its end is tried once more."""
    unwritten = _add_to_log(log_path, b"")  # it is there, also where nothing is said
    with open(read_end, "rb", buffering=0) as pipe:
        while chunk := pipe.read(65536):
            unwritten = _add_to_log(log_path, unwritten + chunk)
    _add_to_log(log_path, unwritten)


def _add_to_log(log_path: Path, text: bytes) -> bytes:
    """What could not be written, at most the end of it."""
    try:
        if log_path.exists() and log_path.stat().st_size + len(text) > LOG_LIMIT_BYTES:
            log_path.replace(log_path.with_name(log_path.name + ".1"))
        with log_path.open("ab", buffering=0) as log:
            while text:
                text = text[log.write(text) :]
    except OSError:
        return text[-LOG_TAIL_BYTES:]
    return b""


def last_lines(path: Path) -> str:
    """The last lines of a log, at most 32 KiB; carriage returns of progress bars count as line ends."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(line for line in text.splitlines()[-LOG_TAIL_LINES:] if line.strip())
