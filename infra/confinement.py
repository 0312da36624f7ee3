"""What the kernel can take away from a process for good, and from all that it starts: network and files.

Neither needs a right that the user does not have; both answer False where the kernel refuses.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_PR_SET_NO_NEW_PRIVS = 38
# Landlock (linux/landlock.h); the numbers of its calls are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _READ_FILE, _READ_DIRECTORY = 1 << 0, 1 << 2, 1 << 3
# How many rights to files, TCP and scopes the versions 1 to 6 know; a later one knows these too.
_RIGHTS = ((13, 0, 0), (14, 0, 0), (15, 0, 0), (15, 2, 0), (16, 2, 0), (16, 2, 2))
_libc = ctypes.CDLL(None, use_errno=True)


def leave_files(readable: Iterable[Path | str]) -> bool:
    """Open no file any more but to read those below `readable`, bind and connect no TCP socket, and signal
    nobody outside; descriptors that are open stay so. False where the kernel has no Landlock."""
    version = _libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        return False
    handled = [(1 << rights) - 1 for rights in _RIGHTS[min(version, len(_RIGHTS)) - 1]]
    attributes = struct.pack("=3Q", *handled)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0))
    for path in filter(os.path.exists, readable):
        directory = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", _EXECUTE | _READ_FILE | _READ_DIRECTORY, directory)
        _checked(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
        os.close(directory)
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)
    return True


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
