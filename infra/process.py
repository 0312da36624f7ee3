"""Run a training as a supervised process: it cannot outlive us, hang unseen, or hold our pipes.

The supervisor gives the child its own session, its own pipe for output, no stdin, and an environment made
from an allow-list. Four rules were paid for by others' orphans and zombies:

* the child never inherits our stdout: whoever waits for its end of file would wait for the orphan;
* the child watches us (`watch_parent`): end of file on the life line means that we died, however we died;
* any exception here (a cancel, Ctrl-C, a bug) ends the whole tree: TERM, grace, KILL, reap;
* progress is what rank 0 writes into the metrics file; when that stops growing, the child hangs.
"""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

logger = logging.getLogger(__name__)

EXIT_PREEMPTED = 75  # EX_TEMPFAIL: the child saved a checkpoint and stopped because it was asked to
LIFE_LINE = "LCO_LIFE_LINE"  # path of a FIFO whose only writer is the supervisor
SUPERVISION = "LCO_SUPERVISION"  # marks every process of one supervised tree, across sessions
POLL_SECONDS = 0.25
ORPHAN_GRACE_SECONDS = 3.0
LOG_TAIL_LINES = 200
LOG_LIMIT_BYTES = 64 * 1024 * 1024

# What a training needs from the surrounding environment. Credentials are not here: give them explicitly.
ALLOWED_ENVIRONMENT = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE",
    "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
)  # fmt: skip
ALLOWED_PREFIXES = ("LC_", "NCCL_", "GLOO_", "OMP_", "MKL_", "TORCH_", "PYTORCH_", "TRITON_", "LCO_TEST_")

Outcome = Literal["preempted", "killed", "hung", "failed"]


class ProcessFailed(Exception):
    """A supervised process did not end well.

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


def run_supervised(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    log_path: Path,
    metrics_path: Path | None,
    on_event: Callable[[dict], None],
    grace_seconds: float = 20.0,
    hang_seconds: float = 600.0,
) -> None:
    """Run `argv` to its end; return when it exits with 0 and nothing of it is left.

    `environment` is added to the allowed part of ours. stdout and stderr go to `log_path` (at 64 MiB it is
    moved to `<log_path>.1`). Each JSON line appended to `metrics_path` from now on is passed to `on_event` in
    this thread; when the file does not grow for `hang_seconds` the process counts as hung. Raises
    ProcessFailed. On any other exception the process tree is stopped (TERM, `grace_seconds`, KILL) and the
    exception goes on.
    """
    metrics = MetricsTail(metrics_path) if metrics_path else None
    with _life_line() as life_line, _log_pump(log_path) as output:
        marker = uuid.uuid4().hex
        process = subprocess.Popen(
            list(argv),
            env=child_environment(environment) | {LIFE_LINE: str(life_line), SUPERVISION: marker},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            hung = _wait(process, metrics, on_event, hang_seconds)
        finally:
            # Also after a good end: a forgotten data worker would hold memory and our log pipe.
            _stop(process, marker, grace_seconds)
    if metrics:
        metrics.deliver(on_event, final=True)
    if hung or process.returncode != 0:
        raise _failure(argv, process.returncode, hang_seconds if hung else None, log_path)


def _wait(process: subprocess.Popen, metrics: "MetricsTail | None", on_event, hang_seconds: float) -> bool:
    """Wait for the end, delivering events; True if the process hangs instead."""
    last_progress = time.monotonic()
    while True:
        try:
            process.wait(POLL_SECONDS)
            return False
        except subprocess.TimeoutExpired:
            pass
        if metrics is None:
            continue
        if metrics.deliver(on_event):
            last_progress = time.monotonic()
        elif time.monotonic() - last_progress > hang_seconds:
            return True


def _stop(process: subprocess.Popen, marker: str, grace_seconds: float) -> None:
    """TERM the group, wait `grace_seconds`, KILL the whole marked tree, reap. Harmless after a normal end."""
    try:
        if process.poll() is None:
            _signal_group(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_seconds)
    finally:  # a second cancel during the grace cuts it short
        if process.returncode is None:
            _signal_group(process.pid, signal.SIGKILL)
        kill_marked(marker)
        process.wait()


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def kill_marked(marker: str) -> None:
    """KILL every process whose environment carries `marker`.

    torchrun starts each rank in a session of its own, so the group alone does not hold them.
    """
    for _ in range(3):  # again, in case one was being started meanwhile
        marked = [process for process in psutil.process_iter() if _is_marked(process, marker)]
        if not marked:
            return
        for process in marked:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(marked, timeout=5)


def _is_marked(process: psutil.Process, marker: str) -> bool:
    try:
        return process.environ().get(SUPERVISION) == marker and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):  # gone, or another user's
        return False


def _failure(argv: Sequence[str], code: int, hung_seconds: float | None, log_path: Path) -> ProcessFailed:
    outcome: Outcome = outcome_of(code) if hung_seconds is None else "hung"
    reason = {
        "hung": f"made no progress for {hung_seconds} s and was stopped: a rank or a data source is stuck",
        "preempted": f"was preempted after saving a checkpoint (exit code {code}): run again to continue",
        "killed": f"was killed (exit code {code}), probably out of memory: use smaller batches",
        "failed": f"failed with exit code {code}",
    }[outcome]
    return ProcessFailed(
        command=_short(argv), outcome=outcome, exit_code=code, reason=reason, log_path=log_path
    )


def outcome_of(exit_code: int) -> Outcome:
    """What a non-zero exit code means; 137 is how shells and containers report signal 9."""
    if exit_code == EXIT_PREEMPTED:
        return "preempted"
    return "killed" if exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL) else "failed"


def _short(argv: Sequence[str]) -> str:
    """The last `-m module` of a command line says what runs; else the command itself."""
    modules = [argv[i + 1] for i, argument in enumerate(argv[:-1]) if argument == "-m"]
    return modules[-1] if modules else str(argv[0])


def child_environment(given: Mapping[str, str]) -> dict[str, str]:
    """The allowed part of our environment, plus what is given explicitly."""
    allowed = {
        name: value
        for name, value in os.environ.items()
        if name in ALLOWED_ENVIRONMENT or name.startswith(ALLOWED_PREFIXES)
    }
    return allowed | {"PYTHONUNBUFFERED": "1"} | dict(given)


# --- the life line ------------------------------------------------------------


@contextlib.contextmanager
def _life_line() -> Iterator[Path]:
    """A FIFO with us as its only writer: readers see its end when we close it or die, by whatever means.

    A path, not an inherited descriptor: torchrun closes descriptors before it starts the ranks.
    """
    folder = Path(tempfile.mkdtemp(prefix="lco-"))
    path = folder / "alive"
    os.mkfifo(path, 0o600)
    descriptor = os.open(
        path, os.O_RDWR | os.O_NONBLOCK
    )  # read and write: opening must not wait for a reader
    try:
        yield path
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def watch_parent() -> None:
    """Called first by every supervised program: stop this process group when the supervisor is gone.

    Does nothing when there is no supervisor (the module was started by hand).
    """
    path = os.environ.get(LIFE_LINE)
    if path:
        threading.Thread(target=_end_with_parent, args=(path,), name="watch-parent", daemon=True).start()


def _end_with_parent(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        pass  # the supervisor ended before we began
    else:
        os.set_blocking(descriptor, True)
        os.read(descriptor, 1)  # nothing is ever written: this returns at end of file
    # We lead a group of our own only if the supervisor (or torchrun) made it; never signal somebody's shell.
    group = os.getpgrp()
    if group != os.getsid(0):
        os.kill(os.getpid(), signal.SIGKILL)
    os.killpg(group, signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_SECONDS)
    os.killpg(group, signal.SIGKILL)


# --- the log ------------------------------------------------------------


@contextlib.contextmanager
def _log_pump(log_path: Path) -> Iterator[int]:
    """A pipe's write end; a thread copies what arrives to `log_path`."""
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
    with open(read_end, "rb", buffering=0) as pipe:
        log = log_path.open("ab", buffering=0)
        try:
            while chunk := pipe.read(65536):
                if log.tell() + len(chunk) > LOG_LIMIT_BYTES:
                    log.close()
                    log_path.replace(log_path.with_name(log_path.name + ".1"))
                    log = log_path.open("ab", buffering=0)
                log.write(chunk)
        finally:
            log.close()


def last_lines(path: Path, count: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log, at most 32 KiB; carriage returns of progress bars count as line ends."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 32768))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(line for line in text.splitlines()[-count:] if line.strip())


# --- metrics ------------------------------------------------------------


@dataclass(frozen=True)
class MetricsFile:
    """What a stage's program writes: one JSON line per event, whole lines only, visible at once.

    Several workers may append to one file; `worker` says which one this is.
    """

    path: Path
    worker: int = 0

    def write(
        self,
        *,
        cell: str,
        step: int,
        label: str,
        done: int,
        total: int,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Append one event.

        Args:
            cell: fingerprint of the cell that `metrics` belong to.
            step: where `metrics` stand on the cell's own axis.
            done, total: how far this worker is with all its cells; drives rate and time left.
            metrics: NaN and infinities are kept.
        """
        event = {"cell": cell, "step": step, "label": label, "done": done, "total": total}
        event |= {"worker": self.worker, "metrics": dict(metrics or {}), "time": time.time()}
        line = json.dumps(event, ensure_ascii=False) + "\n"
        with Path(self.path).open("ab", buffering=0) as stream:
            stream.write(line.encode())  # one write in append mode: lines do not interleave


class MetricsTail:
    """Reads what is appended to a metrics file, from its present end on; a half-written line waits."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._offset = self.path.stat().st_size if self.path.exists() else 0
        self._rest = b""

    def deliver(self, on_event: Callable[[dict], None], *, final: bool = False) -> bool:
        """Pass new complete lines to `on_event`; True if the file grew. `final`: an unended line, too."""
        data = self._read()
        *lines, self._rest = (self._rest + data).split(b"\n")
        if final and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        for line in filter(None, lines):
            event = self._parse(line)
            if event is not None:
                on_event(event)
        return bool(data)

    def _read(self) -> bytes:
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._offset)
                data = stream.read()
        except FileNotFoundError:
            return b""
        self._offset += len(data)
        return data

    def _parse(self, line: bytes) -> dict | None:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            logger.warning("%s: skipped a line that is not a JSON object: %.80r", self.path, line)
            return None
        return event
