"""What the kernel can take away from a process for good, and from all that it starts.

None of it needs a right that the user does not have. Network and files answer False where the kernel refuses.
"""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION = 0x20080522
# Landlock (linux/landlock.h); the numbers of its calls are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read a file, list a folder
# How many rights to files, rights to TCP, and scopes its versions 1 to 6 know; later ones know them too.
_RIGHTS = ((13, 0, 0), (14, 0, 0), (15, 0, 0), (15, 2, 0), (16, 2, 0), (16, 2, 2))
_libc = ctypes.CDLL(None, use_errno=True)


def private_network() -> bool:
    """Leave the network for one with nothing but a loopback; False where the kernel refuses.

    The process must have one thread. It keeps its rights to files: as root without a user namespace, others
    with one in which they are who they were.
    """
    trial = os.fork()  # some kernels refuse halfway, and there is no way back
    if not trial:
        code = 1
        try:
            _leave_network()
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(trial, 0)[1]:
        return False
    _leave_network()
    return True


def _leave_network() -> None:
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWNET if user == 0 else _CLONE_NEWNET | _CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "the kernel keeps this process in its network")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def leave_rights() -> None:
    """Give up root's rights, or those in a user namespace of its own, and get none by running a program.

    With them it could enter other networks, and without them it can read no memory or environment of a
    process that has them.
    """
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.capset((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)())


def leave_files(*, readable: Sequence[str], writable: Sequence[str]) -> bool:
    """Open only what lies below these folders, connect and bind no TCP socket, and signal nobody outside;
    descriptors that are open stay so. Call `leave_rights` before. False where the kernel has no Landlock.
    """
    version = _libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        return False
    files, tcp, scopes = ((1 << rights) - 1 for rights in _RIGHTS[min(version, len(_RIGHTS)) - 1])
    attributes = struct.pack("=3Q", files, tcp, scopes)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0))
    for folders, rights in ((readable, _READ), (writable, files)):
        for folder in filter(os.path.isdir, folders):
            descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", rights, descriptor)
            _checked(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
            os.close(descriptor)
    _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)
    return True


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
