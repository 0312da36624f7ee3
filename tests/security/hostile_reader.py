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
    "page": 1, "block": None, "text": "taken over", "is_heading": False, "width": 16, "height": 16,
    "box": [0, 0, 16, 16], "ink": [0, 255], "reason": None,
}  # fmt: skip
PNG = bytes.fromhex("89504e470d0a1a0a0000000d494844520000001000000010080000000037255bd8")


def lie(header, *records: tuple[dict, bytes]) -> bytes:
    lines = b"".join(json.dumps(LINE | one).encode() + b"\n" + png for one, png in records)
    return (header if isinstance(header, bytes) else json.dumps(header).encode()) + b"\n" + lines


def own_digest(inputs: list[int]) -> str:
    parts = (os.pread(one, os.fstat(one).st_size, 0) for one in inputs)
    return reader.joint_digest(reader.hashlib.sha256(part).digest() for part in parts)


def lies(true: dict) -> dict[str, Callable[[], bytes]]:
    """By name: answers that no honest reader gives. `true`: the header that it gives."""
    good = ({"png_bytes": len(PNG)}, PNG)

    def changed(**fields) -> bytes:
        return lie(true, (good[0] | fields, PNG))

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
        "pages-beyond-the-limit": lambda: lie(
            true, *[({"page": n + 1, **good[0]}, PNG) for n in range(5001)]
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
        "no-png": lambda: lie(true, ({"png_bytes": 4}, b"GIF8")),
        "something-behind": lambda: lie(true, good) + b"x",
        "not-a-number": lambda: changed(page="1"),
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
        answer = lies({"digest": own_digest(inputs)})[name]()
        os.write(output, answer)
        os.ftruncate(output, len(answer))
