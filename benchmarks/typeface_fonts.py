"""The typefaces of benchmarks.typeface_documents: those to train on and those that are only ever tested.

Never trained on: Linux Libertine with Biolinum, Open Sans, Latin Modern Roman, all of CMU (Computer Modern)
and FreeFont. Related designs that are trained on, so that nobody takes a test for more than it is: FreeSerif,
FreeSans and FreeMono began as the Nimbus faces of fonts-urw-base35 (FreeSans is nearest and is not tested),
and Noto Sans comes from the same hand as Open Sans, its bold is nearly the same. Tlwg Mono and Typist are
FreeMono and held out with it. Latin Modern Sans and Mono are trained on; of CMU only the serif is tested.
"""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uharfbuzz
from fontTools import subset
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.cu2quPen import Cu2QuPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont, TTLibError, newTable

_EXTRA = "–—‘’‚“”„†‡•…€"
LETTERS = "".join(map(chr, [*range(0x20, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)])) + _EXTRA
"""What the documents spell, where the typeface has it."""
LIGATURES = "".join(map(chr, range(0xFB00, 0xFB05)))
"""Of f with f, i and l: kept for a typeface's own joined letters."""
NEEDED = {chr(code) for code in range(0x20, 0x7F)} | set("éüß–—‘’“”")
"""Without these a typeface is not used."""

HELD_OUT = {
    "linuxlibertine": r"(Linux )?(Libertine|Biolinum|Libertinus)",
    "opensans": r"Open ?Sans",
    "lmroman": r"(LM|Latin ?Modern) ?(Roman|Math)|BabelStone Modern",
    "cmu": r"CMU|Computer Modern",
    "freefont": r"Free ?(Serif|Sans|Mono)|Tlwg (Mono|Typist)",
}
"""Families never trained on, as their names begin."""
_NOT_TESTED = r"Cond|Light|Extra|Semi|lmroman(5|6|7|17)-"  # font files: not for text of 8 to 12.5 points
_TESTED = (
    r"Linux (Libertine|Biolinum) O$|Open Sans$|Latin Modern Roman$|CMU Serif( Roman)?$|Free(Serif|Mono)$"
)
# Those of fonts-uralic have Cyrillic letters in place of the accented ones; "titling" and "style" have no
# small letters.
_NOT_FOR_TEXT = (
    r"math|symbol|dingbat|small ?cap|\bsc\b|caps|initial|keyboard|outline|shadow|stencil|ornament|swash|"
    r"fraktur|script|chancery|z003|\bhand|casual|braille|hairline|thin\b|extra ?light|ultra|black|heavy|"
    r"poster|decorative|fancy|barcode|music|upright italic|unslanted|dunhill|\bshift|tamil|gujarati|expert|"
    r"\bd050|xits|word|\bsize|nonuni|integrals|variants|cedilla|beach|foundation|monoisome|"
    r"abogado|junicode (one|two)|swift|uralic|titling|style std"
)
_KERNED = string.ascii_letters + ".,:;-’”"
_NOTO = r"Noto(Sans|Serif|Mono|SansMono|SansDisplay|SerifDisplay)-"


@dataclass(frozen=True, kw_only=True)
class Face:
    """One font file."""

    family: str
    path: Path
    is_bold: bool
    is_italic: bool
    is_mono: bool

    @property
    def held_out(self) -> str | None:
        """The key of HELD_OUT it belongs to."""
        return held_out(self.family)


def held_out(family: str) -> str | None:
    """Return which family that is kept for testing a family's name belongs to."""
    return next((key for key, pattern in HELD_OUT.items() if re.match(pattern, family, re.I)), None)


def find_faces(packages: Path) -> list[Face]:
    """Return the Latin text faces below a folder, each once, in order of family and style.

    Raises:
        FileNotFoundError: there is none.
    """
    found: dict[tuple[str, bool, bool, str], Face] = {}
    for path in sorted(p for p in packages.rglob("*") if p.suffix.lower() in (".ttf", ".otf")):
        if path.name.startswith("Noto") and not re.match(_NOTO, path.name):
            continue
        if read := _face(path):
            face, style = read
            found.setdefault((face.family, face.is_bold, face.is_italic, style), face)
    if not found:
        raise FileNotFoundError(f"{packages} has no font files: unpack the packages of the list first")
    return [found[key] for key in sorted(found)]


def training_faces(faces: Sequence[Face]) -> list[Face]:
    return [face for face in faces if face.held_out is None]


def test_faces(faces: Sequence[Face], *, italic: bool) -> dict[str, list[Face]]:
    """Return the text faces of each held-out family, upright or italic."""
    tested = [
        face
        for face in faces
        if re.match(_TESTED, face.family)
        and not re.search(_NOT_TESTED, face.path.name)
        and face.is_italic == italic
    ]
    return {key: [face for face in tested if face.held_out == key] for key in HELD_OUT}


def _face(path: Path) -> tuple[Face, str] | None:
    """Read what a font file is, with its style; None where it is not one for English text."""
    try:
        font = TTFont(path, lazy=True)
        names = font["name"]
        family = names.getDebugName(16) or names.getDebugName(1) or path.stem
        style = names.getDebugName(17) or names.getDebugName(2) or "Regular"
        if re.search(_NOT_FOR_TEXT, f"{family} {style} {path.stem}", re.I) or "fvar" in font:
            return None
        if not set(map(ord, NEEDED)) <= font.getBestCmap().keys():
            return None
        weight, width = font["OS/2"].usWeightClass, font["hmtx"].metrics
        narrow, wide = (width[font.getBestCmap()[ord(letter)]][0] for letter in "im")
        angle = font["post"].italicAngle
    except (TTLibError, KeyError, AttributeError):  # not a font, or without tables that a text face has
        return None
    slanted = angle != 0 or bool(re.search(r"italic|oblique|slant", f"{family} {style}", re.I))
    bold = weight >= 600 or bool(re.search(r"bold|demi", style, re.I))
    return Face(family=family, path=path, is_bold=bold, is_italic=slanted, is_mono=narrow == wide), style


def reduce_face(face: Face, target: Path) -> None:
    """Write a face with LETTERS only, with TrueType outlines, to `target`."""
    font = TTFont(face.path, recalcTimestamp=False)
    options = subset.Options(layout_features=[], hinting=False, notdef_outline=True, glyph_names=True)
    options.drop_tables += [
        "kern",
        "FFTM",
        "MATH",
        "BASE",
        "GDEF",
        "GPOS",
        "GSUB",
        "DSIG",
        "STAT",
        "meta",
        "TeX ",
        "gasp",
    ]
    reduced = subset.Subsetter(options)
    reduced.populate(text=LETTERS + LIGATURES)
    reduced.subset(font)
    if "glyf" not in font:
        font = _with_truetype_outlines(font)
    target.parent.mkdir(parents=True, exist_ok=True)
    font.save(target)


def read_kerns(face: Face) -> dict[str, float]:
    """Return the kerning of pairs of letters and stops, in em; of those that have none, nothing."""
    file = uharfbuzz.Face(uharfbuzz.Blob.from_file_path(str(face.path)))
    font, kerns = uharfbuzz.Font(file), {}
    single: dict[str, int] = {}
    for text in [*_KERNED, *(first + second for first in _KERNED for second in _KERNED)]:
        buffer = uharfbuzz.Buffer()
        buffer.add_str(text)
        buffer.guess_segment_properties()
        uharfbuzz.shape(font, buffer, {"kern": True, "liga": False, "clig": False, "calt": False})
        advance = sum(position.x_advance for position in buffer.glyph_positions)
        if len(text) == 1:
            single[text] = advance
        elif kern := (advance - single[text[0]] - single[text[1]]) / file.upem:
            kerns[text] = kern
    return kerns


def _with_truetype_outlines(font: TTFont) -> TTFont:
    """Approximate cubic outlines by quadratic ones, to a thousandth of an em."""
    glyphs, names = font.getGlyphSet(), font.getGlyphOrder()
    per_em = font["head"].unitsPerEm
    outlines = {}
    for name in names:
        pen = TTGlyphPen(glyphs)
        glyphs[name].draw(Cu2QuPen(pen, max_err=per_em / 1000, reverse_direction=True))
        outlines[name] = pen.glyph()
    made = FontBuilder(per_em, isTTF=True)
    made.setupGlyphOrder(names)
    made.setupCharacterMap(font.getBestCmap())
    made.setupGlyf(outlines)
    metrics = {name: (glyphs[name].width, getattr(outlines[name], "xMin", 0)) for name in names}
    made.setupHorizontalMetrics({name: (round(width), left) for name, (width, left) in metrics.items()})
    made.setupHorizontalHeader(ascent=font["hhea"].ascent, descent=font["hhea"].descent)
    made.font["name"], made.font["OS/2"] = font["name"], font["OS/2"]
    made.font["post"] = newTable("post")
    made.setupPost(italicAngle=font["post"].italicAngle)
    made.font["head"].macStyle = font["head"].macStyle
    made.font["head"].created = made.font["head"].modified = font["head"].modified
    made.font.recalcTimestamp = False
    return made.font
