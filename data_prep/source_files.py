"""The files of a folder of documents: what they are called, and how one is opened."""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from data_prep.config import ReadingConfig
from data_prep.errors import NoUsableDocuments, ReaderFailure, UnreadableDocument
from data_prep.plain_text import escaped

PDF_SUFFIXES = (".pdf",)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
USER_QUERIES = "queries.jsonl"  # in a folder of documents
TEXT_SUFFIX = ".txt"  # as all suffixes, in any case
TEXT_BESIDE_BYTES = 2**20  # of one page; a longer text is no page's
_CHUNK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One document of the folder, as it was listed."""

    name: str  # as the inventory and the samples show it
    path: Path
    beside: Path | None = None
    """Of an image, the file that holds its text."""


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """An entry of the folder that is not used."""

    name: str
    reason: str


def shown_name(path: PurePath) -> str:
    r"""Return a path as one line of text; two paths never get the same.

    A byte that is not UTF-8 becomes `\xNN`, a character that is obeyed what Python writes for it; so a
    backslash becomes two.
    """
    name = path.as_posix().replace("\\", "\\\\")
    return escaped(os.fsencode(name).decode("utf-8", "backslashreplace"))


def find_documents(folder: Path) -> tuple[list[SourceFile], list[Unsupported]]:
    """Return the documents below `folder` and every other entry, both in sorted order.

    What cannot be looked at (a folder too) is among the documents: reading it says what is wrong.

    Raises:
        NoUsableDocuments: the folder is missing, cannot be listed or holds no document.
    """
    if not os.path.isdir(folder):
        raise NoUsableDocuments(f"{folder}: no such folder; pass a folder of PDFs or page images")
    paths = sorted(_entries_below(folder))
    beside = texts_beside(paths)
    documents, unsupported = [], []
    for path in paths:
        name = shown_name(path.relative_to(folder))
        read = beside.get(path.with_suffix(""))
        if name == USER_QUERIES or path == read:
            continue
        if reason := why_no_document(path, read):
            unsupported.append(Unsupported(name=name, reason=reason))
        else:
            text = read if path.suffix.lower() in IMAGE_SUFFIXES else None
            documents.append(SourceFile(name=name, path=path, beside=text))
    if not documents:
        kinds = ", ".join(PDF_SUFFIXES + IMAGE_SUFFIXES)
        raise NoUsableDocuments(f"{folder}: no documents found ({kinds}) among {len(paths)} file(s)")
    return documents, unsupported


def texts_beside(paths: Sequence[Path]) -> dict[Path, Path]:
    """Return {path without its suffix: the text that is read} for every image that has one.

    Of several that differ in the case of their suffix only, `.txt` is read, or else the first one.
    """
    images = {path.with_suffix("") for path in paths if path.suffix.lower() in IMAGE_SUFFIXES}
    texts: dict[Path, Path] = {}
    for path in sorted(paths, key=lambda path: (path.suffix != TEXT_SUFFIX, path)):
        if path.suffix.lower() == TEXT_SUFFIX and path.with_suffix("") in images and _is_there(path):
            texts.setdefault(path.with_suffix(""), path)
    return texts


def _entries_below(folder: Path) -> Iterator[Path]:
    """Every entry but folders that can be listed; no link is followed."""
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            with os.scandir(current) as entries:
                inside = [(Path(entry), entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            if current == folder:
                raise NoUsableDocuments(f"{folder}: cannot be listed: {error.strerror}") from error
            yield current
            continue
        waiting += [path for path, is_folder in inside if is_folder]
        yield from (path for path, is_folder in inside if not is_folder)


def why_no_document(path: Path, read: Path | None) -> str | None:
    """`read`: the text of the image of the same name, where there is one."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if stat.S_ISDIR(mode):
        return "a link to a folder, which is not followed" if path.is_symlink() else None
    if not stat.S_ISREG(mode):
        return "no file but a pipe, a socket or a device"
    if path.suffix.lower() in PDF_SUFFIXES + IMAGE_SUFFIXES:
        return None
    if read and path.suffix.lower() == TEXT_SUFFIX:
        return f"a second text beside an image, of which {shown_name(PurePath(read.name))} is read"
    if path.name.casefold() == USER_QUERIES:
        return f"queries are read from {USER_QUERIES} at the top of the folder only"
    return "neither a PDF nor a page image"


def open_file(path: Path) -> BinaryIO:
    """Open a regular file; whatever else stands there is neither waited for nor read.

    Raises OSError.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)

    file = open(path, "rb", opener=opener)  # noqa: SIM115 - the caller's
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file")
    return file


@contextlib.contextmanager
def opened(file: SourceFile, config: ReadingConfig) -> Iterator[list[BinaryIO]]:
    """A document, and behind an image the text beside it, where one was listed.

    Raises:
        UnreadableDocument: it is empty or too large.
        ReaderFailure: it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        document = stack.enter_context(_open_part(file.path))
        _check_size(document, config.max_document_bytes)
        if os.fstat(document.fileno()).st_size == 0:
            raise UnreadableDocument("empty file (0 bytes)")
        if file.beside is None:
            yield [document]
            return
        whose = f"the text beside it, {shown_name(PurePath(file.beside.name))}, "
        text = stack.enter_context(_open_part(file.beside, whose))
        _check_size(text, TEXT_BESIDE_BYTES, f"{whose}is ")
        yield [document, text]


def _is_there(path: Path) -> bool:
    """Whether there is such a file; where the file system does not say, as if: opening it says why."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _open_part(path: Path, whose: str = "") -> BinaryIO:
    try:
        return open_file(path)
    except OSError as error:
        raise ReaderFailure(f"{whose}cannot be read: {error.strerror}") from error


def _check_size(file: BinaryIO, most: int, whose: str = "") -> None:
    size = os.fstat(file.fileno()).st_size
    if size > most:
        raise UnreadableDocument(f"{whose}too large: {size:,} bytes, the limit is {most:,}")


def digest_of(file: SourceFile, config: ReadingConfig) -> str:
    """Return the digest of a document, with the text beside it, as it is now. Raises as `opened`."""
    with opened(file, config) as parts:
        try:
            return joint_digest(_digest_of_part(part) for part in parts)
        except OSError as error:
            raise ReaderFailure(f"cannot be read: {error.strerror}") from error


def joint_digest(digests: Iterable[bytes]) -> str:
    """Return the digest of a document from those of its parts."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _digest_of_part(file: BinaryIO) -> bytes:
    digest, left = hashlib.sha256(), os.fstat(file.fileno()).st_size
    while left and (chunk := file.read(min(left, _CHUNK_BYTES))):  # no further: it may be growing
        digest.update(chunk)
        left -= len(chunk)
    return digest.digest()
