"""One digest names an output: everything that can change the result, and nothing else, goes into it.

fingerprint(stage="pretrain", schema_version=1, configuration=recipe.pretrain, inputs={"shards": digest},
            packages=("data_prep", "stages.train", "stages.pretrain"), libraries=("torch", "deepspeed"))
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Templates are code too: a changed report template makes a changed report.
SOURCE_SUFFIXES = (".py", ".jinja", ".html", ".css")
_HEX_DIGITS = 32
NOT_IN_RESULT = {"in_fingerprint": False}
"""Metadata of a dataclass field that changes no result: `field(default=1, metadata=NOT_IN_RESULT)`."""


class FingerprintError(Exception):
    """A value, a package or a library cannot be part of a fingerprint."""


def fingerprint(
    *,
    stage: str,
    schema_version: int,
    configuration: Any,
    inputs: Mapping[str, str],
    packages: tuple[str, ...],
    libraries: tuple[str, ...] = (),
) -> str:
    """Name an output: 32 hex digits over all arguments.

    `configuration`: a dataclass or plain JSON values (finite numbers, string keys). `inputs`: name -> content
    digest. `packages`: importable modules or packages whose source computes the output; they are read, not
    imported. `libraries`: distributions whose installed version goes in. Raises FingerprintError.
    """
    parts = {
        "stage": stage,
        "schema_version": schema_version,
        "configuration": configuration,
        "inputs": dict(inputs),
        "packages": {package: source_digest(package) for package in packages},
        "libraries": {library: library_version(library) for library in libraries},
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }
    return hashlib.sha256(canonical_json(parts)).hexdigest()[:_HEX_DIGITS]


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes.

    Dataclasses count as mappings and tuples as lists. Raises FingerprintError, with the place of the value,
    for what has no canonical form: NaN, infinities, sets, paths, keys that are not strings.
    """
    plain = _plain(value, "value")
    try:
        return json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise FingerprintError(
            f"a text holds a lone surrogate and cannot be written as UTF-8: {error}"
        ) from error


def _plain(value: Any, where: str) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: _plain(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        wrong = [key for key in value if type(key) is not str]
        if wrong:
            raise FingerprintError(f"{where} has the key {wrong[0]!r}: use strings as keys")
        return {key: _plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{where}[{index}]") for index, inner in enumerate(value)]
    raise FingerprintError(
        f"{where} = {value!r} ({type(value).__name__}) has no canonical form: "
        "use None, booleans, integers, finite floats, strings, lists or dataclasses of them"
    )


def source_digest(package: str) -> str:
    """SHA-256 (hex) over the names and bytes of a module's or package's sources, without importing it."""
    location = _locate(package)
    files = (
        sorted(f for f in location.rglob("*") if f.suffix in SOURCE_SUFFIXES)
        if location.is_dir()
        else [location]
    )
    if not files:
        raise FingerprintError(f"package {package!r} has no source files in {location}: check the name")
    digest = hashlib.sha256()
    for file in files:
        name = file.relative_to(location.parent).as_posix()
        digest.update(canonical_json([name, hashlib.sha256(file.read_bytes()).hexdigest()]))
    return digest.hexdigest()


def _locate(package: str) -> Path:
    """The folder or file of an importable name. Only the top level is looked up: nothing is executed."""
    top, *inner = package.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise FingerprintError(
            f"package {package!r} is not importable: install the project or correct the name"
        )
    if not inner and not spec.submodule_search_locations:
        return Path(spec.origin)
    for root in spec.submodule_search_locations or ():
        path = Path(root).joinpath(*inner)
        if path.is_dir():
            return path
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
    raise FingerprintError(f"package {package!r} was not found beside {top!r}: correct the name")


def library_version(library: str) -> str:
    """The installed version of a distribution. Raises FingerprintError when it is not installed."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError as error:
        raise FingerprintError(
            f"library {library!r} is not installed: run `make run` once, or pip install it"
        ) from error


@functools.cache
def code_version() -> str:
    """The project's version, with the commit where it runs from a checkout; for people, not for reuse."""
    try:
        version = importlib.metadata.version("lco-pipeline")
    except importlib.metadata.PackageNotFoundError:
        version = "uninstalled"
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return version
    command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return version  # no git on this machine: the version alone is still true
    return f"{version}+{answer.stdout.strip()}" if answer.returncode == 0 else version
