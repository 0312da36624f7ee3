"""A folder of pages for the browser: every page as it was read, its boxes in reading order.

The texts are other people's: the templates escape all, the pages forbid scripts and whatever is not of this
folder.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from data_prep.config import ReadingConfig
from data_prep.inspecting import Inspected, Outcome
from data_prep.samples import Sample
from data_prep.source_files import Unsupported
from infra.settings import absolute_path
from pipelines.parameters import BadParameter
from stages.law.report.samples import compared

# All that is ever written, so that all of it can be told from other people's files.
_PAGES, _PICTURES = "document-{:05}.html", "document-{:05}"
_OUR_FILES = re.compile(r"index\.html|document-\d{5,}\.html")
_OUR_FOLDERS = re.compile(r"document-\d{5,}")
_OUR_PICTURES = re.compile(r"page-\d{5,}\.png")
_MARK = '<meta name="generator" content="lco inspect">'
_MARK_WITHIN = 1_000  # bytes of the index


@dataclass(kw_only=True)
class PagesFolder:
    """One html page a document with its pictures beside it, and an index."""

    folder: Path
    config: ReadingConfig
    documents: int = 0
    _templates: jinja2.Environment = field(
        default_factory=lambda: jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
    )

    @classmethod
    def new(cls, folder: Path, *, documents: Sequence[Path], config: ReadingConfig) -> "PagesFolder":
        """Make the folder, or take the pages of an earlier inspection out of it.

        Raises BadParameter where it holds anything else, lies in a folder of the documents, or cannot be
        written.
        """
        try:
            folder = absolute_path(folder)
        except ValueError as error:
            raise BadParameter(f"html {str(folder)!r}: {error}") from error
        inside = [one for one in documents if os.path.isdir(one) and _lies_in(folder, one)]
        if inside:
            raise BadParameter(
                f"html {folder} lies inside {inside[0]}, where the next inspection or run would read its "
                "pictures as documents: name a folder elsewhere"
            )
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _clear(folder)
        except OSError as error:
            raise BadParameter(
                f"html {folder} cannot be written ({error.strerror}): name another folder"
            ) from error
        made = cls(folder=folder, config=config)
        made.finish([], [])  # what is interrupted is ours too, the next time
        return made

    @property
    def index(self) -> Path:
        return self.folder / "index.html"

    def add(self, document: Inspected, pictures: Iterable[Sample]) -> None:
        """Write the page of the next document; `pictures` are of its pages, in their order."""
        self.documents += 1
        if document.reason:
            return
        sizes = dict(self._write_pictures(pictures))
        pages: dict[int, dict[str, Any]] = {
            number: {"number": number, "size": sizes.get(number), "samples": [], "notes": []}
            for number in sorted({one.page for one in document.parts} | sizes.keys())
        }
        for sample in document.samples:
            pages[sample.page]["samples"].append(sample)
        for note in document.notes:
            pages[note.page]["notes"].append(note)
        self._write(
            _PAGES.format(self.documents),
            "inspect_document.html.jinja",
            document=document,
            summary=document.summary(),
            pages=list(pages.values()),
            pictures=_PICTURES.format(self.documents),
            written={key: compared(one.text, one.wanted) for key, one in document.written.items()},
        )

    def finish(self, outcomes: Sequence[Outcome], unsupported: Sequence[Unsupported]) -> None:
        """Write the index; `outcomes` are of the documents in the order in which they were added."""
        documents = [(_PAGES.format(number), one) for number, one in enumerate(outcomes, start=1)]
        asked = any(one.summary and one.summary.compared for one in outcomes)
        values = {"documents": documents, "unsupported": unsupported, "asked": asked}
        self._write("index.html", "inspect_index.html.jinja", **values)

    def _write_pictures(self, pictures: Iterable[Sample]) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yield each page's number and its width and height in the pixels of its boxes."""
        folder = self.folder / _PICTURES.format(self.documents)
        folder.mkdir()
        for one in pictures:
            (folder / f"page-{one.page:05}.png").write_bytes(one.png)
            yield one.page, one.box[2:]

    def _write(self, name: str, template: str, **values: Any) -> None:
        page = self._templates.get_template(template).render(config=self.config, mark=_MARK, **values)
        (self.folder / name).write_text(page, encoding="utf-8")


def _lies_in(folder: Path, documents: Path) -> bool:
    return folder.resolve().is_relative_to(documents.resolve())


def _clear(folder: Path) -> None:
    """Remove what an earlier inspection wrote; nothing, and BadParameter is raised, where there is more."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    index = folder / "index.html"
    if found and not (index.is_file() and _MARK.encode() in index.read_bytes()[:_MARK_WITHIN]):
        raise _not_ours(Path(found[0]))
    for path in [path for entry in found for path in _ours(entry)]:
        path.rmdir() if path.is_dir() else path.unlink()


def _ours(entry: os.DirEntry) -> Iterator[Path]:
    """The entry, before it what is in its folder. Raises BadParameter for what no inspection wrote."""
    if entry.is_dir(follow_symlinks=False) and _OUR_FOLDERS.fullmatch(entry.name):
        with os.scandir(entry) as pictures:
            for picture in pictures:
                if not (picture.is_file(follow_symlinks=False) and _OUR_PICTURES.fullmatch(picture.name)):
                    raise _not_ours(Path(picture))
                yield Path(picture)
    elif not (entry.is_file(follow_symlinks=False) and _OUR_FILES.fullmatch(entry.name)):
        raise _not_ours(Path(entry))
    yield Path(entry)


def _not_ours(path: Path) -> BadParameter:
    return BadParameter(
        f"html {path.parent} holds {path.name}, which no `lco inspect` wrote: name a new or empty folder"
    )
