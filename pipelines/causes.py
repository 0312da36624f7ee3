"""What ended a command, in one line for people: the cause that started it, not what was raised on top."""

import errno
import logging
import os
import re
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from infra.process import ProcessFailed
from infra.settings import without_password

LOG_LINES_SHOWN = 25
LEAST_FREE_BYTES = 1 << 20  # with less, a disk is full for any file of ours
FREE_SPACE = "free space and run again"
ADVICE = {
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: FREE_SPACE,
    errno.EIO: "check that disk, then run again",
    errno.EROFS: "name a folder that can be written with --output",
    errno.EACCES: "correct its permissions, or name another folder with --output",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "correct these links",
    errno.ENOTDIR: "correct that path",
}
_NO_SPACE = re.compile(
    rf"\[Errno (?:{errno.ENOSPC}|{errno.EDQUOT})\]|No space left on device|Disk quota exceeded|disk is full"
)
# Torch writes which rank it was before every line of a traceback.
_EXCEPTION = re.compile(r"(?:\[rank\d+\]: )?([A-Za-z_][\w.]*(?:Error|Exception|Failed|Missing)\b.*)")


class RunLog(logging.FileHandler):
    """The log file of a run: what libraries say, what the screen could not show, and tracebacks."""


def root_cause(error: BaseException, known: tuple[type[BaseException], ...]) -> BaseException:
    """Of all that led to `error`, the first that a person can act on: one of `known`, or a system error with
    advice that none of `known` was raised from, in better words. Else the very first."""
    chain = list(_chain(error))
    explained = [one.__cause__ for one in chain if isinstance(one, known)]
    for one in chain:
        if isinstance(one, known) or (has_advice(one) and one not in explained):
            return one
    return chain[0]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """What led to an error, from the first to itself."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _chain(before)
    yield error


def has_advice(error: BaseException) -> bool:
    """Whether the system says what a person can act on: a full disk, for example."""
    return isinstance(error, OSError) and error.errno in ADVICE


def in_words(cause: BaseException, error: BaseException) -> str:
    """One line for a cause that is none of our own errors, and for what it led to."""
    if has_advice(cause):
        where = cause.filename or _fullest_place()
        return f"{os.strerror(cause.errno).lower()}: {where}: {ADVICE[cause.errno]}"
    led_to = "" if cause is error else f", which led to {in_short(error)}"
    return f"{in_short(cause)}{led_to}. This is a bug in lco"


def _fullest_place() -> str:
    """Where a file without a name most likely was: the output folder, or the one for temporary files."""
    log = log_file()
    places = [tempfile.gettempdir(), *([str(log.parent)] if log else [])]
    return min(places, key=lambda place: shutil.disk_usage(place).free)


def in_short(error: BaseException) -> str:
    """The first line of an error, without passwords."""
    lines = without_password(f"{type(error).__name__}: {error}").splitlines()
    return lines[0][:300]


def short_failure(error: ProcessFailed) -> str:
    """The reason, the cause that the log names, its last lines, and where the rest is."""
    reason = str(error).splitlines()[0].split(" Its log is ")[0]
    cause = _cause_in_log(error.log_tail) or _full_disk(error.log_path.parent)
    first = f"{reason.rstrip('.')}: {cause}" if cause else reason
    tail = "\n".join(f"  {line}" for line in error.log_tail.splitlines()[-LOG_LINES_SHOWN:])
    # A sandbox takes its log away.
    whole = f"The whole log: {error.log_path}" if error.log_path.exists() else ""
    return "\n".join(part for part in (first, tail, whole) if part)


def _cause_in_log(text: str) -> str | None:
    """A full disk, wherever it stands: what is raised on top of it says less. Else the last exception."""
    found = [line[1] for line in map(_EXCEPTION.fullmatch, text.splitlines()) if line]
    full = [line for line in found if _NO_SPACE.search(line)]
    if full:
        return f"{full[0]}: {FREE_SPACE}"
    return found[-1] if found else None


def _full_disk(folder: Path) -> str | None:
    """Where the disk has no room, the log does not say so either."""
    if not folder.exists() or shutil.disk_usage(folder).free >= LEAST_FREE_BYTES:
        return None
    return f"no space left on device: {folder}: {FREE_SPACE}"


def log_file() -> Path | None:
    """The log file of this run, once it has one."""
    handlers = [one for one in logging.getLogger().handlers if isinstance(one, RunLog)]
    return Path(handlers[0].baseFilename) if handlers else None


def keep_traceback(error: BaseException) -> str:
    """Write the whole traceback to the run's log; the words that say where it is. Without a log, itself."""
    text, log = "".join(traceback.format_exception(error)), log_file()
    if log is None:
        return text.rstrip()
    try:
        with log.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
    except OSError as unwritten:
        return f"The traceback could not be written to {log}: {unwritten.strerror}"
    return f"The whole traceback: {log}"
