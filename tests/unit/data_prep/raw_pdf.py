"""PDFs written by hand, to the last operator, and what the reader makes of them.

Their text is Helvetica, which pdfium draws and no file holds, or a font of boxes that mean what a test wants.
"""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pypdfium2
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fpdf import FPDF
from PIL import Image

from data_prep.config import ReadingConfig
from data_prep.documents import read_document
from data_prep.page_text import LEAST_INK
from data_prep.samples import PageNote, Sample

Box = tuple[float, float, float, float]
HELVETICA = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
WIDE_BOX = (60, 0, 440, 700)  # of a letter, in thousandths of its size

LONG_BLOCKS = {"max_block_characters": 200, "max_pixels": 2**18}


class Pdf:
    """Objects of a file that is being made; number 1 is its catalog and number 2 its tree of pages."""

    def __init__(self) -> None:
        self._objects: dict[int, bytes] = {1: b"", 2: b""}
        self._pages: list[str] = []
        self.catalog = ""
        self.fonts = f"/F1 {HELVETICA}"

    def add(self, body: str | bytes) -> str:
        """Add an object, and return what refers to it."""
        number = len(self._objects) + 1
        self._objects[number] = body.encode("latin-1") if isinstance(body, str) else body
        return f"{number} 0 R"

    def stream(self, content: str | bytes, entries: str = "") -> str:
        content = content.encode("latin-1") if isinstance(content, str) else content
        head = f"<< {entries} /Length {len(content)} >>\nstream\n".encode()
        return self.add(head + content + b"\nendstream")

    def form(self, content: str, entries: str = "/BBox [0 0 400 200]") -> str:
        fonts = f"/Resources << /Font << {self.fonts} >> >>"
        return self.stream(content, f"/Type /XObject /Subtype /Form {fonts} {entries}")

    def page(
        self,
        content: str | bytes,
        entries: str = "",
        *,
        resources: str = "",
        size: Sequence[int] = (400, 200),
    ) -> str:
        """Add a page; `entries` and `resources` stand in it before the usual ones, of which they are none."""
        shown = self.stream(content)
        box = "" if "/MediaBox" in entries else f"/MediaBox [0 0 {size[0]} {size[1]}]"
        self._pages.append(
            self.add(
                f"<< /Type /Page /Parent 2 0 R {box} {entries} /Contents {shown} "
                f"/Resources << /Font << {self.fonts} >> {resources} >> >>"
            )
        )
        return self._pages[-1]

    def kid(self, reference: str) -> None:
        """Put into the tree of pages what need not be a page."""
        self._pages.append(reference)

    def bytes(self) -> bytes:
        kids = " ".join(self._pages)
        bodies = self._objects | {
            1: f"<< /Type /Catalog /Pages 2 0 R {self.catalog} >>".encode(),
            2: f"<< /Type /Pages /Count {len(self._pages)} /Kids [{kids}] >>".encode(),
        }
        content, places = b"%PDF-1.7\n", []
        for number, body in bodies.items():
            places.append(len(content))
            content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
        table = b"".join(b"%010d 00000 n \n" % place for place in places)
        end = b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(places) + 1, table)
        end += b"trailer\n<< /Size %d /Root 1 0 R >>\n" % (len(places) + 1)
        return content + end + b"startxref\n%d\n%%%%EOF\n" % len(content)


def pdf_of(content: str, entries: str = "", **page: object) -> bytes:
    """A PDF of one page."""
    pdf = Pdf()
    pdf.page(content, entries, **page)
    return pdf.bytes()


def text(left: float, baseline: float, shown: str, *, size: float = 12, font: str = "F1") -> str:
    """Operators that show a text; one that does not begin as a PDF's string does is put into brackets."""
    return at(f"1 0 0 1 {left} {baseline}", shown, size=size, font=font)


def at(matrix: str, shown: str, *, size: float = 12, font: str = "F1") -> str:
    """Operators that show a text with this text matrix."""
    operand = shown if shown[:1] in ("<", "[") else f"({shown})"
    return f"BT /{font} {size} Tf {matrix} Tm {operand} {'TJ' if operand[0] == '[' else 'Tj'} ET\n"


def width(shown: str, *, size: float = 12) -> float:
    """How wide Helvetica sets a text, in points."""
    pdf = FPDF(unit="pt")
    pdf.set_font("Helvetica", size=size)
    return pdf.get_string_width(shown)


@dataclass(frozen=True)
class BoxFont:
    """A font whose glyphs are boxes; what they mean, if anything, is in its ToUnicode map only.

    Args:
        meanings: of each glyph its text, None for one whose meaning the file does not tell.
        boxes: of some meanings the box that is drawn (left, bottom, right and top in thousandths).
        widths: of some meanings the advance, 500 otherwise.
    """

    meanings: tuple[str | None, ...]
    boxes: Mapping[str | None, Box | None]
    widths: Mapping[str | None, int]
    encoding: str = "Identity-H"

    @classmethod
    def of(
        cls,
        meanings: Sequence[str | None],
        boxes: Mapping[str | None, Box | None] | None = None,
        widths: Mapping[str | None, int] | None = None,
        encoding: str = "Identity-H",
    ) -> "BoxFont":
        return cls(
            tuple(dict.fromkeys(meanings)), {" ": None} | dict(boxes or {}), dict(widths or {}), encoding
        )

    def shown(self, meanings: Sequence[str | None]) -> str:
        """Return the string operand that shows these."""
        return "<" + "".join(f"{self.meanings.index(one) + 1:04x}" for one in meanings) + ">"

    def add_to(self, pdf: Pdf, name: str) -> None:
        """Make it a font of the pages that are added after this."""
        program = pdf.stream(self._program())
        descriptor = pdf.add(
            "<< /Type /FontDescriptor /FontName /ABCDEF+Boxes /Flags 4 /Ascent 800 /Descent -200 "
            f"/CapHeight 700 /ItalicAngle 0 /StemV 80 /FontBBox [-500 -500 1500 1500] /FontFile2 {program} >>"
        )
        widths = " ".join(str(self.widths.get(one, 500)) for one in self.meanings)
        descendant = pdf.add(
            "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /ABCDEF+Boxes /CIDToGIDMap /Identity /DW 1000 "
            "/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> "
            f"/FontDescriptor {descriptor} /W [1 [{widths}]] >>"
        )
        known = [(code, one) for code, one in enumerate(self.meanings, start=1) if one is not None]
        lines = [f"<{code:04x}> <{one.encode('utf-16-be', 'surrogatepass').hex()}>" for code, one in known]
        to_unicode = pdf.stream(
            "/CIDInit /ProcSet findresource begin 12 dict begin begincmap\n/CMapName /Made def "
            "/CMapType 2 def\n"
            "1 begincodespacerange <0000> <ffff> endcodespacerange\n"
            f"{len(lines)} beginbfchar\n{chr(10).join(lines)}\nendbfchar\nendcmap end end"
        )
        font = pdf.add(
            f"<< /Type /Font /Subtype /Type0 /BaseFont /ABCDEF+Boxes /Encoding /{self.encoding} "
            f"/DescendantFonts [{descendant}] /ToUnicode {to_unicode} >>"
        )
        pdf.fonts += f" /{name} {font}"

    def _program(self) -> bytes:
        names = [".notdef", *(f"g{code}" for code in range(1, len(self.meanings) + 1))]
        boxes = [None, *(self.boxes.get(one, WIDE_BOX) for one in self.meanings)]
        widths = [500, *(self.widths.get(one, 500) for one in self.meanings)]
        builder = FontBuilder(1000, isTTF=True)
        builder.setupGlyphOrder(names)
        builder.setupCharacterMap({})
        builder.setupGlyf({name: _drawn(box) for name, box in zip(names, boxes, strict=True)})
        builder.setupHorizontalMetrics(
            {
                name: (width, int(box[0]) if box else 0)
                for name, width, box in zip(names, widths, boxes, strict=True)
            }
        )
        builder.setupHorizontalHeader(ascent=800, descent=-200)
        builder.setupNameTable({"familyName": "Boxes", "styleName": "Regular"})
        builder.setupOS2(sTypoAscender=800, sTypoDescender=-200, usWinAscent=800, usWinDescent=200)
        builder.setupPost()
        written = io.BytesIO()
        builder.save(written)
        return written.getvalue()


def _drawn(box: Box | None):
    pen = TTGlyphPen(None)
    if box:
        left, bottom, right, top = box
        pen.moveTo((left, bottom))
        for point in ((left, top), (right, top), (right, bottom)):
            pen.lineTo(point)
        pen.closePath()
    return pen.glyph()


@dataclass(frozen=True)
class Read:
    """What the reader makes of a file."""

    samples: list[Sample]
    notes: list[PageNote]

    @cached_property
    def texts(self) -> list[str]:
        """Of the blocks with text."""
        return [one.text for one in self.samples if one.text]

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    @property
    def left_out(self) -> int:
        """How many characters are counted as left out."""
        return sum(count for note in self.notes for count in note.left_out.values())

    @property
    def reasons(self) -> Counter[str]:
        """Why characters are left out."""
        return sum((Counter(note.left_out) for note in self.notes), Counter())

    @property
    def refused(self) -> dict[int, str]:
        return {note.page: note.refused for note in self.notes if note.refused}

    @property
    def trained(self) -> str:
        """The text that is trained on."""
        return " ".join(one.text for one in self.samples if one.trainable)


def read(content: bytes, *, name: str = "a.pdf", beside: bytes | None = None, **settings: object) -> Read:
    """Read a file; what is trained on must be seen where its box is, in a picture that others drew."""
    config = ReadingConfig(**settings)
    parts = list(read_document(name, content, beside, config))
    samples = [part for part in parts if isinstance(part, Sample)]
    if name.endswith(".pdf") and config.unit == "block":
        pictures = _pictures(content, {one.page for one in samples}, config)
        for one in samples:
            if one.trainable:
                darkest, lightest = pictures[one.page].crop(one.box).getextrema()
                assert lightest - darkest >= LEAST_INK, f"nothing is seen of {one.text!r} in {one.box}"
    return Read(samples=samples, notes=[part for part in parts if isinstance(part, PageNote)])


def _pictures(content: bytes, pages: set[int], config: ReadingConfig) -> dict[int, Image.Image]:
    with pypdfium2.PdfDocument(content) as document:
        document.init_forms()
        return {
            page: document[page - 1].render(scale=config.dots_per_inch / 72, grayscale=True).to_pil()
            for page in sorted(pages)
        }
