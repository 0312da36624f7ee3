"""Build PDFs in many typefaces: to train a base on, and in typefaces held out to test it on.

Fonts and texts come from Debian packages (their licences are in usr/share/doc/PACKAGE/copyright; of the texts
also in benchmarks.typeface_texts):

    fonts="dejavu-core dejavu-extra liberation2 liberation noto-core noto-mono texgyre ebgaramond
        ebgaramond-extra roboto-unhinted roboto-slab lato inter crosextra-caladea crosextra-carlito
        sil-gentium sil-gentiumplus sil-gentium-basic sil-charis sil-andika sil-galatia hack
        inconsolata stix vollkorn oldstandard cantarell urw-base35 lmodern linuxlibertine open-sans
        cmu freefont-ttf clear-sans arapey averia-serif-gwf averia-sans-gwf cabin dosis
        fantasque-sans firacode gfs-didot gfs-neohellenic gfs-artemisia goudybookletter
        jetbrains-mono junicode junction karla karmilla league-mono lindenhill manrope monoid
        mononoki national-park play quattrocento quicksand sora tuffy yrsa-rasa oxygen jura hermit
        agave go adf-accanthis adf-baskervald adf-berenis adf-gillius adf-universalis adf-mekanus
        adf-tribun adf-verana adf-romande adf-libris adf-ikarius adf-oldania prociono courier-prime
        anonymous-pro croscore fanwood comfortaa ocr-b sil-doulos paratype opendyslexic
        yanone-kaffeesatz compagnon league-spartan georgewilliams
        lexi-gulim beteckna dustin"
    texts="libreoffice-help-en-us debian-policy doc-debian debian-faq aptitude-doc-en git-doc
        python3.11-doc postgresql-doc-15 perl-doc developers-reference maint-guide apache2-doc
        sqlite3-doc vim-doc python-django-doc jargon-text dict-devil dict-foldoc anarchism
        gnome-user-docs rust-doc zsh-doc installation-guide-amd64 gnumeric-doc"
    for package in $(printf 'fonts-%s ' $fonts) $texts; do apt-get download $package; done
    for package in *.deb; do dpkg-deb -x "$package" unpacked; done
    python -m benchmarks.typeface_documents --packages unpacked --output FOLDER

writes `train/`, in all families but five, and `test-upright/` and `test-italic/` in those five, of texts that
are in no document of `train/`. Nothing of the sample documents is in any. FOLDER must not exist. Some ten
minutes for the 5,000 pages. What the other typefaces share with the five: benchmarks.typeface_fonts.
"""

import argparse
import hashlib
import logging
import random
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.progress import Progress

from benchmarks.typeface_fonts import Face, find_faces, read_kerns, reduce_face, test_faces, training_faces
from benchmarks.typeface_pages import (
    Page,
    Supply,
    set_code,
    set_contents,
    set_running_text,
    set_single_lines,
    set_table,
)
from benchmarks.typeface_setting import Setter, Style
from benchmarks.typeface_texts import Texts, read_texts

PAGES = 5000
PAGES_PER_DOCUMENT = 20
TEST_PAGES = 40
REAL_SHARE = 0.65
_PAGE_POINTS = [(595.3, 841.9), (612.0, 792.0), (419.5, 595.3), (841.9, 595.3)]
_KINDS = {"short": 11, "single": 23, "running": 36, "lists": 8, "table": 7, "code": 11, "contents": 4}
"""Of a hundred sections of a training document."""


class Faces:
    """Faces reduced to what is printed, and their kerning, each made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kerns: dict[Path, dict[str, float]] = {}

    def get(self, face: Face) -> tuple[Path, dict[str, float]]:
        target = self._folder / f"{_name(face)}.ttf"
        if face.path not in self._kerns:
            reduce_face(face, target)
            self._kerns[face.path] = read_kerns(face)
        return target, self._kerns[face.path]


def write_training_document(
    path: Path, pages: int, families: Sequence[list[Face]], supply: Supply, made: Faces, rng: random.Random
) -> int:
    """Set one document in one or two families. Returns its number of pages."""
    setter = Setter(page_points=rng.choices(_PAGE_POINTS, [50, 25, 15, 10])[0], title=path.stem)
    for family in families:
        _add_faces(setter, family, made)
    while setter.pages < pages:
        family = rng.choice(families)
        weights = [(0.5 if face.is_italic else 1.0) * (0.5 if face.is_bold else 1.0) for face in family]
        page = _page(setter, supply, family, rng.choices(family, weights)[0], _train_style(rng), rng)
        kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
        if kind == "code" and (mono := [face for one in families for face in one if face.is_mono]):
            page = replace(page, style=replace(page.style, face=_name(rng.choice(mono))))
        for _ in range(rng.randint(1, 2)):
            _set_page(kind, page)
    setter.write(path)
    return setter.pages


def write_test_document(
    path: Path, pages: int, face: Face, heading: Face, supply: Supply, made: Faces, rng: random.Random
) -> int:
    """Set running text in one held-out face. Returns its number of pages."""
    setter = Setter(page_points=_PAGE_POINTS[0], title=path.stem)
    _add_faces(setter, dict.fromkeys([face, heading]), made)
    while setter.pages < pages:
        size = round(rng.uniform(8, 12.5), 1)
        style = Style(
            face="",
            size=size,
            leading=size * rng.uniform(1.15, 1.4),
            ink=rng.randint(0, 60),
            is_justified=rng.random() < 0.5,
            is_kerned=rng.random() < 0.5,
            has_ligatures=rng.random() < 0.4,
        )
        page = _page(setter, supply, [face, heading], face, style, rng)
        set_running_text(page, rng.randint(26, 100), lists=rng.random() < 0.2)
    setter.write(path)
    return setter.pages


def _set_page(kind: str, page: Page) -> None:
    rng = page.rng
    if kind == "short":
        set_single_lines(page, [(4, 14), (10, 24), (10, 24)])
    elif kind == "single":
        set_single_lines(page, [(25, 32), (33, 48)])
    elif kind == "table":
        set_table(page)
    elif kind == "code":
        set_code(page)
    elif kind == "contents":
        set_contents(page)
    else:
        measure = rng.randint(16, 60) if rng.random() < 0.5 else rng.randint(60, 130)
        set_running_text(page, measure, most_columns=2 if kind == "lists" else 3, lists=kind == "lists")


def _train_style(rng: random.Random) -> Style:
    low, high = rng.choices([(8.0, 12.5), (6.0, 8.0), (12.5, 24.0)], [74, 14, 12])[0]
    size = round(rng.uniform(low, high), 1)
    advance = rng.uniform(0.9, 1.3) if rng.random() < 0.3 else 1.0
    return Style(
        face="",
        size=size,
        leading=size * rng.uniform(1.1, 1.43),
        tracking=round((advance - 1) * 0.5 * size, 2),
        ink=rng.randint(0, 90),
        is_justified=rng.random() < 0.5,
        is_kerned=rng.random() < 0.5,
        has_ligatures=rng.random() < 0.4,
    )


def _page(
    setter: Setter, supply: Supply, family: Sequence[Face], face: Face, style: Style, rng: random.Random
) -> Page:
    bold = [one for one in family if one.is_bold and one.is_italic == face.is_italic] or [face]
    return Page(
        setter=setter,
        supply=supply,
        style=replace(style, face=_name(face)),
        bold=_name(rng.choice(bold)),
        rng=rng,
    )


def _name(face: Face) -> str:
    return hashlib.sha256(f"{face.family} {face.path.name}".encode()).hexdigest()[:12]


def _add_faces(setter: Setter, faces: Iterable[Face], made: Faces) -> None:
    for face in faces:
        setter.add_face(_name(face), *made.get(face))


def write_train(
    folder: Path, pages: int, faces: Sequence[Face], texts: Texts, made: Faces, seed: int, progress: Progress
) -> int:
    families: dict[str, list[Face]] = {}
    for face in training_faces(faces):
        families.setdefault(face.family, []).append(face)
    rng = random.Random(seed)
    supply = Supply(texts, REAL_SHARE, rng)
    task = progress.add_task(folder.name, total=pages)
    order: list[str] = []
    written = number = 0
    while written < pages:
        if len(order) < 2:
            order += rng.sample(sorted(families), len(families))
        chosen = [order.pop() for _ in range(rng.randint(1, 2))]
        parts = [_some(families[name], rng) for name in chosen]
        number += 1
        path = folder / f"{number:04d}-{'-'.join(chosen).lower().replace(' ', '')}.pdf"
        done = write_training_document(
            path, min(PAGES_PER_DOCUMENT, pages - written), parts, supply, made, rng
        )
        written += done
        progress.advance(task, done)
    return written


def _some(family: Sequence[Face], rng: random.Random) -> list[Face]:
    """Six faces of a family at most."""
    return list(family) if len(family) <= 6 else rng.sample(list(family), 6)


def write_test(
    folder: Path,
    *,
    italic: bool,
    faces: Sequence[Face],
    texts: Texts,
    made: Faces,
    seed: int,
    progress: Progress,
) -> int:
    rng = random.Random(seed)
    supply = Supply(texts, 1.0, rng)
    groups = test_faces(faces, italic=italic)
    task = progress.add_task(folder.name, total=TEST_PAGES)
    written = 0
    for key, group in groups.items():
        regular = [face for face in group if not face.is_bold] or group
        bold = [face for face in group if face.is_bold] or group
        share = TEST_PAGES // len(groups)
        parts = min(len(regular), 2)
        for number, face in enumerate(rng.sample(regular, parts), start=1):
            same = [one for one in bold if one.family == face.family] or [face]
            path = folder / f"{key}-{number}-{face.path.stem.lower()}.pdf"
            done = write_test_document(path, share // parts, face, same[0], supply, made, rng)
            written += done
            progress.advance(task, done)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, required=True, help="where the Debian packages are unpacked")
    parser.add_argument("--output", type=Path, required=True, help="folder that receives the PDFs")
    parser.add_argument("--pages", type=int, default=PAGES, help=f"to train on (default {PAGES})")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.output.exists():
        raise FileExistsError(f"{arguments.output} exists: remove it first")
    logging.getLogger("fontTools").setLevel(logging.CRITICAL)  # it lists each table that it leaves out
    faces = find_faces(arguments.packages)
    train, test = read_texts(arguments.packages)
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        made = Faces(Path(folder))
        for italic, name in ((False, "test-upright"), (True, "test-italic")):
            target = arguments.output / name
            write_test(
                target,
                italic=italic,
                faces=faces,
                texts=test,
                made=made,
                seed=arguments.seed,
                progress=progress,
            )
        write_train(arguments.output / "train", arguments.pages, faces, train, made, arguments.seed, progress)


if __name__ == "__main__":
    main()
