"""Make small documents, good and bad."""

import random
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from fpdf import FPDF

from data_prep.config import DocumentsConfig
from data_prep.prepare import Prepared, prepare_documents
from infra.store import LocalStore
from tests.unit.data_prep.pictures import chunk

Line = tuple[float, float, str]  # millimetres from the left and from the top (of the baseline), text
WORDS = [
    "river", "stone", "market", "letter", "winter", "garden", "bridge", "carpet", "silver", "window",
    "candle", "forest", "island", "thunder", "pepper", "ladder", "mirror", "basket", "copper", "velvet",
    "engine", "harbor", "meadow", "saddle", "turnip", "walnut", "puzzle", "feather", "compass", "lantern",
]  # fmt: skip


def write_pdf(path: Path, pages: Sequence[Sequence[Line]], *, heading: str = "") -> Path:
    """Write one PDF with lines of 11-point Helvetica where they are told to stand; a heading is bold."""
    pdf = FPDF()
    for lines in pages:
        pdf.add_page()
        if heading:
            pdf.set_font("Helvetica", "B", 16)
            pdf.text(20, 15, heading)
        pdf.set_font("Helvetica", "", 11)
        for left, top, text in lines:
            pdf.text(left, top, text)
    pdf.output(str(path))
    return path


def column(*texts: str, left: float = 20, top: float = 30, pitch: float = 5) -> list[Line]:
    """Lines of one paragraph below each other."""
    return [(left, top + number * pitch, text) for number, text in enumerate(texts)]


def prose(seed: int, lines: int = 6) -> list[Line]:
    """A page of two paragraphs whose words depend on the seed, so that pages are no near-duplicates."""
    chosen = random.Random(seed)
    texts = [" ".join(chosen.sample(WORDS, 5)) + "." for _ in range(lines)]
    half = lines // 2
    return column(*texts[:half]) + column(*texts[half:], top=80)


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises this size; its pixels do not exist."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def encrypted_pdf(path: Path) -> Path:
    pdf = FPDF()
    pdf.set_encryption(owner_password="owner", user_password="user")
    pdf.add_page()
    pdf.output(str(path))
    return path


def endless_pdf(path: Path) -> Path:
    """A PDF of 4 kB that draws 10^10 rectangles: forms that draw ten forms each."""
    form = b"/Type /XObject /Subtype /Form /BBox [0 0 200 200] /Resources << /XObject << /F %d 0 R >> >>"
    forms = [_stream(b"/F Do " * 10, form % (6 + level)) for level in range(8)]
    return _write_raw_pdf(path, _stream(b"/F Do"), *forms, _stream(b"0 0 9 9 re f " * 100, form % 5))


def swelling_pdf(path: Path) -> Path:
    """A small PDF whose page is packed twice and swells to 2^28 bytes when it is read."""
    packed = zlib.compressobj()
    once = b"".join(packed.compress(bytes(2**20)) for _ in range(2**8)) + packed.flush()
    return _write_raw_pdf(path, _stream(zlib.compress(once), b"/Filter [/FlateDecode /FlateDecode]"))


def wordy_pdf(path: Path, characters: int) -> Path:
    """A PDF whose one page has so many characters, in thousands of short lines."""
    line = b"abcdefgh " * 11 + b"x"
    text = b"".join(b"1 0 0 1 5 %d Tm (%s) Tj " % (number % 200, line) for number in range(characters // 100))
    return _write_raw_pdf(path, _stream(b"BT /Any 1 Tf " + text + b"ET"), _stream(b""))


def tiff_of(frames: int, *, back_to: int | None = None) -> bytes:
    """A TIFF of frames that share their 16 x 16 pixels; after the last comes the frame `back_to`, or none."""
    tags = ((256, 16), (257, 16), (258, 8), (259, 1), (262, 1), (273, 8), (278, 16), (279, 256))
    size = 2 + 12 * len(tags) + 4
    first = 8 + 256
    content = struct.pack("<2sHI", b"II", 42, first) + bytes(256)
    for number in range(frames):
        following = first + size * (number + 1)
        if number == frames - 1:
            following = 0 if back_to is None else first + size * back_to
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        content += struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    return content


def _stream(content: bytes, entries: bytes = b"") -> bytes:
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (entries, len(content), content)


def _write_raw_pdf(path: Path, *objects: bytes) -> Path:
    """A PDF of one page; its content is the first object (4 0 R), its form /F the second (5 0 R)."""
    page = (
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R "
        b"/Resources << /XObject << /F 5 0 R >> >> >>"
    )
    catalog, pages = b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
    content, places = b"%PDF-1.4\n", []
    for number, body in enumerate((catalog, pages, page, *objects), start=1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start, table = len(content), b"".join(b"%010d 00000 n \n" % place for place in places)
    content += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(places) + 1, table)
    content += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(places) + 1, start)
    path.write_bytes(content)
    return path


def prepare(folder: Path, store: Path, *, workers: int = 2, **settings) -> tuple[Prepared, list[tuple]]:
    """Prepare a folder; returns also what was reported as progress."""
    steps: list[tuple] = []
    config = DocumentsConfig(**settings)
    prepared = prepare_documents(
        folder, config, LocalStore(store), lambda *step: steps.append(step), workers=workers
    )
    return prepared, steps


def read(steps: list[tuple]) -> int:
    """How many documents were read."""
    return sum(label == "reading documents" for _, _, label in steps)
