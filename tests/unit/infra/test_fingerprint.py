"""Same content, same name; anything that changes the result changes it."""

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.fingerprint import (
    NOT_IN_RESULT,
    FingerprintError,
    canonical_json,
    fingerprint,
    import_closure,
    library_versions,
    source_digest,
)

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
SCALARS = SCALARS.filter(lambda value: not (isinstance(value, str) and _has_surrogate(value)))
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdeé", max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
ROOT = Path(__file__).parents[3]
BASE = {
    "stage": "pretrain",
    "program": "stages.pretrain.config",
    "configuration": {"doses": [0, 300]},
    "inputs": {"shards": "aa"},
}


def _has_surrogate(text: str) -> bool:
    return any(0xD800 <= ord(character) < 0xE000 for character in text)


def _typed(value):
    """A value that compares as JSON text does: True is not 1, 1 is not 1.0, -0.0 is not 0.0."""
    if isinstance(value, dict):
        return {key: _typed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_typed(inner) for inner in value]
    return (type(value).__name__, repr(value))


@settings(max_examples=150, deadline=None)
@given(VALUES, VALUES)
def test_canonical_json_is_equal_exactly_for_equal_values(first, second):
    assert (canonical_json(first) == canonical_json(second)) == (_typed(first) == _typed(second))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text("abc", max_size=3), SCALARS, max_size=6), st.randoms())
def test_key_order_does_not_matter(value, random):
    items = list(value.items())
    random.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


def test_dataclasses_and_tuples_count_as_plain_json():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Configuration:
        doses: tuple[int, ...] = (0, 300)

    assert canonical_json(Configuration()) == canonical_json({"doses": [0, 300]})


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
    ],
)
def test_what_has_no_canonical_form_is_refused_by_place(value, place):
    with pytest.raises(FingerprintError, match=place.replace("[", r"\[")):
        canonical_json(value)


def test_a_lone_surrogate_is_refused():
    with pytest.raises(FingerprintError, match="surrogate"):
        canonical_json("\ud800")


def test_a_fingerprint_is_32_hex_digits_and_stable():
    name = fingerprint(**BASE)
    assert len(name) == 32 and int(name, 16) >= 0
    assert name == fingerprint(**BASE)


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "refine"},
        {"schema_version": 2},
        {"configuration": {"doses": [0, 301]}},
        {"configuration": {"doses": [0.0, 300]}},
        {"inputs": {"shards": "ab"}},
        {"inputs": {"shard": "aa"}},
        {"program": "stages.refine.config"},
    ],
)
def test_every_part_counts(change):
    assert fingerprint(**BASE | change) != fingerprint(**BASE)


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
    doses: tuple[int, ...] = dataclasses.field(default=(0, 300), metadata=NOT_IN_RESULT)


def test_what_changes_no_result_is_left_out_however_deep_it_lies():
    assert canonical_json({"stage": Stage()}) == canonical_json({"stage": {"engine": {"zero_stage": 2}}})
    same = Stage(engine=Engine(processes=4), doses=(0,))
    assert fingerprint(**BASE | {"configuration": same}) == fingerprint(**BASE | {"configuration": Stage()})
    other = Stage(engine=Engine(zero_stage=1))
    assert fingerprint(**BASE | {"configuration": other}) != fingerprint(**BASE | {"configuration": Stage()})


TREE = {
    "stages/__init__.py": "raise RuntimeError('imported')",
    "stages/words.py": "",
    "stages/train/__init__.py": "",
    "stages/train/batches.py": "import numpy, PIL.Image\nfrom infra import store\n",
    "stages/train/plan.py": "",
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
def test_files_that_come_and_go_count(tmp_path, change):
    before = source_digest(PROGRAM, tree(tmp_path / "before"))
    assert source_digest(PROGRAM, tree(tmp_path / "after", **change)) != before


def test_other_files_do_not_count(tmp_path):
    before = source_digest(PROGRAM, tree(tmp_path / "before"))
    new = {"stages/train/__pycache__/batches.pyc": "x", "stages/train/notes.md": "", "stages/train/n.py": ""}
    assert source_digest(PROGRAM, tree(tmp_path / "after", **new)) == before


@pytest.mark.parametrize("name", ["no_such_package", "stages.no_such_module"])
def test_an_unknown_program_is_an_error(name):
    with pytest.raises(FingerprintError, match=name):
        fingerprint(**BASE | {"program": name})


def exists(program: str) -> bool:
    return ROOT.joinpath(*program.split(".")).with_suffix(".py").is_file()


TRAININGS = [name for name in ("stages.pretrain.program", "stages.refine.program") if exists(name)]
PLANNING = ("stages.recipes", "stages.law", "stages.train.plan", "stages.train.memory", "stages.train.cost")
NOT_OF = {
    **dict.fromkeys(TRAININGS, (*PLANNING, "stages.evaluate")),
    "data_prep.reading": ("data_prep.choosing", "stages"),
    "data_prep.prepare": ("stages",),
}


@pytest.mark.parametrize("program", NOT_OF)
def test_what_only_plans_draws_or_words_is_in_no_fingerprint_of_a_training_or_a_document(program):
    closure = import_closure(program)
    assert len(closure) > 2
    other = (*NOT_OF[program], "benchmarks", "infra", "pipelines", "data_prep.seahelp")
    assert [module for module in closure if module.startswith(other)] == []


@pytest.mark.parametrize(
    ("program", "module"),
    [
        ("stages.pretrain.program", "stages.pretrain.objectives"),
        ("stages.refine.program", "stages.losses"),
        ("stages.law.program", "stages.law.statistics"),
        ("data_prep.prepare", "data_prep.splits"),
    ],
)
def test_a_loss_a_sampler_and_a_split_are_in_it(program, module):
    if not exists(program):
        pytest.skip(f"{program} is not there")
    assert module in import_closure(program)
