"""A Khmer typeface in which every written syllable is one glyph, so that a PDF's text layer stays in order.

Khmer is drawn in another order than it is written: a vowel may stand left of its consonant, others above and
below it. The text layer of shaped glyphs comes back damaged: pdfium sorts glyphs by place, gives codes for
those without text of their own, and repeats /ActualText where a syllable has several text objects (tried
with fpdf2 2.8.9 and typst 0.15.2). Here HarfBuzz shapes each syllable once, its glyphs become one composite
glyph, and a ligature maps the syllable's characters to it: a PDF in this font holds exactly its text.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import uharfbuzz
from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
from fontTools.pens.recordingPen import DecomposingRecordingPen
from fontTools.pens.transformPen import TransformPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from fontTools.ttLib.tables._g_l_y_f import Glyph

ZERO_WIDTH_SPACE = "\u200b"
# A consonant or independent vowel with its subscript consonants, vowel signs and marks (OpenType's grammar).
SYLLABLE = re.compile("[\u1780-\u17b3](?:\u17d2[\u1780-\u17b3]|[\u17b4-\u17d1\u17d3\u17dd\u200c\u200d])*")
_MARK = re.compile("[\u17b4-\u17d3\u17dd]")
_LAYOUT_TABLES = ("GSUB", "GPOS", "GDEF", "fpgm", "prep", "cvt ", "hdmx", "VDMX", "gasp", "DSIG")


def syllables(text: str) -> Iterator[str]:
    """Cut `text` into Khmer syllables and single other characters; joined they are `text` again."""
    position = 0
    for match in SYLLABLE.finditer(text):
        yield from text[position : match.start()]
        yield match.group()
        position = match.end()
    yield from text[position:]


def has_stray_mark(text: str) -> bool:
    """Return whether a vowel sign or mark has no consonant to stand on: text that was damaged."""
    return bool(_MARK.search(SYLLABLE.sub("", text)))


def write_syllable_font(source: Path, latin: Path, target: Path, texts: Iterable[str]) -> None:
    """Write a copy of the TrueType font `source` with one ligature glyph for each syllable of `texts`.

    A syllable followed by U+200B has a ligature of its own that ends in it: a space without width and ink is
    not always found again where it stands alone. Characters that `source` lacks come from the font `latin`,
    so that one font sets a whole line (fpdf2 2.8.9 loses the second line of a page that begins in a fallback
    font).
    """
    texts = list(texts)
    font = TTFont(source, recalcTimestamp=False)
    shaper = uharfbuzz.Font(uharfbuzz.Face(uharfbuzz.Blob(source.read_bytes())))
    for table in set(_LAYOUT_TABLES) & set(font.keys()):
        del font[table]
    _add_characters(font, TTFont(latin), {character for text in texts for character in text})
    names, nominal = font.getGlyphOrder(), font.getBestCmap()
    ligatures = []
    for number, syllable in enumerate(sorted({s for text in texts for s in SYLLABLE.findall(text)})):
        glyph, advance = _shape(shaper, names, font, syllable)
        for name, characters in (
            (f"syllable{number}", syllable),
            (f"syllable{number}.end", syllable + ZERO_WIDTH_SPACE),
        ):
            if len(characters) > 1:
                font["glyf"][name], font["hmtx"][name] = glyph, (advance, glyph.xMin)
                parts = " ".join(nominal[ord(character)] for character in characters)
                ligatures.append(f"sub {parts} by {name};")
    font.setGlyphOrder(font["glyf"].glyphOrder)
    addOpenTypeFeaturesFromString(font, "feature liga {" + "\n".join(ligatures) + "} liga;")
    font.save(target)


def _add_characters(font: TTFont, other: TTFont, characters: set[str]) -> None:
    """Copy the outlines of the characters that `font` lacks and `other` has."""
    scale = font["head"].unitsPerEm / other["head"].unitsPerEm
    glyphs, names = other.getGlyphSet(), other.getBestCmap()
    for code in sorted({ord(c) for c in characters} & names.keys() - font.getBestCmap().keys()):
        outline, pen = DecomposingRecordingPen(glyphs), TTGlyphPen(None)
        glyphs[names[code]].draw(outline)
        outline.replay(TransformPen(pen, (scale, 0, 0, scale, 0, 0)))
        glyph, name = pen.glyph(), f"other{code:04X}"
        glyph.recalcBounds(font["glyf"])
        advance = round(scale * other["hmtx"][names[code]][0])
        font["glyf"][name], font["hmtx"][name] = glyph, (advance, getattr(glyph, "xMin", 0))
        for table in font["cmap"].tables:
            if table.isUnicode():
                table.cmap[code] = name
    font.setGlyphOrder(font["glyf"].glyphOrder)


def _shape(shaper: uharfbuzz.Font, names: list[str], font: TTFont, syllable: str) -> tuple[Glyph, int]:
    """Return the syllable as a composite glyph, and its advance width in font units."""
    buffer = uharfbuzz.Buffer()
    buffer.add_str(syllable)
    buffer.guess_segment_properties()
    uharfbuzz.shape(shaper, buffer)
    pen, x = TTGlyphPen(font["glyf"]), 0
    for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
        pen.addComponent(names[info.codepoint], (1, 0, 0, 1, x + place.x_offset, place.y_offset))
        x += place.x_advance
    glyph = pen.glyph()
    glyph.recalcBounds(font["glyf"])
    return glyph, x
