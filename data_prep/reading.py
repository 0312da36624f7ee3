"""Read each document of a folder once, in processes that hold nothing of ours (infra.sandbox).

What was read from a file, or what is wrong with it, is committed under the digest of the bytes that were
read.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from data_prep import reader
from data_prep.config import ReadingConfig
from data_prep.errors import ReaderFailure, UnreadableDocument
from data_prep.samples import Sample
from data_prep.source_files import SourceFile, digest_of, opened
from data_prep.write_shards import write_split
from infra.fingerprint import fingerprint
from infra.sandbox import Call, CallFailed, Limits, Sandbox
from infra.store import Committed, Store

Progress = Callable[[int, int, str], None]
# Where pdfium looks for a font that a document names and does not hold.
_FONTS = ("/usr/share/fonts", "/usr/share/X11/fonts", "/usr/local/share/fonts")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What became of one file: its committed samples, or the reason why there are none."""

    source: SourceFile
    samples: Committed | None
    pages: int
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class _Unread:
    """A file that no committed output holds, and the name of the output to be."""

    file: SourceFile
    digest: str
    fingerprint: str


def read_documents(
    files: Sequence[SourceFile], config: ReadingConfig, store: Store, progress: Progress, *, workers: int
) -> list[Reading]:
    """Read the files that no committed output holds yet, several at a time, each under its own limits."""
    readings: dict[SourceFile, Reading] = {}
    missing = []
    for file in files:
        try:
            unread = _named(file, config)
        except UnreadableDocument as error:  # said again by every run, so that nothing need be committed
            readings[file] = _not_used(file, error)
            continue
        if committed := store.find("document", unread.fingerprint):
            readings[file] = _load(file, committed)
        else:
            missing.append(unread)
    with closing(_read_each(missing, config, workers)) as calls:
        for done, (unread, call) in enumerate(calls, start=1):
            try:
                readings[unread.file] = _finish(unread, call, config, store)
            except UnreadableDocument as error:
                readings[unread.file] = _not_used(unread.file, error)
            progress(done, len(missing), "reading documents")
    return [readings[file] for file in files]


def _named(file: SourceFile, config: ReadingConfig) -> _Unread:
    digest = digest_of(file, config)
    name = fingerprint(
        stage="document",
        program="data_prep.reading",
        configuration={"reading": config, "name": file.name},
        inputs={"file": digest},
    )
    return _Unread(file=file, digest=digest, fingerprint=name)


def _read_each(
    files: Sequence[_Unread], config: ReadingConfig, workers: int
) -> Iterator[tuple[_Unread, Call | UnreadableDocument]]:
    """Yield every file with its reader, or what is wrong with it, in order; only a few are read ahead."""
    if not files:
        return
    limits = Limits(
        seconds=config.document_seconds,
        memory_bytes=config.document_memory_bytes,
        file_bytes=config.max_sample_bytes_per_document + reader.HEADER_BYTES,
        readable=_FONTS,
    )
    with Sandbox(module=reader.__name__, limits=limits, processes=min(workers, len(files))) as sandbox:
        started = ((one, _start(sandbox, one.file, config)) for one in files)
        waiting = deque(islice(started, workers + 1))
        while waiting:
            yield waiting.popleft()
            waiting.extend(islice(started, 1))


def _start(sandbox: Sandbox, file: SourceFile, config: ReadingConfig) -> Call | UnreadableDocument:
    try:
        with opened(file, config) as parts:
            arguments = {"name": file.name, "config": asdict(config)}
            return sandbox.start(arguments, [part.fileno() for part in parts])
    except UnreadableDocument as error:  # it was readable when it was named
        return ReaderFailure(str(error))


def _finish(unread: _Unread, call: Call | UnreadableDocument, config: ReadingConfig, store: Store) -> Reading:
    """Wait for one document, and commit what was read. Raises ReaderFailure where nothing is committed."""
    if isinstance(call, UnreadableDocument):
        raise call
    try:
        answer = call.result()
    except CallFailed as error:
        late = f"took longer than {config.document_seconds:g} s to read"
        died = f"the reader died on it (exit code {error.exit_code})"
        raise ReaderFailure(late if error.exit_code is None else died) from error
    with answer, store.attempt("document", unread.fingerprint) as attempt:
        try:
            samples = reader.read_answer(answer, unread.file.name, unread.digest, config)
        except ReaderFailure:
            raise
        except UnreadableDocument as error:
            summary = {"pages": 0, "reason": " ".join(str(error).split())}
        else:
            summary = {"pages": _write(attempt.path, samples), "reason": None}
        (attempt.path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        committed = attempt.commit(
            inputs={"file": unread.digest}, configuration=asdict(config), counts={"pages": summary["pages"]}
        )
    return _load(unread.file, committed)


def _write(folder: Path, samples: Iterator[Sample]) -> int:
    """Write the samples as they come; return the number of the last page."""
    page = 0

    def noted() -> Iterator[Sample]:
        nonlocal page
        for sample in samples:
            page = sample.page
            yield sample

    write_split(folder, noted(), per_shard=1_000_000)
    return page


def _not_used(file: SourceFile, error: UnreadableDocument) -> Reading:
    return Reading(source=file, samples=None, pages=0, reason=str(error))


def _load(file: SourceFile, committed: Committed) -> Reading:
    summary = committed.json("summary.json")
    return Reading(source=file, samples=None if summary["reason"] else committed, **summary)
