"""A sample: one page or block of a document, as an image and its text."""

import hashlib
import io
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What is embedded, searched and trained on."""

    key: str
    document: str  # POSIX path relative to the documents folder
    page: int  # from 1
    block: int | None  # from 0 within the page; None for a whole page
    text: str  # NFC, one space between words; empty where the page has no text
    is_heading: bool
    width: int  # pixels
    height: int
    trainable: bool
    png: bytes  # 8-bit grey

    def image(self) -> Image.Image:
        """Decode the image (grey, 8 bit). Only PNG is accepted."""
        return Image.open(io.BytesIO(self.png), formats=("PNG",))


def sample_key(document: str, page: int, block: int | None) -> str:
    """Return a tar-safe key, unique in its corpus: a digest of the document's path, page and block."""
    place = f"{page:05d}" if block is None else f"{page:05d}-{block:03d}"
    return f"{hashlib.sha256(document.encode()).hexdigest()[:12]}-{place}"
