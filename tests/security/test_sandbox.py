"""A taken-over child has no secret, no network and no rights, is limited, and costs one call."""

import errno
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra import confinement
from infra.confinement import private_network
from infra.process import ProcessFailed
from infra.sandbox import CallFailed, Limits, Sandbox
from tests.unit.infra.conftest import ROOT, alive, wait_until

CANARY = "canary-hunter2"
SECRETS = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_KEY", "SECRET")
MODULE = "tests.security.any_program"  # children do what a test tells them
LIMITS = Limits(seconds=20, memory_bytes=2**30, file_bytes=100_000)
HAS_LANDLOCK = confinement.landlock_version() >= 6
ANY_FILE = replace(LIMITS, writable=("/",))  # for children that a test meets through files


@pytest.fixture(scope="module")
def sandbox():
    """One for most tests; the process around it has secrets in its environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in SECRETS:
            patch.setenv(name, CANARY)
        with Sandbox(module=MODULE, limits=ANY_FILE, processes=2) as running:
            yield running


@pytest.fixture
def told(sandbox):
    """told(program): what a child says that runs it."""

    def run(program: str, inputs=()):
        with sandbox.start({"program": textwrap.dedent(program)}, inputs).result() as output:
            return json.loads(output.read())

    return run


def failure_of(sandbox: Sandbox, program: str) -> int | None:
    with pytest.raises(CallFailed) as caught:
        sandbox.start({"program": program}, []).result()
    return caught.value.exit_code


def test_a_child_reads_what_is_opened_for_it_and_its_answer_comes_back(told, tmp_path):
    (tmp_path / "input").write_text("what it may see")
    with (tmp_path / "input").open() as file:
        assert told("say(os.read(inputs[0], 100).decode())", [file.fileno()]) == "what it may see"


ASK_AROUND = """
import errno
def tree(pid):
    yield pid
    parent = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
    if parent > 1:
        yield from tree(parent)
seen = {}
for pid in tree(os.getpid()):
    for name in ("environ", "cmdline", "mem"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                seen[f"{pid}/{name}"] = "opened" if name == "mem" else file.read().decode()
        except OSError as error:
            seen[f"{pid}/{name}"] = errno.errorcode[error.errno]
say({"seen": seen, "own": dict(os.environ), "pid": os.getpid(), "host": os.getppid()})
"""
ASKING = """
import os, sys
from infra.sandbox import Limits, Sandbox
limits = Limits(seconds=20, memory_bytes=2**30, file_bytes=100_000, writable=("/",))
with Sandbox(module="tests.security.any_program", limits=limits, processes=1) as sandbox:
    print(os.getpid(), sandbox.start({"program": sys.argv[1]}, []).result().read().decode())
"""


def test_no_secret_of_the_caller_is_in_reach():
    """Its environment is what it was started with: no test can set that of its own process."""
    secrets = {**os.environ, **dict.fromkeys(SECRETS, CANARY)}
    command = [sys.executable, "-c", ASKING, ASK_AROUND]
    said = subprocess.run(
        command, cwd=ROOT, env=secrets, capture_output=True, text=True, timeout=60, check=True
    )
    caller, seen = said.stdout.split(maxsplit=1)
    seen = json.loads(seen)
    assert CANARY not in str(seen)
    assert "PATH=" in seen["seen"][f"{seen['pid']}/environ"], "it was looked at"
    assert seen["seen"][f"{caller}/cmdline"], "so was its caller"
    assert seen["seen"][f"{caller}/environ"] == "EACCES"
    assert {seen["seen"][f"{pid}/mem"] for pid in (seen["host"], caller)} == {"EACCES"}


def test_a_child_reaches_no_network_and_no_server_of_this_machine(told, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "bus"))
        local.listen()
        seen = told(
            f"""
            import errno, socket
            def reached(family, kind, address):
                try:
                    with socket.socket(family, kind) as line:
                        line.connect(address)
                        line.send(b"x")
                        return "reached"
                except OSError as error:
                    return errno.errorcode[error.errno]
            say([reached(socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 80)),
                 reached(socket.AF_INET, socket.SOCK_STREAM, {server.getsockname()!r}),
                 reached(socket.AF_UNIX, socket.SOCK_STREAM, {str(tmp_path / "bus")!r})])
            """
        )
    assert seen == ["EPERM"] * 3


def test_a_child_starts_nothing_and_changes_no_mode(told, tmp_path):
    (tmp_path / "file").touch(mode=0o600)
    seen = told(
        f"""
        import errno, subprocess, threading
        file = {str(tmp_path / "file")!r}
        def outcome(action, *arguments):
            try:
                action(*arguments)
                return "done"
            except RuntimeError:  # of a thread
                return "EPERM"
            except OSError as error:
                return errno.errorcode[error.errno]
        say({{
            "fork": outcome(os.fork),
            "spawn": outcome(subprocess.run, ["true"]),
            "exec": outcome(os.execv, "/bin/true", ["true"]),
            "thread": outcome(threading.Thread(target=print).start),
            "mode": outcome(os.chmod, file, 0o4777),
            "mode by descriptor": outcome(os.fchmod, output, 0o777),
            "owner": outcome(os.chown, file, 0, 0),
            "times": outcome(os.utime, file),
            "attribute": outcome(os.setxattr, file, "user.x", b"x"),
            "length": outcome(os.truncate, file, 10),
            "signal": outcome(os.kill, os.getpid(), 0),
        }})
        """
    )
    assert set(seen.values()) == {"EPERM"}, seen
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o600


def test_the_numbers_of_calls_are_those_of_the_kernel():
    """As the header says that this machine's compiler uses, where one is installed."""
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if platform.machine() != "x86_64" or not header.exists():
        pytest.skip("no such header here")
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", header.read_text()))
    known = {name: str(both[0]) for name, both in confinement._REFUSED.items() if name in numbers}
    assert known == {name: numbers[name] for name in known}
    assert len(known) > 40


@pytest.mark.skipif(not HAS_LANDLOCK, reason="the kernel has no Landlock of version 6")
def test_a_child_opens_no_file_but_its_libraries_and_what_it_was_told(tmp_path):
    for name in ("fonts", "scratch", "private"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    limits = replace(LIMITS, readable=(f"{tmp_path}/fonts", "/no/such"), writable=(f"{tmp_path}/scratch",))
    program = f"""
import errno, signal, socket
folder = {str(tmp_path)!r}
def outcome(action, *arguments):
    try:
        action(*arguments)
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
say({{
    "library": outcome(__import__, "colorsys"),
    "read what it may read": outcome(open, f"{{folder}}/fonts/file"),
    "list what it may read": outcome(os.listdir, f"{{folder}}/fonts"),
    "write what it may write": outcome(open, f"{{folder}}/scratch/new", "w"),
    "write what it may read": outcome(open, f"{{folder}}/fonts/file", "a"),
    "make a file": outcome(open, f"{{folder}}/fonts/new", "w"),
    "remove": outcome(os.unlink, f"{{folder}}/fonts/file"),
    "read": outcome(open, f"{{folder}}/private/file"),
    "list": outcome(os.listdir, f"{{folder}}/private"),
    "rename": outcome(os.rename, f"{{folder}}/scratch/file", f"{{folder}}/private/moved"),
    "link": outcome(os.link, f"{{folder}}/private/file", f"{{folder}}/scratch/linked"),
    "home": outcome(os.listdir, os.path.expanduser("~")),
    "passwords": outcome(open, "/etc/passwd"),
    "processes": outcome(os.listdir, "/proc"),
    "listen": outcome(socket.create_server, ("127.0.0.1", 0)),
    "signal": outcome(os.kill, os.getppid(), 0),
}})
"""
    with Sandbox(module=MODULE, limits=limits, processes=1) as sandbox:
        seen = json.loads(sandbox.start({"program": program}, []).result().read())
    allowed = ("library", "read what it may read", "list what it may read", "write what it may write")
    assert {name: seen.pop(name) for name in allowed} == dict.fromkeys(allowed, "done")
    assert {
        name: outcome for name, outcome in seen.items() if outcome not in ("EACCES", "EPERM", "EXDEV")
    } == {}


def test_a_child_has_no_rights_no_terminal_and_no_descriptor_but_its_own(told, tmp_path):
    (tmp_path / "input").touch()
    with (tmp_path / "input").open() as file:
        seen = told(
            """
            import resource
            status = dict(line.split(":", 1) for line in open("/proc/self/status"))
            fds = {}
            for fd in os.listdir("/proc/self/fd"):
                if os.path.lexists(f"/proc/self/fd/{fd}"):
                    fds[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
            old = os.umask(0)
            limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_CPU, resource.RLIMIT_NOFILE)]
            kept = {k: status[k].strip() for k in ("CapEff", "CapPrm", "NoNewPrivs", "Threads")}
            say({"limits": limits, "status": kept,
                 "fds": fds, "inputs": inputs, "output": output, "umask": old,
                 "core": resource.getrlimit(resource.RLIMIT_CORE), "session": os.getsid(0) == os.getpid()})
            """,
            [file.fileno()],
        )
    assert seen["limits"] == [LIMITS.seconds + 1, 64]
    assert int(seen["status"].pop("CapEff"), 16) == int(seen["status"].pop("CapPrm"), 16) == 0
    assert seen["status"] == {"NoNewPrivs": "1", "Threads": "1"}
    assert (seen["umask"], seen["core"], seen["session"]) == (0o077, [0, 0], True)
    fds = {int(fd): target for fd, target in seen["fds"].items()}
    assert {fds.pop(fd) for fd in (0, 1, 2)} == {os.devnull}
    assert fds.keys() == {seen["output"], *seen["inputs"]}
    assert fds[seen["inputs"][0]] == str(tmp_path / "input")


def test_no_file_grows_beyond_the_limit(told, tmp_path):
    program = f"""
    import errno
    sizes = []
    for fd in (os.dup(output), os.open({str(tmp_path / "own")!r}, os.O_CREAT | os.O_WRONLY)):
        try:
            while True:
                os.write(fd, bytes(1000))
        except OSError as error:
            sizes.append([error.errno == errno.EFBIG, os.fstat(fd).st_size])
    os.ftruncate(output, 0)
    os.lseek(output, 0, 0)
    say(sizes)
    """
    assert told(program) == [[True, LIMITS.file_bytes]] * 2


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("import signal; signal.raise_signal(11)", -signal.SIGSEGV),
        ("os._exit(7)", 7),
        ("raise SystemExit(0)", 1),  # only a main that returns has done its work
        ("bytearray(2**31)", 1),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
        ("[os.open('/dev/null', 0) for _ in range(1000)]", 1),
    ],
)
def test_a_crash_costs_one_call(sandbox, told, program, code):
    assert failure_of(sandbox, program) == code
    assert told("say('well')") == "well"


@pytest.mark.chaos
def test_a_child_that_hangs_is_killed(tmp_path):
    limits = replace(ANY_FILE, seconds=3)
    with Sandbox(module=MODULE, limits=limits, processes=1) as sandbox:
        # The second waits for the first: its time begins when it does.
        program = f"""
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({str(tmp_path)!r} + "/pid", "w").write(str(os.getpid()))
time.sleep(100)
"""
        calls = [sandbox.start({"program": program}, []), sandbox.start({"program": "say(1)"}, [])]
        with pytest.raises(CallFailed) as caught:
            calls[0].result()
        assert caught.value.exit_code is None
        assert calls[1].result().read() == b"1"
        pid = int((tmp_path / "pid").read_text())
        assert wait_until(lambda: not alive(pid), 5)


CALLER = """
import sys, time
from infra.sandbox import Limits, Sandbox
limits = Limits(seconds=600, memory_bytes=2**30, file_bytes=1000, writable=("/",))
with Sandbox(module="tests.security.any_program", limits=limits, processes=2) as sandbox:
    calls = [sandbox.start({"program": program}, []) for program in sys.argv[1:]]
    [call.result() for call in calls]
"""
BUSY_IN_NATIVE_CODE = """
import ctypes, signal
signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL})
open(%r, "w").close()
libc = ctypes.PyDLL(None)
array = (ctypes.c_int * 10**7)()
while True:
    libc.memset(array, 1, 4 * 10**7)
"""


@pytest.mark.chaos
def test_no_child_outlives_a_caller_that_is_killed(tmp_path):
    begun = [tmp_path / "one", tmp_path / "two"]
    programs = [BUSY_IN_NATIVE_CODE % str(path) for path in begun]
    command = [sys.executable, "-c", CALLER, *programs, programs[0]]  # the third waits
    with subprocess.Popen(command, cwd=ROOT) as caller:
        assert wait_until(lambda: all(path.exists() for path in begun))
        below = psutil.Process(caller.pid).children(recursive=True)
        assert len(below) == 3, "a host and two children"
        caller.kill()
    assert wait_until(lambda: not any(alive(one.pid) for one in below), 5), "an orphan is left"


@pytest.mark.chaos
def test_the_end_of_a_sandbox_waits_for_no_child(tmp_path):
    with Sandbox(module=MODULE, limits=ANY_FILE, processes=1) as sandbox:
        sandbox.start({"program": BUSY_IN_NATIVE_CODE % str(tmp_path / "begun")}, [])
        assert wait_until((tmp_path / "begun").exists)
        [child] = psutil.Process(sandbox._host._process.pid).children()
    assert wait_until(lambda: not alive(child.pid), 5)


@pytest.mark.chaos
def test_a_lost_host_ends_the_run_and_not_the_document():
    with Sandbox(module=MODULE, limits=ANY_FILE, processes=1) as sandbox:
        call = sandbox.start({"program": "import time; time.sleep(100)"}, [])
        sandbox._host._process.kill()
        with pytest.raises(ProcessFailed, match=r"The sandbox of .* ended \(exit code -9\): run again"):
            call.result()
        with pytest.raises(ProcessFailed):
            sandbox.start({"program": "say(1)"}, []).result()


def test_a_module_that_cannot_be_imported_is_said():
    with (
        Sandbox(module="no_such_module", limits=LIMITS, processes=1) as sandbox,
        pytest.raises(ProcessFailed, match="No module named 'no_such_module'"),
    ):
        sandbox.start({}, []).result()


def test_calls_run_side_by_side_as_many_as_told(tmp_path):
    meet = """
import time
from pathlib import Path
Path({folder!r}, str(os.getpid())).touch()
until = time.monotonic() + 10
while len(os.listdir({folder!r})) < {both} and time.monotonic() < until:
    time.sleep(0.01)
say(len(os.listdir({folder!r})))
"""
    for processes, expected in ((2, [2, 2]), (1, [1, 2])):
        folder = tmp_path / str(processes)
        folder.mkdir()
        program = meet.format(folder=str(folder), both=processes)
        with Sandbox(module=MODULE, limits=ANY_FILE, processes=processes) as sandbox:
            calls = [sandbox.start({"program": program}, []) for _ in range(2)]
            assert [int(call.result().read()) for call in calls] == expected


def test_the_host_has_one_thread_and_the_environment_of_a_child(sandbox, told):
    told("say(1)")
    host = Path(f"/proc/{sandbox._host._process.pid}")
    assert len(os.listdir(host / "task")) == 1
    assert CANARY not in (host / "environ").read_text() + (host / "cmdline").read_text()


LEAVING = """
import ctypes, encodings.idna, os, socket, sys
from infra.confinement import private_network
descriptor = os.open(sys.argv[1], os.O_RDONLY)
if os.geteuid() == 0 and sys.argv[2] == "user":
    os.fchown(descriptor, 12345, 12345)
    os.setgroups([])
    os.setgid(12345)
    os.setuid(12345)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as after a login: its /proc entries are its own
before = os.getuid(), os.getgid(), socket.if_nameindex()
if private_network():
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    assert (os.getuid(), os.getgid()) == before[:2]
    assert os.fstat(descriptor).st_uid == before[0], "its files are still its own"
    print("private")
else:
    assert (os.getuid(), os.getgid(), socket.if_nameindex()) == before
    print("refused")
"""


@pytest.mark.parametrize("who", ["root", "user"])
def test_a_process_leaves_the_network_as_who_it_is_or_stays_as_it_was(tmp_path, who):
    if who == "root" and os.geteuid() != 0:
        pytest.skip("only root can be root")
    (tmp_path / "own").touch(mode=0o600)
    command = [sys.executable, "-c", LEAVING, str(tmp_path / "own"), who]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout in ("private\n", "refused\n")


def test_a_kernel_that_refuses_halfway_leaves_the_process_as_it_was(tmp_path, monkeypatch):
    def refused() -> None:
        (tmp_path / str(os.getpid())).touch()
        raise PermissionError(errno.EPERM, "not here")

    monkeypatch.setattr(confinement, "_leave_network", refused)
    assert private_network() is False
    [tried] = tmp_path.iterdir()
    assert tried.name != str(os.getpid())


def test_what_the_kernel_does_not_give_is_told(monkeypatch):
    assert {one.split(":")[0] for one in confinement.missing()} <= {
        "no private network",
        "no Landlock",
        "no seccomp",
    }
    poor = textwrap.dedent(
        """
        import runpy, sys
        from infra import confinement
        source = open(confinement.__file__).read().replace("def missing", "private_network = leave_files = "
            "leave_calls = lambda **_: False\\ndef missing")
        exec(compile(source, "confinement", "exec"), {"__name__": "__main__"})
        """
    )
    told = subprocess.run([sys.executable, "-c", poor], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split(":")[0] for line in told.stdout.splitlines()] == [
        "no private network",
        "no Landlock",
        "no seccomp",
    ]
