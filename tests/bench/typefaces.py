"""How many characters a base writes wrong that it reads in documents, by corpus and by rows of a passage.

    python -m tests.bench.typefaces --base stages/base/tiny NAME=FOLDER ... [--samples 400] [--json FILE]
    TESSDATA_PREFIX=... python -m tests.bench.typefaces --tesseract ...      needs tesserocr and
        eng.traineddata

Passages are drawn by digest of their key, so that all bases read the same ones; only those that are trained
on. Scanned: the same pictures with what a good scanner leaves (`stages.bootstrap.scan_noise.MILD`). Tesseract
reads the box of the passage, drawn at three times the resolution, as one block of text."""

import argparse
import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pypdfium2
from rich.console import Console
from rich.table import Table

from data_prep.config import ReadingConfig
from data_prep.inspecting import Told
from data_prep.parts import png_of
from data_prep.reading import read_each
from data_prep.samples import PageNote, Sample
from data_prep.source_files import SourceFile, find_documents
from stages.backbones.backbone import load_backbone
from stages.backbones.config import BackboneConfig
from stages.bootstrap.scan_noise import MILD, noisy
from stages.evaluate.decoding import greedy_transcriptions
from stages.evaluate.generation import character_edits
from stages.recipes import get_recipe

FINER = 3  # Tesseract's crops
Rates = dict[str, tuple[int, int]]
"""{kind of passage: (edits, characters)}."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpora", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--base", type=Path, action="append", default=[])
    parser.add_argument("--tesseract", action="store_true")
    parser.add_argument("--scanned", action="store_true", help="also with mild scan noise")
    parser.add_argument("--samples", type=int, default=400, help="of each corpus")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was read, passage by passage")
    arguments = parser.parse_args()
    recipe = get_recipe("tiny")
    table = Table("corpus", "reader", "passages", "all", "one row", "two", "three and more")
    written = []
    for corpus in arguments.corpora:
        name, folder = corpus.split("=", 1)
        files, _ = find_documents(Path(folder))
        samples = chosen(files, recipe.documents.reading, arguments.samples)
        pictures = {"": samples}
        if arguments.scanned:
            pictures[", scanned"] = [scanned(one, recipe.documents.reading) for one in samples]
        for kind, shown in pictures.items():
            for base in arguments.base:
                texts = transcribed(base, recipe.backbone, shown)
                rows = add_row(table, name + kind, str(base), samples, texts)
                written += [{"corpus": name + kind, "reader": str(base), **row} for row in rows]
        if arguments.tesseract:
            texts = by_tesseract(files, samples)
            rows = add_row(table, name, "Tesseract", samples, texts)
            written += [{"corpus": name, "reader": "Tesseract", **row} for row in rows]
    Console(width=150).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(written, ensure_ascii=False, indent=1), encoding="utf-8")


def chosen(files: Sequence[SourceFile], config: ReadingConfig, count: int) -> list[Sample]:
    told: Told = lambda done, label: None  # noqa: E731
    trainable = [
        one
        for _, content in read_each(files, config, told, workers=2)
        for one in content
        if not isinstance(one, PageNote) and one.trainable
    ]
    return sorted(trainable, key=lambda one: hashlib.sha256(one.key.encode()).digest())[:count]


def scanned(sample: Sample, config: ReadingConfig) -> Sample:
    seed = int.from_bytes(hashlib.sha256(sample.key.encode()).digest()[:8], "big")
    picture = noisy(np.asarray(sample.image()), MILD, config, np.random.default_rng(seed))
    return replace(sample, png=png_of(picture))


def transcribed(base: Path, config: BackboneConfig, samples: Sequence[Sample]) -> list[str]:
    return greedy_transcriptions(load_backbone(base, config), samples, batch_size=32)


def by_tesseract(files: Sequence[SourceFile], samples: Sequence[Sample], language: str = "eng") -> list[str]:
    import tesserocr

    texts = {}
    paths = {file.name: file.path for file in files}
    scale = FINER * ReadingConfig().dots_per_inch / 72
    with tesserocr.PyTessBaseAPI(lang=language, psm=tesserocr.PSM.SINGLE_BLOCK) as tesseract:
        for one in samples:
            with closing(pypdfium2.PdfDocument(paths[one.document])) as document:
                page = document[one.page - 1].render(scale=scale, grayscale=True).to_pil()
            crop = page.crop([side * FINER for side in one.box])
            tesseract.SetImage(crop)
            texts[one.key] = " ".join(tesseract.GetUTF8Text().split())
    return [texts[one.key] for one in samples]


def add_row(
    table: Table, corpus: str, reader: str, samples: Sequence[Sample], texts: Sequence[str]
) -> list[dict]:
    """Add the shares of wrong characters; return every passage with what was read."""
    edits = character_edits([one.text for one in samples], texts)
    rows = [one.height // ReadingConfig().pixel_multiple for one in samples]
    kinds = (range(1, 1000), range(1, 2), range(2, 3), range(3, 1000))
    shares = []
    for kind in kinds:
        wrong = [pair for pair, count in zip(edits, rows, strict=True) if count in kind]
        characters = sum(length for _, length in wrong)
        shares.append(f"{sum(one for one, _ in wrong) / characters:.1%}" if characters else "")
    table.add_row(corpus, reader, f"{len(samples):,}", *shares)
    return [
        {"document": one.document, "page": one.page, "text": one.text, "read": text, "edits": wrong}
        for one, text, (wrong, _) in zip(samples, texts, edits, strict=True)
    ]


if __name__ == "__main__":
    main()
