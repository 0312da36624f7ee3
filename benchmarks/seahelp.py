"""Build SeaHelp: page retrieval in Vietnamese, Indonesian and Khmer, from LibreOffice's help in Debian 12.

    apt-get download libreoffice-help-en-us libreoffice-help-vi libreoffice-help-id libreoffice-help-km \\
        fonts-noto-core fonts-noto-mono
    for package in *.deb; do dpkg-deb -x "$package" unpacked; done
    python -m benchmarks.seahelp --packages unpacked --output seahelp

writes, for each language, a folder of PDFs with queries in that language (`km/`) and one of the same PDFs
with English queries (`km-from-en/`): each is a folder for `lco run --documents`. Page images, splits, a
dataset card and `manifest.json` stand beside them. The same packages and libraries give the same digest.
"""

import argparse
import gzip
import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.libreoffice_help import FONT_FOLDER, Paragraph, chapters, read_topics
from benchmarks.seahelp_card import dataset_card
from benchmarks.seahelp_pages import (
    KHMER,
    LATIN,
    PageSetter,
    check_text_layer,
    make_fonts,
    printable_characters,
    write_page_images,
)
from benchmarks.seahelp_paragraphs import HelpParagraph, choose_paragraphs, split_documents
from data_prep.queries import words_of
from data_prep.query_making import make_queries
from data_prep.source_files import USER_QUERIES
from data_prep.splits import SPLITS

SOURCE = "en"
TYPEFACES = {"en": LATIN, "vi": LATIN, "id": LATIN, "km": KHMER}
HELP_LANGUAGES = {"en": "en-US", "vi": "vi", "id": "id", "km": "km"}
HELP_PACKAGES = tuple(f"libreoffice-help-{language.lower()}" for language in HELP_LANGUAGES.values())
FONT_PACKAGES = ("fonts-noto-core", "fonts-noto-mono")
LIBRARIES = ("fpdf2", "fonttools", "uharfbuzz", "pypdfium2", "pillow", "datasketch")
TOPICS_PER_DOCUMENT = 12
QUERIES_PER_PAGE = 2
FEWEST_QUERY_WORDS, MOST_QUERY_WORDS = 6, 40
"""Of a paragraph, and of its English original, that becomes a query."""
QUERY_WORD_SHARE = 0.5
"""Share of a sentence's words that a query in the page's own language keeps, shuffled."""


@dataclass(frozen=True, kw_only=True)
class PlacedParagraph:
    paragraph: HelpParagraph
    document: str  # file name
    page: int  # from 1


@dataclass(frozen=True, kw_only=True)
class SearchQuery:
    """One line of queries.jsonl. `lco` reads the first three fields."""

    query: str
    document: str
    page: int
    split: str
    identity: str  # topic path # paragraph id: equal in all languages and both kinds of queries


def build(packages: Path, output: Path) -> dict:
    """Write the benchmark to `output` and return its manifest.

    Raises:
        FileNotFoundError: a package is not unpacked below `packages`.
        FileExistsError: `output` exists.
    """
    versions = {name: package_version(packages, name) for name in HELP_PACKAGES + FONT_PACKAGES}
    english = read_topics(packages, HELP_LANGUAGES[SOURCE], one_wording=True)
    documents = {f"{name}.pdf": topics for name, topics in chapters(english, TOPICS_PER_DOCUMENT)}
    splits = split_documents(documents)
    output.mkdir(parents=True)
    counts: dict[str, dict] = {}
    for language, help_language in HELP_LANGUAGES.items():
        topics = english if language == SOURCE else read_topics(packages, help_language, one_wording=True)
        printable = printable_characters(TYPEFACES[language], packages / FONT_FOLDER)
        chosen, left_out = choose_paragraphs(topics, english, documents, printable)
        placed = write_documents(output / language, language, chosen, packages / FONT_FOLDER)
        counts[language] = count(placed, splits) | {"left_out": left_out}
        counts[language]["queries"] = write_queries(output, language, placed, splits)
        if language != SOURCE:
            write_images(output, language)
        print(f"{language}: {json.dumps(counts[language], sort_keys=True)}", flush=True)
    of_split = {name: sorted(d for d in documents if splits[d] == name) for name in SPLITS}
    (output / "splits.json").write_text(json.dumps(of_split, indent=1), encoding="utf-8")
    (output / "README.md").write_text(dataset_card(counts, versions), encoding="utf-8")
    return write_manifest(output, counts, versions)


def package_version(packages: Path, name: str) -> str:
    """Return the version of an unpacked Debian package, as its changelog says."""
    path = packages / "usr/share/doc" / name / "changelog.Debian.gz"
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: unpack the Debian package {name} into {packages} first")
    with gzip.open(path, "rt", encoding="utf-8") as changelog:
        return changelog.readline().split("(")[1].split(")")[0]


def write_documents(
    folder: Path, language: str, chosen: dict[str, list[HelpParagraph]], fonts: Path
) -> list[PlacedParagraph]:
    """Set the documents as PDFs below `folder`; returns where each paragraph stands."""
    typeface, placed = TYPEFACES[language], []
    with tempfile.TemporaryDirectory() as made:
        texts = [p.text for paragraphs in chosen.values() for p in paragraphs]
        make_fonts(typeface, fonts, Path(made), texts)
        for name, paragraphs in sorted(chosen.items()):
            setter = PageSetter(Path(name).stem, typeface, Path(made))
            for p in paragraphs:
                page = setter.add(Paragraph(identity=p.identity, is_title=p.is_title, text=p.text))
                placed.append(PlacedParagraph(paragraph=p, document=name, page=page))
            setter.write(folder / name)
            check_text_layer(folder / name, [p.text for p in paragraphs])
    return placed


def write_images(output: Path, language: str) -> None:
    """Render every page to `images/<language>/<document>-<page>.png`."""
    for path in sorted((output / language).glob("*.pdf")):
        write_page_images(path, output / "images" / language)


def write_queries(
    output: Path, language: str, placed: Sequence[PlacedParagraph], splits: dict[str, str]
) -> dict[str, int]:
    """Write both kinds of queries, the English ones with the PDFs beside them; returns counts by split."""
    pairs = choose_queries(placed, splits, with_english=language != SOURCE)
    _write_lines(output / language / USER_QUERIES, [own for own, _ in pairs])
    if language != SOURCE:
        crossing = output / f"{language}-from-{SOURCE}"
        # Copies, as links do not survive every upload; a page image beside a PDF would be a document.
        shutil.copytree(output / language, crossing, ignore=shutil.ignore_patterns(USER_QUERIES))
        _write_lines(crossing / USER_QUERIES, [english for _, english in pairs])
    return dict(Counter(own.split for own, _ in pairs))


def choose_queries(
    placed: Sequence[PlacedParagraph], splits: dict[str, str], *, with_english: bool
) -> list[tuple[SearchQuery, SearchQuery]]:
    """Return (query in the page's language, English query) pairs for the same paragraphs, by page.

    On each page the first paragraphs by the digest of their names that are long enough, and whose queries no
    other paragraph of the corpus gives. The page's own words come shuffled and halved; English comes as it
    is, as the page does not have it.
    """
    candidates = []
    for place in placed:
        p = place.paragraph
        name = f"{p.topic}#{p.identity}"
        made = make_queries(name, p.text, count=1, word_share=QUERY_WORD_SHARE, seed=0)
        texts = (p.text, p.english) if with_english else (p.text,)
        if made and all(FEWEST_QUERY_WORDS <= len(words_of(t)) <= MOST_QUERY_WORDS for t in texts):
            rest = {"document": place.document, "page": place.page, "split": splits[place.document]}
            own = SearchQuery(query=made[0].text, identity=name, **rest)
            candidates.append((own, SearchQuery(query=p.english, identity=name, **rest)))
    asked = [Counter(query.query.casefold() for query in kind) for kind in zip(*candidates, strict=True)]
    pages: dict[tuple[str, int], list[tuple[SearchQuery, SearchQuery]]] = {}
    for pair in sorted(candidates, key=lambda pair: hashlib.sha256(pair[0].identity.encode()).digest()):
        once = all(seen[query.query.casefold()] == 1 for seen, query in zip(asked, pair, strict=True))
        of_page = pages.setdefault((pair[0].document, pair[0].page), [])
        if once and len(of_page) < QUERIES_PER_PAGE:
            of_page.append(pair)
    return [pair for page in sorted(pages) for pair in pages[page]]


def _write_lines(path: Path, queries: Sequence[SearchQuery]) -> None:
    lines = [json.dumps(asdict(query), ensure_ascii=False) + "\n" for query in queries]
    path.write_text("".join(lines), encoding="utf-8")


def count(placed: Sequence[PlacedParagraph], splits: dict[str, str]) -> dict:
    """Return the numbers of documents and pages by split, and of paragraphs."""
    documents = Counter(splits[name] for name in {place.document for place in placed})
    pages = Counter(splits[name] for name, _ in {(place.document, place.page) for place in placed})
    return {"documents": dict(documents), "pages": dict(pages), "paragraphs": len(placed)}


def write_manifest(output: Path, counts: dict, versions: dict[str, str]) -> dict:
    """Write `manifest.json`: sha256 of every file, one digest over all of them, versions and counts."""
    files = {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    manifest = {
        "digest": hashlib.sha256(lines.encode()).hexdigest(),
        "packages": versions,
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "counts": counts,
        "files": files,
    }
    (output / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, required=True, help="where the Debian packages are unpacked")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    arguments = parser.parse_args()
    print(f"digest {build(arguments.packages, arguments.output)['digest']}")


if __name__ == "__main__":
    main()
