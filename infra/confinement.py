"""What the kernel can take away from a process for good, and from all that it starts.

    python -m infra.confinement        says, a line each, what this kernel does not give

None of it needs a right that the user does not have. A function answers False where the kernel does not give
it.
"""

import ctypes
import errno
import fcntl
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.launcher import local_environment
from infra.process import child_environment

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_CAPABILITY_VERSION = 0x20080522
# Landlock (linux/landlock.h); the numbers of its calls are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read a file, list a folder
# How many rights to files, rights to TCP, and scopes its versions 1 to 6 know; later ones know them too.
_RIGHTS = ((13, 0, 0), (14, 0, 0), (15, 0, 0), (15, 2, 0), (16, 2, 0), (16, 2, 2))
# seccomp (linux/seccomp.h, linux/filter.h): what loads, compares and answers.
_FILTER_MODE, _ALLOW, _REFUSE = 2, 0x7FFF0000, 0x00050000 | errno.EPERM
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_X32_CALLS = 0x40000000
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Calls by their numbers on x86_64 and aarch64 (None: there is none). Landlock lets all of these through.
_REFUSED = {
    "socket": (41, 198), "socketpair": (53, 199), "io_uring_setup": (425, 425),
    "fork": (57, None), "vfork": (58, None), "clone": (56, 220), "clone3": (435, 435),
    "execve": (59, 221), "execveat": (322, 281),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "truncate": (76, 45), "kill": (62, 129), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180),
}  # fmt: skip
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


def die_with_parent(parent: int) -> None:
    """End when the process `parent`, which has forked this one, ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before it could be watched
        os._exit(1)


def leave_rights() -> None:
    """Give up root's rights, or those in a user namespace of its own, and get none by running a program.

    With them it could enter other networks, and without them it can read no memory or environment of a
    process that has them.
    """
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.capset((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)())


def leave_files(*, readable: Sequence[str], writable: Sequence[str]) -> bool:
    """Open only what lies below these folders; descriptors that are open stay so. Call `leave_rights` before.

    From Landlock's version 4 on also no TCP socket is bound or connected, from 6 on nobody outside signalled.
    """
    version = landlock_version()
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


def landlock_version() -> int:
    """0 where the kernel has none."""
    return max(0, _libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION))


def leave_calls() -> bool:
    """Make no socket, start no process or thread, change no mode, owner or time of a file, touch no other
    process: such calls fail with EPERM. Call `leave_rights` before."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        return False
    refused = [numbers[machine == "aarch64"] for numbers in _REFUSED.values()]
    refused = [number for number in refused if number is not None]
    last = len(refused) + 1  # the refusal, counted from the first comparison with a number
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 0, last + 2, _ARCHITECTURES[machine])]
    program += [(_LOAD, 0, 0, 0), (_AT_LEAST, last, 0, _X32_CALLS)]
    program += [(_EQUAL, last - 1 - place, 0, number) for place, number in enumerate(refused)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    described = struct.pack("@HP", len(program), ctypes.addressof(code))
    return _libc.prctl(_PR_SET_SECCOMP, _FILTER_MODE, described, 0, 0) == 0


def missing() -> list[str]:
    """What this kernel does not give, for people; asked in a process of its own."""
    command, environment = [sys.executable, "-m", __name__], child_environment(local_environment())
    options = {"capture_output": True, "text": True, "timeout": 60, "check": True}
    asked = subprocess.run(command, env=environment, **options)
    return asked.stdout.splitlines()


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    if not private_network():
        print("no private network: other users reach training ranks, and readers the network")
    leave_rights()
    if not leave_files(readable=("/",), writable=("/",)):
        print("no Landlock: a document that takes its reader over can read and write your files")
    if not leave_calls():
        print("no seccomp: a document that takes its reader over can start programs as you")
