"""One digest names an output: everything that can change the result, and nothing else, goes into it.

    fingerprint(stage="pretrain", program="stages.pretrain.program", configuration=settings,
                inputs={"shards": digest})

What computes the result is read from the program itself: the modules of this project that it imports, in turn
with theirs, and the installed versions of the libraries that any of them imports.
"""

import ast
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("stages", "data_prep")
"""Packages whose modules compute results. `infra` only moves bytes and starts processes."""
TEMPLATES = (".jinja", ".html", ".css")
"""Code too: a changed report template makes a changed report."""
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "pytrec_eval": "pytrec-eval-terrier"}
"""Import name -> distribution, where they differ."""
NOT_IN_RESULT = {"in_fingerprint": False}
"""Metadata of a dataclass field that changes no result: `field(default=1, metadata=NOT_IN_RESULT)`."""


class FingerprintError(Exception):
    """A value or a program cannot be part of a fingerprint."""


def fingerprint(*, stage: str, program: str, configuration: Any, inputs: Mapping[str, str]) -> str:
    """Name an output: 32 hex digits over all arguments and what they lead to.

    `program`: the module that computes the output; it is read, not imported. `configuration`: a dataclass or
    plain JSON values (finite numbers, string keys). `inputs`: name -> content digest. Raises
    FingerprintError.
    """
    parts = {
        "stage": stage,
        "configuration": configuration,
        "inputs": dict(inputs),
        "sources": source_digest(program),
        "libraries": library_versions(program),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }
    return hashlib.sha256(canonical_json(parts)).hexdigest()[:32]


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes.

    Dataclasses count as mappings, without the fields marked NOT_IN_RESULT, and tuples as lists. Raises
    FingerprintError, with the place of the value, for what has no canonical form: NaN, infinities, sets,
    paths, keys that are not strings.
    """
    plain = _plain(value, "value")
    try:
        return json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise FingerprintError(f"a text holds a lone surrogate, which UTF-8 cannot write: {error}") from error


def _plain(value: Any, where: str) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        counted = [one.name for one in dataclasses.fields(value) if one.metadata.get("in_fingerprint", True)]
        return {name: _plain(getattr(value, name), f"{where}.{name}") for name in counted}
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


@functools.cache
def import_closure(program: str, root: Path = ROOT) -> tuple[str, ...]:
    """The program and every module of ROOMS below `root` that it can load, packages included, sorted.

    Imports in functions count; those under `if TYPE_CHECKING:` do not. A module that is found only while
    running (importlib with a computed name) is not seen. Raises FingerprintError for an unknown program.
    """
    if _source(program, root) is None:
        raise FingerprintError(f"program {program!r} is not importable: install the project or correct it")
    found: set[str] = set()
    waiting = [program]
    while waiting:
        module = waiting.pop()
        source = _source(module, root)
        if module in found or source is None:  # `from module import name`: the name need not be a module
            continue
        found.add(module)
        waiting += [name for name in _imported(module, source) if name.split(".")[0] in ROOMS]
    return tuple(sorted(found))


@functools.cache
def source_digest(program: str, root: Path = ROOT) -> str:
    """SHA-256 (hex) over the names and bytes of the closure's modules and of the templates beside them."""
    files = {}
    for module in import_closure(program, root):
        source = _source(module, root)
        files[module] = source
        package = _package(module, source)
        beside = [*source.parent.iterdir(), *source.parent.glob("templates/*")]
        files |= {f"{package}/{file.name}": file for file in beside if file.suffix in TEMPLATES}
    pairs = [[name, hashlib.sha256(files[name].read_bytes()).hexdigest()] for name in sorted(files)]
    return hashlib.sha256(canonical_json(pairs)).hexdigest()


def library_versions(program: str, root: Path = ROOT) -> dict[str, str | None]:
    """Installed versions of the libraries that the closure imports; None for one that is not installed."""
    sources = [(module, _source(module, root)) for module in import_closure(program, root)]
    imported = {name.split(".")[0] for source in sources for name in _imported(*source)}
    third_party = {name for name in imported - sys.stdlib_module_names if not _source(name, root)}
    return {library: _version(library) for library in (DISTRIBUTIONS.get(name, name) for name in third_party)}


@functools.cache
def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _source(module: str, root: Path) -> Path | None:
    """The file of a module below `root`; None if there is none. Nothing is executed."""
    path = root.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


def _package(module: str, source: Path) -> str:
    return module if source.name == "__init__.py" else module.rpartition(".")[0]


@functools.cache
def _imported(module: str, source: Path) -> frozenset[str]:
    """What the module may load: the names it imports, each with the packages around it and its own."""
    names = {module}
    for node in _executed(ast.parse(source.read_bytes(), filename=str(source))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            written = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(written, _package(module, source))
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return frozenset(name.rsplit(".", cut)[0] for name in names for cut in range(name.count(".") + 1))


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, but those under `if TYPE_CHECKING:`."""
    yield node
    test = getattr(node, "test", None)
    only_types = "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))
    for inner in node.orelse if only_types else ast.iter_child_nodes(node):
        yield from _executed(inner)


@functools.cache
def code_version() -> str:
    """The project's version, with the commit where it runs from a checkout; for people, not for reuse."""
    version = _version("lco-pipeline") or "uninstalled"
    if not (ROOT / ".git").exists():
        return version
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    # In a hook of git's, for one, variables name the repository of somebody else's commit.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "check": False}
    try:
        answer = subprocess.run(command, env=environment, timeout=10, **options)
    except (OSError, subprocess.TimeoutExpired):
        return version  # no git on this machine: the version alone is still true
    return f"{version}+{answer.stdout.strip()}" if answer.returncode == 0 else version
