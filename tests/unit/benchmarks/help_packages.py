"""Unpacked Debian packages in small: help topics in four languages, and typefaces of boxes."""

import gzip
import random
from pathlib import Path

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from tests.unit.data_prep.making import WORDS

KHMER = [chr(code) for code in range(0x1780, 0x17FA)]
LATIN = [chr(code) for code in range(0x20, 0x7F)]
KHMER_WORDS = ["ក្នុង", "ស្ត្រី", "កែ", "ជ្រើស", "លើ", "ទំព័រ", "បាន", "រូប", "សៀវភៅ", "ត្រូវ", "ខ្ញុំ", "ដោយ"]
FOLDERS = ("sbasic", "scalc", "schart", "sdatabase", "sdraw", "shared", "simpress", "smath", "swriter")
UNTRANSLATED = "Nobody has translated this paragraph of the help so far."
ENGLISH_HINT = "Hold the shift key while you drag the mouse."
PARTLY_TRANSLATED = "Tekan tombol itu lalu geser tetikus perlahan di halaman ini: shift key while you."
FORMULA, FORMULA_WITH_A_WORD = "SUM(A1;B2) and COUNT(C3)", "SUM(A1;B2) dan COUNT(C3)"
REPEATED = "Pilih sel yang hendak dihapus lalu tekan tombol itu sekali lagi saja."


def write_packages(folder: Path) -> Path:
    """Write help topics of nine folders, fonts and changelogs, as `dpkg-deb -x` would below `folder`."""
    for language in ("en-US", "vi", "id", "km"):
        for name in FOLDERS:
            for number in range(2):
                _write_topic(folder, language, f"{name}/{number:02d}.html")
    fonts = folder / "usr/share/fonts/truetype/noto"
    fonts.mkdir(parents=True)
    for weight in ("Regular", "Bold"):
        write_font(fonts / f"NotoSansMono-{weight}.ttf", [*LATIN, "\u200b"])
        write_font(fonts / f"NotoSansKhmer-{weight}.ttf", [" ", "\u200b", *KHMER])
    packages = [f"libreoffice-help-{name}" for name in ("en-us", "vi", "id", "km")]
    for package in [*packages, "fonts-noto-core", "fonts-noto-mono"]:
        path = folder / "usr/share/doc" / package / "changelog.Debian.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(f"{package} (1:2.3-4) bookworm; urgency=low\n".encode()))
    return folder


def sentence(language: str, topic: str, number: int) -> str:
    """A paragraph's text; of the same ten words in all languages, so that it is their translation."""
    chosen = random.Random(f"{topic} {number}").sample(range(30), 10)
    if language == "km":
        words = [KHMER_WORDS[i % 12] + KHMER_WORDS[i // 12] for i in chosen]
        return "\u200b".join(words[:6]) + " " + "\u200b".join(words[6:]) + " ។"
    endings = {"en-US": "", "vi": "ng", "id": "kan"}
    return " ".join(WORDS[i] + endings[language] for i in chosen).capitalize() + "."


def _write_topic(folder: Path, language: str, topic: str) -> None:
    texts = [sentence(language, topic, number) for number in range(8)]
    if language == "id":
        texts[0] = REPEATED
    lines = [f'<h1 id="hd_id0">{texts[0]}</h1>']
    lines += [f'<p id="par_id{n}" class="paragraph">{text}</p>' for n, text in enumerate(texts[1:], start=1)]
    lines.append(
        f'<p id="par_id1">An id that is used twice: {topic}</p>'
    )  # as in some files of the real help
    hint = ENGLISH_HINT if language == "en-US" else PARTLY_TRANSLATED
    formula = FORMULA if language == "en-US" else FORMULA_WITH_A_WORD
    lines.append(f'<p id="par_id98">{hint}</p><p id="par_id96">{formula}</p>')
    # The second has an id that the English topic lacks.
    unknown = "par_id99" if language == "en-US" else "par_id97"
    lines.append(f'<p id="par_id99">{UNTRANSLATED}</p><p id="{unknown}">{UNTRANSLATED}</p>')
    lines.append(f"<p>No paragraph id: {language}</p>")
    path = folder / "usr/share/libreoffice/help" / language / "text" / topic
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<html><body>{''.join(lines)}</body></html>", encoding="utf-8")


def write_font(path: Path, characters: list[str]) -> None:
    """Write a TrueType font whose characters are boxes, half an em wide; spaces are empty."""
    names = [".notdef", *(f"u{ord(character):04X}" for character in characters)]
    pen = TTGlyphPen(None)
    pen.moveTo((50, 0))
    for point in ((50, 600), (450, 600), (450, 0)):
        pen.lineTo(point)
    pen.closePath()
    box, empty = pen.glyph(), TTGlyphPen(None).glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): name for c, name in zip(characters, names[1:], strict=True)})
    blank = {"u0020", "u200B"}
    builder.setupGlyf({name: empty if name in blank else box for name in names})
    marks = {"u200B", *(f"u{code:04X}" for code in range(0x17B4, 0x17D4))}
    builder.setupHorizontalMetrics({name: (0 if name in marks else 500, 50) for name in names})
    builder.setupHorizontalHeader(ascent=950, descent=-250)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=950, sTypoDescender=-250, usWinAscent=950, usWinDescent=250)
    builder.setupPost()
    builder.updateHead(created=3_800_000_000, modified=3_800_000_000)
    builder.save(path)
