"""A sample: one page or block of a document, as an image and its text."""

import hashlib
import io
import re
from dataclasses import dataclass, field
from functools import lru_cache

from PIL import Image

_DIGITS = 32  # 128 bits: nobody finds two names with the same ones
_LONG_DIGEST = re.compile(r"^([0-9a-f]{12})[0-9a-f]{20}(?=-)")


Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of a page as it is displayed and was read, from its upper left."""


@dataclass(frozen=True, kw_only=True)
class PageNote:
    """What a page has and no sample shows."""

    page: int  # from 1
    refused: str | None = None  # why the page gives no sample
    left_out: dict[str, int] = field(default_factory=dict)
    """How many characters of its text are in no sample, for each reason."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What is embedded, searched and trained on."""

    key: str
    document: str  # POSIX path relative to the documents folder
    page: int  # from 1
    block: int | None  # from 0 within the page; None for a whole page
    text: str  # NFC, one space between words; empty where the page has no text
    is_heading: bool
    box: Box  # of what is shown, in its page
    ink: tuple[int, int]  # darkest and lightest grey of what is shown, 0 to 255
    reason: str | None  # why it is searched and not trained on
    width: int  # pixels
    height: int
    png: bytes  # 8-bit grey

    @property
    def trainable(self) -> bool:
        return self.reason is None

    def image(self) -> Image.Image:
        """Decode the image (grey, 8 bit). Only PNG is accepted."""
        return Image.open(io.BytesIO(self.png), formats=("PNG",))


def sample_of(record: dict, png: bytes) -> Sample:
    """Return the sample of what a shard holds of it."""
    return Sample(**record | {name: tuple(record[name]) for name in ("box", "ink")}, png=png)


def sample_key(document: str, page: int, block: int | None) -> str:
    """Return a tar-safe key, unique in its corpus: a digest of the document's path, page and block."""
    place = f"{page:05d}" if block is None else f"{page:05d}-{block:03d}"
    return f"{name_digest(document)}-{place}"


@lru_cache(maxsize=1)  # samples come document by document
def name_digest(document: str) -> str:
    """Return the digest of a document's path."""
    return hashlib.sha256(document.encode()).hexdigest()[:_DIGITS]


def lot_of(name: str) -> str:
    """Return what chance may depend on of a key, or of a name that begins with one.

    Twelve digits of its digest, as many as keys once had: what was drawn then is drawn today.
    """
    return _LONG_DIGEST.sub(r"\1", name)
