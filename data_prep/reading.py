"""Find the documents of a folder and read each one once, in processes with limits on memory and time.

What was read from a file, or the reason why it cannot be used, is committed under the file's digest.
"""

import hashlib
import json
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from data_prep.config import ReadingConfig
from data_prep.documents import IMAGE_SUFFIXES, PDF_SUFFIXES, limit_this_process, read_document
from data_prep.errors import NoUsableDocuments, ReaderFailure, UnreadableDocument
from data_prep.queries import USER_QUERIES
from data_prep.samples import Sample
from data_prep.write_shards import write_split
from infra.fingerprint import fingerprint
from infra.store import Committed, Store

Progress = Callable[[int, int, str], None]
Outcome = tuple[Sample, ...] | UnreadableDocument


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of the folder, as seen before it is read."""

    name: str  # POSIX path relative to the folder
    path: Path
    digest: str  # of the file and of the text beside it


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What became of one file: its committed samples, or the reason why there are none."""

    source: SourceFile
    samples: Committed | None
    pages: int
    reason: str | None


def find_documents(folder: Path) -> tuple[list[SourceFile], list[str]]:
    """Return the documents below `folder` in sorted order, and the names of files of other kinds.

    Raises:
        NoUsableDocuments: the folder is missing or holds no document.
    """
    if not folder.is_dir():
        raise NoUsableDocuments(f"{folder}: no such folder; pass a folder of PDFs or page images")
    documents, unsupported = [], []
    # A link to nothing is listed too: the reader then says what is wrong with it.
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    texts_beside = {path.with_suffix("") for path in paths if path.suffix.lower() in IMAGE_SUFFIXES}
    for path in paths:
        # Names from old archives need not be UTF-8; what the inventory shows must be.
        name = os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")
        if path.exists() and not path.is_file() and not path.is_dir():
            # A FIFO, socket or device, or a link to one: to open it may wait for ever.
            unsupported.append(name)
        elif path.suffix.lower() in PDF_SUFFIXES + IMAGE_SUFFIXES:
            documents.append(SourceFile(name=name, path=path, digest=_digest(path)))
        elif name != USER_QUERIES and not (path.suffix == ".txt" and path.with_suffix("") in texts_beside):
            unsupported.append(name)
    if not documents:
        kinds = ", ".join(PDF_SUFFIXES + IMAGE_SUFFIXES)
        raise NoUsableDocuments(f"{folder}: no documents found ({kinds}) among {len(paths)} file(s)")
    return documents, unsupported


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    beside = path.with_suffix(".txt")
    has_text = path.suffix.lower() in IMAGE_SUFFIXES and beside.is_file()
    for part in (path, beside) if has_text else (path,):
        try:
            with part.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:  # the reader will meet the same and report it
            digest.update(f"errno {error.errno}".encode() if part == path else b"")
    return digest.hexdigest()


def read_documents(
    files: Sequence[SourceFile], config: ReadingConfig, store: Store, progress: Progress, *, workers: int
) -> list[Reading]:
    """Read the files that no committed output holds yet, several at a time, each under its own limits."""
    fingerprints = {
        file: fingerprint(
            stage="document",
            program="data_prep.reading",
            configuration={"reading": config, "name": file.name},
            inputs={"file": file.digest},
        )
        for file in files
    }
    found = {file: store.find("document", fingerprints[file]) for file in files}
    readings = {file: committed and _load(file, committed) for file, committed in found.items()}
    missing = [file for file, reading in readings.items() if reading is None]
    with closing(_read_each(missing, config, workers)) as outcomes:
        for done, (file, outcome) in enumerate(outcomes, start=1):
            if isinstance(outcome, ReaderFailure):
                readings[file] = Reading(source=file, samples=None, pages=0, reason=str(outcome))
            else:
                readings[file] = _load(file, _commit(file, fingerprints[file], outcome, config, store))
            progress(done, len(missing), "reading documents")
    return list(readings.values())


def _read_each(
    files: Sequence[SourceFile], config: ReadingConfig, workers: int
) -> Iterator[tuple[SourceFile, Outcome]]:
    """Yield every file with what was read, in order; only a few documents are in memory at a time."""
    if not files:
        return
    pool = ProcessPool(
        max_workers=min(workers, len(files)),
        initializer=limit_this_process,
        initargs=(config.document_memory_bytes,),
        # A fork would inherit the caller's threads' locks and count its memory against the limit.
        context=multiprocessing.get_context("spawn"),
    )
    try:
        limit = config.document_seconds
        started = (
            (one, pool.schedule(read_document, (one.path, one.name, config), timeout=limit)) for one in files
        )
        waiting = deque(islice(started, 2 * workers))
        while waiting:
            file, task = waiting.popleft()
            yield file, _outcome(task, config)
            waiting.extend(islice(started, 1))
        pool.close()
    except BaseException:  # an interrupt does not wait for the documents that are being read
        pool.stop()
        raise
    finally:
        pool.join()


def _outcome(task, config: ReadingConfig) -> Outcome:
    """Wait for one document. Whatever a hostile file makes a decoder raise is about that file only."""
    error = task.exception()
    match error:
        case None:
            return task.result()
        case UnreadableDocument():
            return error
        case TimeoutError():
            return ReaderFailure(f"took longer than {config.document_seconds:g} s to read")
        case ProcessExpired():
            return ReaderFailure(f"the reader died on it (exit code {error.exitcode})")
        case OSError():
            return ReaderFailure(f"cannot be read: {error.strerror or error}")
        case Exception():
            return UnreadableDocument(f"the reader failed on it: {type(error).__name__}: {error}")
    raise error


def _commit(file: SourceFile, name: str, outcome: Outcome, config: ReadingConfig, store: Store) -> Committed:
    with store.attempt("document", name) as attempt:
        if isinstance(outcome, UnreadableDocument):
            summary = {"pages": 0, "reason": " ".join(str(outcome).split())}
        else:
            summary = {"pages": outcome[-1].page, "reason": None}
            write_split(attempt.path, outcome, (), per_shard=1_000_000)
        (attempt.path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        return attempt.commit(
            inputs={"file": file.digest}, configuration=asdict(config), counts={"pages": summary["pages"]}
        )


def _load(file: SourceFile, committed: Committed) -> Reading:
    summary = committed.json("summary.json")
    return Reading(source=file, samples=None if summary["reason"] else committed, **summary)
