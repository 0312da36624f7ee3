"""What is installed is what the lock names: exact versions, checked by hash, whatever index the user has."""

import hashlib
import importlib.metadata
import io
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.txt", "requirements-mteb.txt")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
# torch is installed by version: its builds for CPU and CUDA share no hash. A CUDA build names the others.
BESIDE_THE_LOCK = {"torch", *PROJECT["tool"]["uv"]["exclude-dependencies"]}
MACHINES = [
    {"python_version": minor, "python_full_version": f"{minor}.4", "sys_platform": "linux"}
    | {"platform_machine": machine, "platform_system": "Linux", "extra": ""}
    for minor in ("3.11", "3.12", "3.13")
    for machine in ("x86_64", "aarch64")
]


def entries(lock: str) -> list[tuple[Requirement, list[str]]]:
    """Each requirement of a lock with its hashes."""
    text = re.sub(r"^ *#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    parts = [line.split(" --hash=") for line in text.splitlines() if line.strip()]
    return [(Requirement(first), [one.strip() for one in hashes]) for first, *hashes in parts]


def locked_on(machine: dict[str, str], *locks: str) -> dict[str, str]:
    """Name -> version of what is installed on a machine."""
    wanted = [one for lock in locks for one, _ in entries(lock)]
    return {
        canonicalize_name(one.name): next(iter(one.specifier)).version
        for one in wanted
        if one.marker is None or one.marker.evaluate(machine)
    }


def installed_requirements(named: list[str]) -> Iterator[str]:
    """Names of all libraries that these ask for, in turn with theirs, by what is installed here."""
    waiting, seen = [Requirement(text) for text in named], set()
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if (name, str(one.extras)) in seen or name in BESIDE_THE_LOCK - {"torch"}:
            continue
        seen.add((name, str(one.extras)))
        yield name
        asked = [Requirement(text) for text in importlib.metadata.requires(name) or []]
        extras = one.extras or {""}
        waiting += [r for r in asked if not r.marker or any(r.marker.evaluate({"extra": e}) for e in extras)]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_has_one_exact_version_and_its_hashes(lock):
    for requirement, hashes in entries(lock):
        assert [one.operator for one in requirement.specifier] == ["=="], requirement
        assert "*" not in str(requirement.specifier)
        assert hashes, f"{requirement} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_and_no_path(lock):
    text = (ROOT / lock).read_text()
    assert "/" not in text
    assert "@" not in text
    assert not re.search(r"^\s*-[^-]|^--", text, flags=re.MULTILINE), "an option of pip stands in the lock"


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: f"{m['python_version']}-{m['platform_machine']}")
def test_the_lock_holds_what_pyproject_names_at_an_allowed_version(machine):
    locked = {name: locked_on(machine, *files) for name, files in (("mteb", LOCKS), ("", LOCKS[:1]))}
    for extra, named in {"": PROJECT["project"]["dependencies"], **EXTRAS}.items():
        for requirement in map(Requirement, named):
            if requirement.name in BESIDE_THE_LOCK:
                continue
            version = locked["mteb" if extra == "mteb" else ""].get(canonicalize_name(requirement.name))
            assert version, f"{requirement} (extra {extra!r}) is not in the lock: make lock"
            assert requirement.specifier.contains(version), f"{requirement}, locked at {version}: make lock"


def test_the_lock_holds_what_the_libraries_ask_for_in_turn():
    """They are installed without looking for more, so that a gap would be seen at an import only."""
    named = [*PROJECT["project"]["dependencies"], *(one for e in EXTRAS if e != "mteb" for one in EXTRAS[e])]
    asked = set(installed_requirements(named)) - BESIDE_THE_LOCK
    assert len(asked) > 100
    assert asked <= locked_on({}, "requirements.txt").keys()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_machine_without_a_gpu_is_given_no_cuda_library(lock):
    names = {canonicalize_name(requirement.name) for requirement, _ in entries(lock)}
    assert not names & BESIDE_THE_LOCK
    assert not [name for name in names if name.startswith(("cuda-", "nvidia-"))]


def test_torch_is_installed_at_the_version_that_pyproject_names():
    in_makefile = re.findall(r"\btorch==\S+", (ROOT / "Makefile").read_text())
    assert in_makefile == [one for one in PROJECT["project"]["dependencies"] if one.startswith("torch")]


def wheel(folder: Path, name: str) -> Path:
    """A wheel of one empty module, enough for an installer."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def source(folder: Path, name: str, backend: str) -> Path:
    """A source distribution that a backend would have to build."""
    path = folder / f"{name}-1.0.tar.gz"
    files = {
        "pyproject.toml": f'[build-system]\nrequires = ["{backend}"]\nbuild-backend = "{backend}"\n',
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for file, text in files.items():
            member = tarfile.TarInfo(f"{name}-1.0/{file}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def line(path: Path, digest: str | None = None) -> str:
    name = path.name.split("-")[0]
    return f"{name}==1.0 --hash=sha256:{digest or hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def make_installed(folder: Path, lock: str) -> tuple[str, bool]:
    """What `make` says that installs from a folder of files, and whether `victim` was installed.

    The environment has no pip, so that the step for torch, the next one, fails.
    """
    (folder / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    (folder / "pyproject.toml").write_text('[tool.uv.pip]\nno-index = true\nfind-links = ["."]\n')
    (folder / "requirements.txt").write_text(lock)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True, timeout=60)
    (folder / ".venv/bin/uv").symlink_to(Path(sys.executable).with_name("uv"))
    answer = subprocess.run(
        ["make", ".venv/.installed"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "UV_CACHE_DIR": str(folder / "cache"), "UV_NO_VERIFY_HASHES": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode != 0
    return answer.stderr, bool(list(folder.glob(".venv/lib/*/site-packages/victim.py")))


def test_a_file_with_the_hash_of_the_lock_is_installed(tmp_path):
    says, installed = make_installed(tmp_path, line(wheel(tmp_path, "victim")))
    assert installed, says
    assert "No module named pip" in says


def test_a_file_that_was_exchanged_is_refused(tmp_path):
    says, installed = make_installed(tmp_path, line(wheel(tmp_path, "victim"), digest="0" * 64))
    assert not installed
    assert "Hash mismatch for `victim==1.0`" in says


def test_a_line_without_a_hash_is_refused(tmp_path):
    wheel(tmp_path, "victim")
    says, installed = make_installed(tmp_path, "victim==1.0\n")
    assert not installed
    assert "hash" in says


def test_a_build_tool_that_the_lock_does_not_name_is_refused(tmp_path):
    wheel(tmp_path, "stranger")
    says, installed = make_installed(tmp_path, line(source(tmp_path, "victim", backend="stranger")))
    assert not installed
    assert "no trusted hash was provided for: `stranger`" in says
