"""Same content, same name; anything that changes the result changes it."""

import dataclasses
import math
import re
from pathlib import Path
from pprint import pformat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.fingerprint import (
    NOT_IN_RESULT,
    FingerprintError,
    canonical_json,
    code_version,
    fingerprint,
    import_closure,
    library_versions,
    source_digest,
)

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
KEYS = st.text("abcdeé", max_size=4)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)
)
BASE = {
    "stage": "pretrain",
    "program": "stages.pretrain.config",
    "configuration": {"doses": [0, 300]},
    "inputs": {"shards": "aa"},
}


@settings(max_examples=150, deadline=None)
@given(VALUES, VALUES)
def test_canonical_json_is_equal_exactly_for_equal_values(first, second):
    # As Python writes them, with sorted keys: True is not 1, 1 is not 1.0, -0.0 is not 0.0.
    assert (canonical_json(first) == canonical_json(second)) == (pformat(first) == pformat(second))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text("abc", max_size=3), SCALARS, max_size=6), st.randoms())
def test_key_order_does_not_matter(value, random):
    items = list(value.items())
    random.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, math.nan]}, "value.a[1]"),
        ({"a": math.inf}, "value.a"),
        ({"a": {1: 2}}, "value.a"),
        ({"a": {True: 2}}, "value.a"),
        ({"path": Path("/x")}, "value.path"),
        ({"set": {1, 2}}, "value.set"),
        ({"bytes": b"x"}, "value.bytes"),
        ("\ud800", "surrogate"),
    ],
)
def test_what_has_no_canonical_form_is_refused_by_place(value, place):
    with pytest.raises(FingerprintError, match=re.escape(place)):
        canonical_json(value)


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "refine"},
        {"configuration": {"doses": [0, 301]}},
        {"configuration": {"doses": [0.0, 300]}},
        {"inputs": {"shards": "ab"}},
        {"inputs": {"shard": "aa"}},
        {"program": "stages.refine.config"},
    ],
)
def test_it_is_32_hex_digits_in_which_every_part_counts(change):
    name = fingerprint(**BASE)
    assert name == fingerprint(**BASE) and re.fullmatch("[0-9a-f]{32}", name)
    assert fingerprint(**BASE | change) != name


def test_the_version_of_an_imported_library_counts(monkeypatch):
    before = fingerprint(**BASE | {"program": "data_prep.shards"})
    assert library_versions("data_prep.shards").keys() >= {"numpy", "pillow"}
    monkeypatch.setattr("infra.fingerprint._version", lambda library: "0")
    assert fingerprint(**BASE | {"program": "data_prep.shards"}) != before


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    zero_stage: int = 2
    processes: int = dataclasses.field(default=1, metadata=NOT_IN_RESULT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    engine: Engine = Engine()
    steps: tuple[int, ...] = (1, 2)
    doses: tuple[int, ...] = dataclasses.field(default=(0, 300), metadata=NOT_IN_RESULT)


def test_dataclasses_count_as_json_without_what_changes_no_result_however_deep_it_lies():
    plain = {"stage": {"engine": {"zero_stage": 2}, "steps": [1, 2]}}
    assert canonical_json({"stage": Stage()}) == canonical_json(plain)
    same = Stage(engine=Engine(processes=4), doses=(0,))
    assert canonical_json({"stage": same}) == canonical_json(plain)
    assert canonical_json({"stage": Stage(engine=Engine(zero_stage=1))}) != canonical_json(plain)


TREE = {
    "stages/__init__.py": "raise RuntimeError('imported')",
    "stages/words.py": "",
    "stages/train/__init__.py": "",
    "stages/train/batches.py": "import numpy, PIL.Image\nfrom infra import store\n",
    "stages/train/forecast.py": "",
    "stages/train/page.jinja": "<p>",
    "stages/pretrain/__init__.py": "",
    "stages/pretrain/program.py": """
from __future__ import annotations
import typing
from typing import TYPE_CHECKING
from stages.train import batches
from .objectives import mix
if TYPE_CHECKING:
    from stages.recipes import Recipe
elif typing.TYPE_CHECKING:
    import stages.words
def late():
    import data_prep.shards
""",
    "stages/pretrain/objectives.py": "from ..losses import nce",
    "stages/losses.py": "from stages.pretrain.objectives import mix",
    "stages/recipes.py": "import stages.words",
    "stages/report/__init__.py": "",
    "stages/report/page.css": "",
    "data_prep/__init__.py": "",
    "data_prep/shards.py": "import no_such_library",
    "data_prep/templates/card.html": "",
    "data_prep/notes.txt": "",
    "data_prep/inner/page.html": "",
    "infra/__init__.py": "",
    "infra/store.py": "",
}
PROGRAM = "stages.pretrain.program"
CLOSURE = (
    "data_prep", "data_prep.shards", "stages", "stages.losses", "stages.pretrain",
    "stages.pretrain.objectives", "stages.pretrain.program", "stages.train", "stages.train.batches",
)  # fmt: skip


def tree(root: Path, **changes: str | None) -> Path:
    for name, content in (TREE | changes).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_text(content)
    return root


def test_the_closure_is_what_the_program_can_load(tmp_path):
    root = tree(tmp_path)
    assert import_closure(PROGRAM, root) == CLOSURE
    assert library_versions(PROGRAM, root).keys() == {"numpy", "pillow", "no_such_library"}
    assert library_versions(PROGRAM, root)["no_such_library"] is None  # an extra that is not installed
    assert import_closure("stages.losses", root) != CLOSURE


INSIDE = sorted(
    {name for name in TREE if name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") in CLOSURE}
    | {"stages/train/page.jinja", "data_prep/templates/card.html"}
)


@pytest.mark.parametrize("name", sorted(TREE))
def test_a_change_counts_exactly_where_it_can_change_the_result(tmp_path, name):
    before = source_digest(PROGRAM, tree(tmp_path / "before"))  # elsewhere: the place of the tree is nothing
    after = source_digest(PROGRAM, tree(tmp_path / "after", **{name: TREE[name] + "\n\n"}))
    assert (before != after) == (name in INSIDE)


@pytest.mark.parametrize(
    "change",
    [
        {"stages/train/page.jinja": None},
        {"stages/pretrain/new.html": ""},
        {"stages/words/__init__.py": "", "stages/pretrain/objectives.py": "import stages.words"},
    ],
)
def test_files_that_come_and_go_count_and_others_do_not(tmp_path, change):
    before = source_digest(PROGRAM, tree(tmp_path / "before"))
    new = {"stages/train/__pycache__/batches.pyc": "x", "stages/train/notes.md": "", "stages/train/n.py": ""}
    assert source_digest(PROGRAM, tree(tmp_path / "new", **new)) == before
    assert source_digest(PROGRAM, tree(tmp_path / "after", **change)) != before


@pytest.mark.parametrize("name", ["no_such_package", "stages.no_such_module"])
def test_an_unknown_program_is_an_error(name):
    with pytest.raises(FingerprintError, match=name):
        fingerprint(**BASE | {"program": name})


def test_the_commit_is_that_of_this_source_whatever_repository_git_is_told_of(monkeypatch):
    code_version.cache_clear()
    before = code_version()
    code_version.cache_clear()
    monkeypatch.setenv("GIT_DIR", "/somewhere/else")
    assert code_version() == before
