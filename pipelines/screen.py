"""A screen that cannot end a run: its reader may go away, its encoding may lack a letter.

`lco run | head` closes the pipe, a closed terminal answers with an error, LANG=C knows no Vietnamese. What
cannot be shown goes to the log; letters that the encoding lacks become escapes.
"""

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import TextIO

logger = logging.getLogger(__name__)

STANDARD_STREAMS = (0, 1, 2)
_MOVES_THE_CURSOR = re.compile(rb"\x1b\[[0-9;?]*[A-Za-ln-z]")
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


def open_closed_streams() -> None:
    """Give what is closed of standard input, output and error (`lco run <&-`) to the null device.

    Else the next pipe or socket gets its number, and a child takes it for its own input or output.
    """
    for number in STANDARD_STREAMS:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


@contextlib.contextmanager
def lasting_screen() -> Iterator[None]:
    """Inside the block, writing to standard output and error raises nothing."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = lasting = [_lasting(stream) for stream in before]
    try:
        yield
    finally:
        for stream in filter(None, lasting):
            stream.flush()
        sys.stdout, sys.stderr = before


def _lasting(stream: TextIO | None) -> TextIO | None:
    try:
        descriptor = stream and stream.fileno()
    except io.UnsupportedOperation:  # somebody collects it in memory
        descriptor = None
    if descriptor is None:
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(descriptor)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


class _Lasting(io.RawIOBase):
    """Writes to a descriptor of somebody else's, which stays open; what fails goes to the log instead."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._terminal = os.isatty(descriptor)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: bytes) -> int:
        try:
            return os.write(self._descriptor, text)
        except OSError as error:  # a closed pipe or terminal, or `lco run > file` on a full disk
            self._log(bytes(text), error)
            return len(text)

    def _log(self, text: bytes, error: OSError) -> None:
        if _MOVES_THE_CURSOR.search(text):  # a progress bar, ten times a second
            return
        words = _COLOUR.sub(b"", text).decode(errors="replace").strip()
        if words:
            logger.info("not shown (%s): %s", error.strerror, words)
