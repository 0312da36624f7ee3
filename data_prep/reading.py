"""Read each document of a folder once, in processes that hold nothing of ours (infra.sandbox).

A long document's pages are shared between the processes, in ranges. What was read from a file, or what is
wrong with it, is committed under the digest of the bytes that were read.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path
from typing import NamedTuple

from data_prep import reader, reader_answers
from data_prep.config import ReadingConfig
from data_prep.errors import ReaderFailure, UnreadableDocument
from data_prep.samples import PageNote, Sample
from data_prep.source_files import SourceFile, digest_of, opened
from data_prep.write_shards import write_split
from infra.fingerprint import fingerprint
from infra.sandbox import Call, CallFailed, Limits, Sandbox
from infra.store import Committed, Store

Progress = Callable[[int, int, str], None]
FIRST_PAGES = 16  # of a document are read at once: when they are there, so is the number of its pages
MOST_PAGES = 250  # that one call reads; but each loads the whole file, and its fonts
_REFUSED_PAGES_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What became of one file: its committed samples, or the reason why there are none."""

    source: SourceFile
    samples: Committed | None
    pages: int
    reason: str | None
    refused_pages: int = 0  # that have no sample
    first_refused_pages: list[dict] = field(default_factory=list)
    """`page` and `reason` of each."""
    left_out_characters: dict[str, int] = field(default_factory=dict)
    """How many of its text are in no sample, for each reason, the most first."""


@dataclass(frozen=True, kw_only=True)
class _Unread:
    """A file that no committed output holds, and the name of the output to be."""

    file: SourceFile
    digest: str
    fingerprint: str


@dataclass(kw_only=True, eq=False)
class _Underway:
    """A document that is being read."""

    unread: _Unread
    answers: list[reader_answers.Answer | UnreadableDocument] = field(default_factory=list)
    """In the order of their pages."""
    asked: int = 1  # ranges of pages that are read or to be read
    read_to: int = 0  # last page that was read
    outputs: ExitStack = field(default_factory=ExitStack)
    """Open files of the answers."""

    @property
    def pages(self) -> int:
        """How many it has; 0 where that is not known."""
        return getattr(self.answers[0], "document_pages", 0)

    @property
    def share_read(self) -> float:
        return len(self.answers) / self.asked

    @property
    def progress(self) -> str:
        if self.share_read == 1:
            return "reading documents"
        return f"reading page {self.read_to:,} of {self.pages:,} of {self.unread.file.name}"

    @property
    def problem(self) -> UnreadableDocument | None:
        return next((one for one in self.answers if isinstance(one, UnreadableDocument)), None)


class _Part(NamedTuple):
    """A range of a document's pages that is being read."""

    document: _Underway
    pages: range
    call: Call | UnreadableDocument


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
    done = 0
    with closing(_read_each(missing, config, workers)) as documents:
        for one in documents:
            if one.share_read == 1:
                readings[one.unread.file] = _finish(one, config, store)
                done += 1
            progress(done, len(missing), one.progress)
    return [readings[file] for file in files]


def read_each(
    files: Sequence[SourceFile], config: ReadingConfig, told: Callable[[float, str], None], *, workers: int
) -> Iterator[tuple[SourceFile, Iterator[Sample | PageNote]]]:
    """Yield the files, in their order, each with what its reader says of it; nothing is committed.

    That is to be taken before the next file is asked for, and raises UnreadableDocument where the file is
    refused. `told` hears how many files are read, with the shares of those underway.
    """
    unread, found, shares = [], {}, {}
    for file in files:
        try:
            unread.append(_named(file, config))
        except UnreadableDocument as error:
            nameless = _Unread(file=file, digest="", fingerprint="")
            found[file] = _Underway(unread=nameless, answers=[error])
    with closing(_read_each(unread, config, workers)) as documents:
        for file in files:
            while file not in found:
                one = next(documents)
                shares[one.unread.file] = one.share_read
                told(len(files) - len(unread) + sum(shares.values()), one.progress)
                if one.share_read == 1:
                    found[one.unread.file] = one
            with found[file].outputs:
                yield file, reader_answers.joined(found[file].answers, config)
            del found[file]


def _named(file: SourceFile, config: ReadingConfig) -> _Unread:
    digest = digest_of(file, config)
    name = fingerprint(
        stage="document",
        program="data_prep.reading",
        configuration={"reading": config, "name": file.name},
        inputs={"file": digest},
    )
    return _Unread(file=file, digest=digest, fingerprint=name)


def _read_each(files: Sequence[_Unread], config: ReadingConfig, workers: int) -> Iterator[_Underway]:
    """Yield a document whenever some of its pages are read; few pages are read ahead.

    The first pages of each are read in order of the files, and the others of a document before those of the
    next ones.
    """
    if not files:
        return
    limits = Limits(
        seconds=config.document_seconds,
        memory_bytes=config.document_memory_bytes,
        file_bytes=config.max_sample_bytes_per_document + reader.HEADER_BYTES,
    )
    documents = (_Underway(unread=one) for one in files)
    unasked: deque[tuple[_Underway, range]] = deque()
    with Sandbox(module=reader.__name__, limits=limits, processes=workers) as sandbox:
        running: deque[_Part] = deque()
        while True:
            while len(running) <= workers:
                if not unasked and (following := next(documents, None)):
                    unasked.append((following, range(1, FIRST_PAGES + 1)))
                if not unasked:
                    break
                document, pages = unasked.popleft()
                call = document.problem or _start(sandbox, document.unread.file, config, pages)
                running.append(_Part(document, pages, call))
            if not running:
                return
            document = _take_in(running.popleft(), config)
            if len(document.answers) == 1:
                others = _other_ranges(document.pages, workers)
                document.asked += len(others)
                unasked.extend((document, pages) for pages in others)
            yield document


def _other_ranges(pages: int, workers: int) -> list[range]:
    """Divide the pages behind the first ones, from 1."""
    size = max(FIRST_PAGES, min(MOST_PAGES, ceil((pages - FIRST_PAGES) / workers)))
    return [range(start, start + size) for start in range(FIRST_PAGES + 1, pages + 1, size)]


def _start(
    sandbox: Sandbox, file: SourceFile, config: ReadingConfig, pages: range
) -> Call | UnreadableDocument:
    try:
        with opened(file, config) as parts:
            asked = (pages.start, pages.stop)
            arguments = {"name": file.name, "config": asdict(config), "pages": asked}
            return sandbox.start(arguments, [part.fileno() for part in parts])
    except UnreadableDocument as error:  # it was readable when it was named
        return ReaderFailure(str(error))


def _take_in(part: _Part, config: ReadingConfig) -> _Underway:
    """Wait for a range of pages; return its document, to which its answer is added."""
    document = part.document
    try:
        answer = _answer(part, config)
    except UnreadableDocument as error:
        answer = error
    document.answers.append(answer)
    document.read_to = min(part.pages.stop - 1, document.pages)
    return document


def _answer(part: _Part, config: ReadingConfig) -> reader_answers.Answer:
    if isinstance(part.call, UnreadableDocument):
        raise part.call
    try:
        output = part.document.outputs.enter_context(part.call.result())
    except CallFailed as error:
        late = f"took longer than {config.document_seconds:g} s to read"
        died = f"the reader died on it (exit code {error.exit_code})"
        raise ReaderFailure(late if error.exit_code is None else died) from error
    unread = part.document.unread
    return reader_answers.read_answer(output, unread.file.name, unread.digest, config, part.pages)


def _finish(document: _Underway, config: ReadingConfig, store: Store) -> Reading:
    """Commit what was read of a document, or what is wrong with it; nothing where a reader failed."""

    def write(folder: Path) -> dict:
        return _write(folder, document.pages, reader_answers.joined(document.answers, config))

    with document.outputs:
        try:
            return _commit(document.unread, write, config, store)
        except ReaderFailure as error:
            return _not_used(document.unread.file, error)
        except UnreadableDocument as error:
            refused = {"pages": 0, "reason": " ".join(str(error).split())}
            return _commit(document.unread, lambda folder: refused, config, store)


def _commit(unread: _Unread, write: Callable[[Path], dict], config: ReadingConfig, store: Store) -> Reading:
    """`write` fills the output's folder, but for the summary that it returns."""
    with store.attempt("document", unread.fingerprint) as attempt:
        summary = write(attempt.path)
        (attempt.path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        counts = {
            "pages": summary["pages"],
            "refused_pages": summary.get("refused_pages", 0),
            "left_out_characters": sum(summary.get("left_out_characters", {}).values()),
        }
        committed = attempt.commit(
            inputs={"file": unread.digest}, configuration=asdict(config), counts=counts
        )
    return _load(unread.file, committed)


def _write(folder: Path, pages: int, content: Iterator[Sample | PageNote]) -> dict:
    """Write the samples as they come; return the summary. Raises UnreadableDocument where there is none."""
    left_out: Counter[str] = Counter()
    refused: list[PageNote] = []

    def samples() -> Iterator[Sample]:
        for one in content:
            if isinstance(one, Sample):
                yield one
                continue
            left_out.update(one.left_out)
            if one.refused:
                refused.append(one)

    write_split(folder, samples(), per_shard=1_000_000)
    if len(refused) == pages:
        raise UnreadableDocument(refused[0].refused)
    return {
        "pages": pages,
        "reason": None,
        "refused_pages": len(refused),
        "first_refused_pages": [
            {"page": one.page, "reason": one.refused} for one in refused[:_REFUSED_PAGES_NAMED]
        ],
        "left_out_characters": dict(sorted(left_out.items(), key=lambda one: (-one[1], one[0]))),
    }


def _not_used(file: SourceFile, error: UnreadableDocument) -> Reading:
    return Reading(source=file, samples=None, pages=0, reason=str(error))


def _load(file: SourceFile, committed: Committed) -> Reading:
    summary = committed.json("summary.json")
    return Reading(source=file, samples=None if summary["reason"] else committed, **summary)
