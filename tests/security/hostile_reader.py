"""A reader that fails or lies as the document's name tells it."""

import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from data_prep import reader


class Canary:
    """Unpickled, it makes a file."""

    def __reduce__(self):
        return Path.touch, (Path(CANARY_FILE),)


CANARY_FILE = "/tmp/lco-test-canary-that-nobody-may-make"
LINE = {
    "kind": "sample", "page": 1, "block": None, "text": "taken over", "is_heading": False, "width": 16,
    "height": 16, "box": [0, 0, 16, 16], "ink": [0, 255], "reason": None,
}  # fmt: skip
NOTE = {"kind": "note", "page": 1, "refused": None, "left_out": {"no ink": 3}}
PNG = bytes.fromhex("89504e470d0a1a0a0000000d494844520000001000000010080000000037255bd8")


def lie(header, *records: tuple[dict, bytes]) -> bytes:
    """A record is a note, or what a sample has else than LINE."""
    whole = ((one if one.get("kind") == "note" else LINE | one, png) for one, png in records)
    lines = b"".join(json.dumps(one).encode() + b"\n" + png for one, png in whole)
    return (header if isinstance(header, bytes) else json.dumps(header).encode()) + b"\n" + lines


def own_digest(inputs: list[int]) -> str:
    parts = (os.pread(one, os.fstat(one).st_size, 0) for one in inputs)
    return reader.joint_digest(reader.hashlib.sha256(part).digest() for part in parts)


def lies(true: dict) -> dict[str, Callable[[], bytes]]:
    """By name: answers that no honest reader gives. `true`: the header that it gives."""
    good = ({"png_bytes": len(PNG)}, PNG)

    def changed(**fields) -> bytes:
        return lie(true, (good[0] | fields, PNG))

    def noted(*notes: dict, then: tuple[tuple[dict, bytes], ...] = (good,), **header) -> bytes:
        """An answer with these notes, and then these samples."""
        return lie(true | header, *[(NOTE | note, b"") for note in notes], *then)

    return {
        "nothing": lambda: b"",
        "garbage": lambda: bytes(range(256)) * 100,
        "pickle": lambda: pickle.dumps(Canary()),
        "pickle-png": lambda: lie(true, ({"png_bytes": len(pickle.dumps(Canary()))}, pickle.dumps(Canary()))),
        "wrong-digest": lambda: lie({"digest": "0" * 64}, good),
        "refused-with-a-wrong-digest": lambda: lie({"digest": "0" * 64, "refused": "never again"}),
        "no-digest": lambda: lie({}, good),
        "huge-header": lambda: b'{"digest": "' + b"a" * 10**8 + b'"}\n',
        "huge-reason": lambda: lie(true | {"refused": "a" * 10_000}),
        "no-reason": lambda: lie(true | {"refused": ""}),
        "blank-reason": lambda: lie(true | {"refused": " \x1b\n "}),
        "deep": lambda: lie(b"[" * 10_000),
        "endless-line": lambda: lie(true) + b" " * 10**8,
        "surrogate": lambda: lie(true, ({"text": "\ud800", **good[0]}, PNG)),
        "no-sample": lambda: lie(true),
        "unknown-field": lambda: changed(document="../../other.pdf"),
        "key": lambda: changed(key="../../../etc/passwd"),
        "text-of-another-kind": lambda: changed(text=["a"]),
        "page-0": lambda: changed(page=0),
        "page-2": lambda: changed(page=2),
        "block-1": lambda: changed(block=1),
        "twice": lambda: lie(true, good, good),
        "pages-beyond-those-asked-for": lambda: lie(
            true | {"pages": 5000}, *[({"page": n + 1, **good[0]}, PNG) for n in range(5000)]
        ),
        "huge-width": lambda: changed(width=10**30),
        "no-area": lambda: changed(width=0),
        "negative": lambda: changed(png_bytes=-1),
        "huge-number": lambda: changed(png_bytes=10**100),
        "longer-than-it-is": lambda: changed(png_bytes=10**9),
        "another-size": lambda: changed(width=32),
        "bomb": lambda: lie(
            true,
            (
                good[0] | {"width": 10**5, "height": 10**5},
                PNG[:16] + (10**5).to_bytes(4, "big") * 2 + PNG[24:],
            ),
        ),
        "box-without-area": lambda: changed(box=[0, 0, 0, 0]),
        "turned-box": lambda: changed(box=[9, 0, 3, 9]),
        "huge-box": lambda: changed(box=[0, 0, 1, 10**400]),
        "darker-than-the-darkest": lambda: changed(ink=[255, 0]),
        "no-png": lambda: lie(true, ({"png_bytes": 4}, b"GIF8")),
        "something-behind": lambda: lie(true, good) + b"x",
        "not-a-number": lambda: changed(page="1"),
        "sample-of-a-refused-page": lambda: noted({"refused": "no"}),
        "note-without-a-sample": lambda: noted({}, then=()),
        "note-without-a-sample-before-the-next-page": lambda: noted(
            {}, {"page": 2, "refused": "no"}, then=(), pages=2
        ),
        "note-behind-its-samples": lambda: lie(true, good, (NOTE, b"")),
        "two-notes-of-a-page": lambda: noted({}, {}),
        "two-notes-of-a-refused-page": lambda: noted({"refused": "no"}, {"refused": "no"}, then=()),
        "note-that-says-nothing": lambda: noted({"left_out": {}}),
        "note-of-page-0": lambda: noted({"page": 0}),
        "note-of-page-2": lambda: noted({"page": 2, "refused": "no"}, then=()),
        "note-behind-the-last-page": lambda: lie(true, good, (NOTE | {"page": 2, "refused": "no"}, b"")),
        "note-with-no-reason": lambda: noted({"refused": " \x1b "}, then=()),
        "note-with-a-huge-reason": lambda: noted({"refused": "a" * 10_000}, then=()),
        "note-with-an-unknown-field": lambda: noted({"document": "../other.pdf"}),
        "note-with-an-image": lambda: lie(true, (NOTE, PNG), good),
        "left-out-for-no-reason": lambda: noted({"left_out": {"": 3}}),
        "left-out-for-a-huge-reason": lambda: noted({"left_out": {"a" * 1000: 3}}),
        "left-out-for-many-reasons": lambda: noted({"left_out": {f"reason {n}": 1 for n in range(21)}}),
        "left-out-for-many-reasons-in-all": lambda: noted(
            *({"page": n + 1, "refused": "no", "left_out": {f"a{n}": 1, f"b{n}": 1}} for n in range(11)),
            then=(),
            pages=11,
        ),
        "left-out-nothing": lambda: noted({"left_out": {"no ink": 0}}),
        "left-out-less-than-nothing": lambda: noted({"left_out": {"no ink": 5, "white": -5}}),
        "left-out-more-than-a-page-has": lambda: noted({"left_out": {"no ink": 200_001}}),
        "left-out-half-a-character": lambda: noted({"left_out": {"no ink": 0.5}}),
        "no-kind": lambda: changed().replace(b'"kind": "sample", ', b""),
        "another-kind": lambda: changed(kind="page"),
        "no-pages": lambda: lie({"digest": true["digest"]}, good),
        "0-pages": lambda: lie(true | {"pages": 0}),
        "fewer-pages-than-it-says": lambda: lie(true | {"pages": 2}, good),
        "more-pages-than-allowed": lambda: lie(true | {"pages": 5_001}, good),
        "pages-of-another-kind": lambda: lie(true | {"pages": "1"}, good),
        "nan": lambda: lie(true, good).replace(b'"page": 1', b'"page": NaN'),
    }


FAILURES = ("EIO", "ESTALE", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EDQUOT", "EACCES", "EFBIG")


def main(arguments, inputs, output):
    name = Path(arguments["name"]).stem
    if name in FAILURES:
        number = getattr(errno, name)
        with mock.patch("data_prep.reader._content", side_effect=OSError(number, os.strerror(number))):
            reader.main(arguments, inputs, output)
    elif name == "decoder":
        with mock.patch("data_prep.image_pages._grey", side_effect=OSError(errno.EIO, "Input/output error")):
            reader.main(arguments, inputs, output)
    elif name == "memory":
        with mock.patch("data_prep.reader.read_document", side_effect=MemoryError):
            reader.main(arguments, inputs, output)
    elif name == "pillow-memory":
        error = OSError("out of memory error when reading image file")
        with mock.patch("data_prep.image_pages._grey", side_effect=error):
            reader.main(arguments, inputs, output)
    else:
        answer = lies({"digest": own_digest(inputs), "pages": 1})[name]()
        os.write(output, answer)
        os.ftruncate(output, len(answer))
