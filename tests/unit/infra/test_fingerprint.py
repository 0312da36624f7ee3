"""Same content, same name; anything that changes the result changes it."""

import dataclasses
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.fingerprint import FingerprintError, canonical_json, fingerprint, source_digest

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
BASE = {
    "stage": "pretrain",
    "schema_version": 1,
    "configuration": {"doses": [0, 300]},
    "inputs": {"shards": "aa"},
    "packages": ("infra.store",),
    "libraries": ("pytest",),
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
        {"packages": ("infra.process",)},
        {"packages": ()},
        {"libraries": ()},
    ],
)
def test_every_part_counts(change):
    assert fingerprint(**BASE | change) != fingerprint(**BASE)


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "fingerprinted"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "inner" / "a.py").write_text("A = 1\n")
    (folder / "inner" / "page.jinja").write_text("<p>\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_sources_are_digested_without_importing(package):
    assert source_digest("fingerprinted") != source_digest("fingerprinted.inner")
    assert source_digest("fingerprinted.inner.a")
    assert "fingerprinted" not in sys.modules


@pytest.mark.parametrize("change", ["edit", "rename", "add", "remove", "template"])
def test_every_change_of_source_changes_the_digest(package, change):
    before = source_digest("fingerprinted")
    inner = package / "inner"
    {
        "edit": lambda: (inner / "a.py").write_text("A = 2\n"),
        "rename": lambda: (inner / "a.py").rename(inner / "b.py"),
        "add": lambda: (inner / "b.py").write_text(""),
        "remove": lambda: (inner / "a.py").unlink(),
        "template": lambda: (inner / "page.jinja").write_text("<b>\n"),
    }[change]()
    assert source_digest("fingerprinted") != before


def test_other_files_do_not_count(package):
    before = source_digest("fingerprinted")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"x")
    (package / "notes.txt").write_text("x")
    assert source_digest("fingerprinted") == before


def test_the_place_of_installation_does_not_count(package, tmp_path, monkeypatch):
    before = source_digest("fingerprinted")
    moved = tmp_path / "elsewhere" / "fingerprinted"
    moved.parent.mkdir()
    package.rename(moved)
    monkeypatch.syspath_prepend(str(moved.parent))
    assert source_digest("fingerprinted") == before


@pytest.mark.parametrize("name", ["no_such_package", "infra.no_such_module"])
def test_an_unknown_package_is_an_error(name):
    with pytest.raises(FingerprintError, match=name):
        source_digest(name)


def test_an_unknown_library_is_an_error():
    with pytest.raises(FingerprintError, match="no-such-library"):
        fingerprint(**BASE | {"libraries": ("no-such-library",)})
