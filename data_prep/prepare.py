"""A folder of documents becomes three committed splits of samples and an inventory of every file.

    prepared = prepare_documents(Path("documents"), DocumentsConfig(), store, progress)

Each document is read once: its samples are committed under the file's digest, so that a changed file is
the only one that is read again.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import asdict, dataclass
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from data_prep.config import DocumentsConfig
from data_prep.documents import (
    IMAGE_SUFFIXES,
    PDF_SUFFIXES,
    ReadDocument,
    Unit,
    limit_this_process,
    read_document,
)
from data_prep.errors import NoUsableDocuments, UnreadableDocument
from data_prep.queries import Query, UserQuery, make_queries, match_user_queries, read_user_queries
from data_prep.shards import Sample, ShardSource, sample_key, write_split
from data_prep.splits import SPLITS, ImageDuplicates, TextDuplicates, assign_splits, page_runs
from infra.fingerprint import fingerprint
from infra.store import Committed, Store

SCHEMA_VERSION = 1
LIBRARIES = ("pypdfium2", "pillow", "webdataset", "datasketch", "ImageHash")
USER_QUERIES = "queries.jsonl"
_RUNS_OF_ONE_DOCUMENT = 8

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The committed outputs of one folder of documents."""

    train: Committed
    validation: Committed
    test: Committed
    inventory: Committed


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


def prepare_documents(
    folder: Path, config: DocumentsConfig, store: Store, progress: Progress, *, workers: int = 2
) -> Prepared:
    """Read, split and shard every document below `folder`.

    Raises:
        NoUsableDocuments: nothing is left to train and to test on; the message says why.
    """
    files, unsupported = find_documents(folder)
    readings = read_documents(files, config, store, progress, workers=workers)
    usable = [reading for reading in readings if reading.samples is not None]
    _check_usable(folder, readings, usable, config)
    user_queries = _user_queries(folder)
    sources = {usable_reading.source.name: ShardSource(usable_reading.samples.path) for usable_reading in usable}

    splits, warnings = _assign(usable, sources, config)
    texts = TextDuplicates(config.near_duplicate_similarity)
    images = ImageDuplicates(config.near_duplicate_image_bits)
    outputs: dict[str, Committed] = {}
    counts: dict[str, dict[str, int]] = {}
    # Test first: a near-duplicate of a test sample is dropped from the other splits, never the reverse.
    for done, name in enumerate(reversed(SPLITS), start=1):
        chosen = _choose_samples(name, sources, splits, texts, images)
        queries, unmatched = _queries_of(chosen.samples, user_queries, config)
        counts[name] = chosen.dropped | {"queries_for_other_pages": unmatched}
        outputs[name] = _commit_split(name, chosen.samples, queries, config, store)
        progress(done, len(SPLITS), "splitting")
    if not outputs["test"].manifest.counts["queries"] or not outputs["train"].manifest.counts["queries"]:
        raise NoUsableDocuments(
            f"{folder}: {len(usable)} usable document(s) leave no text to train on and to test with; "
            f"add documents with a text layer"
        )
    inventory = _commit_inventory(readings, unsupported, splits, counts, warnings, outputs, config, store)
    return Prepared(**outputs, inventory=inventory)


def find_documents(folder: Path) -> tuple[list[SourceFile], list[str]]:
    """Return the documents below `folder` in sorted order, and the names of files of other kinds.

    Raises:
        NoUsableDocuments: the folder is missing or holds no document.
    """
    if not folder.is_dir():
        raise NoUsableDocuments(f"{folder}: no such folder; pass a folder of PDFs or page images")
    documents, unsupported = [], []
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    texts_beside = {path.with_suffix("") for path in paths if path.suffix.lower() in IMAGE_SUFFIXES}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() in PDF_SUFFIXES + IMAGE_SUFFIXES:
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
    for part in (path, beside) if path.suffix.lower() in IMAGE_SUFFIXES else (path,):
        if part.is_file():
            with part.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def read_documents(
    files: Sequence[SourceFile], config: DocumentsConfig, store: Store, progress: Progress, *, workers: int
) -> list[Reading]:
    """Read the files that no committed output holds yet, several at a time, each under its own limits."""
    prints = [_document_fingerprint(file, config) for file in files]
    found = [store.find("document", print_) for print_ in prints]
    missing = [position for position, committed in enumerate(found) if committed is None]
    if missing:
        limits = (config.document_memory_bytes,)
        with ProcessPool(max_workers=workers, initializer=limit_this_process, initargs=limits) as pool:
            tasks = {
                position: pool.schedule(
                    read_document, args=(files[position].path, config), timeout=config.document_seconds
                )
                for position in missing
            }
            for done, (position, task) in enumerate(tasks.items(), start=1):
                outcome = _outcome(task, config)
                found[position] = _commit_document(files[position], prints[position], outcome, config, store)
                progress(done, len(missing), "reading documents")
    return [_load_reading(file, committed) for file, committed in zip(files, found, strict=True)]


def _outcome(task, config: DocumentsConfig) -> ReadDocument | str:
    """Wait for one document: what was read, or the reason why it could not be."""
    try:
        return task.result()
    except UnreadableDocument as error:
        return str(error)
    except FutureTimeoutError:
        return f"took longer than {config.document_seconds:g} s to read"
    except ProcessExpired as error:
        return f"the reader died on it (exit code {error.exitcode})"


def _document_fingerprint(file: SourceFile, config: DocumentsConfig) -> str:
    return fingerprint(
        stage="document",
        schema_version=SCHEMA_VERSION,
        configuration=asdict(config),
        inputs={"file": file.digest, "name": hashlib.sha256(file.name.encode()).hexdigest()},
        packages=("data_prep",),
        libraries=LIBRARIES,
    )


def _commit_document(
    file: SourceFile, print_: str, outcome: ReadDocument | str, config: DocumentsConfig, store: Store
) -> Committed:
    with store.attempt("document", print_) as attempt:
        if isinstance(outcome, str):
            summary = {"pages": 0, "reason": outcome}
        else:
            summary = {"pages": outcome.pages, "reason": None}
            samples = (_sample(file.name, unit, config) for unit in outcome.units)
            write_split(attempt.path, samples, (), per_shard=1_000_000)
        (attempt.path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        return attempt.commit(
            inputs={"file": file.digest}, configuration=asdict(config), counts={"pages": summary["pages"]}
        )


def _sample(document: str, unit: Unit, config: DocumentsConfig) -> Sample:
    fields = {name: value for name, value in vars(unit).items()}
    return Sample(
        key=sample_key(document, unit.page, unit.block),
        document=document,
        # Longer text than one block may have comes with an image whose text could not be cut (no boxes).
        trainable=config.min_characters <= len(unit.text)
        and (config.unit == "page" or len(unit.text) <= 2 * config.max_block_characters),
        **fields,
    )


def _load_reading(file: SourceFile, committed: Committed) -> Reading:
    summary = json.loads((committed.path / "summary.json").read_text(encoding="utf-8"))
    return Reading(
        source=file,
        samples=None if summary["reason"] else committed,
        pages=summary["pages"],
        reason=summary["reason"],
    )


def _check_usable(
    folder: Path, readings: list[Reading], usable: list[Reading], config: DocumentsConfig
) -> None:
    bad = len(readings) - len(usable)
    if usable and bad <= config.max_quarantined_share * len(readings):
        return
    first = next(reading for reading in readings if reading.reason)
    raise NoUsableDocuments(
        f"{folder}: {bad} of {len(readings)} document(s) cannot be used (limit {config.max_quarantined_share:.0%}); "
        f"the first is {first.source.name}: {first.reason}"
    )


def _assign(
    usable: list[Reading], sources: dict[str, ShardSource], config: DocumentsConfig
) -> tuple[dict[str, dict[int, str]], list[str]]:
    """Return {document: {page: split}} and warnings for the report."""
    shares = {"test_share": config.test_share, "validation_share": config.validation_share, "seed": config.seed}
    with_text = sum(any(entry["trainable"] for entry in source.entries) for source in sources.values())
    if with_text >= config.min_documents_to_split:
        by_document = assign_splits(sources, **shares)
        return {
            r.source.name: dict.fromkeys(range(1, r.pages + 1), by_document[r.source.name]) for r in usable
        }, []
    runs = {r.source.name: page_runs(range(1, r.pages + 1), _RUNS_OF_ONE_DOCUMENT) for r in usable}
    by_run = assign_splits(
        sorted({f"{name}#{run}" for name, pages in runs.items() for run in pages.values()}), **shares
    )
    warning = (
        f"Only {with_text} document(s) with text: train and test are different pages of the same documents, "
        f"so the scores are optimistic. Add documents (at least {config.min_documents_to_split})."
    )
    return {
        name: {page: by_run[f"{name}#{run}"] for page, run in pages.items()} for name, pages in runs.items()
    }, [warning]


@dataclass(frozen=True, kw_only=True)
class ChosenSample:
    """A sample that a split will hold: where it lies, and what is needed to plan with it."""

    source: ShardSource
    position: int
    key: str
    document: str
    page: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Chosen:
    samples: list[ChosenSample]
    dropped: dict[str, int]


def _choose_samples(
    name: str,
    sources: dict[str, ShardSource],
    splits: dict[str, dict[int, str]],
    texts: TextDuplicates,
    images: ImageDuplicates,
) -> Chosen:
    """List the samples of one split without exact repeats and without near-duplicates of earlier splits.

    `texts` and `images` hold the earlier splits' samples and receive this one's.
    """
    samples: list[ChosenSample] = []
    dropped = {"exact_duplicates": 0, "near_duplicates_of_other_splits": 0}
    seen: set[str] = set()
    for document, source in sources.items():
        for position in range(len(source)):
            sample = source[position]
            if splits[document][sample.page] != name:
                continue
            if sample.text and sample.text.casefold() in seen:
                dropped["exact_duplicates"] += 1
                continue
            if texts.seen(sample.text) if sample.text else images.seen(sample.image()):
                dropped["near_duplicates_of_other_splits"] += 1
                continue
            seen.add(sample.text.casefold())
            samples.append(
                ChosenSample(
                    source=source,
                    position=position,
                    key=sample.key,
                    document=document,
                    page=sample.page,
                    text=sample.text if sample.trainable else "",
                )
            )
    if name != SPLITS[0]:
        for chosen in samples:
            sample = chosen.source[chosen.position]
            if sample.text:
                texts.add(sample.key, sample.text)
            else:
                images.add(sample.image())
    return Chosen(samples=samples, dropped=dropped)


def _user_queries(folder: Path) -> list[UserQuery] | None:
    path = folder / USER_QUERIES
    if not path.is_file():
        return None
    try:
        return read_user_queries(path)
    except UnreadableDocument as error:
        raise NoUsableDocuments(f"{path}: {error}") from error


def _queries_of(
    samples: list[ChosenSample], user_queries: list[UserQuery] | None, config: DocumentsConfig
) -> tuple[list[Query], int]:
    """Return the split's queries (the user's where there are any) and how many user queries lie elsewhere."""
    if user_queries is not None:
        pages: dict[tuple[str, int], list[str]] = {}
        for sample in samples:
            pages.setdefault((sample.document, sample.page), []).append(sample.key)
        return match_user_queries(user_queries, pages)
    made = [
        make_queries(
            sample.key,
            sample.text,
            count=config.queries_per_sample,
            word_share=config.query_word_share,
            seed=config.seed,
        )
        for sample in samples
    ]
    return [query for queries in made for query in queries], 0


def _commit_split(
    name: str, samples: list[ChosenSample], queries: list[Query], config: DocumentsConfig, store: Store
) -> Committed:
    stage = f"documents-{name}"
    sources = {sample.document: sample.source for sample in samples}
    inputs = {document: source.digest() for document, source in sources.items()}
    plan = json.dumps([[sample.key for sample in samples], [query.to_json() for query in queries]])
    split_fingerprint = fingerprint(
        stage=stage,
        schema_version=SCHEMA_VERSION,
        configuration=asdict(config),
        inputs=inputs | {"plan": hashlib.sha256(plan.encode()).hexdigest()},
        packages=("data_prep",),
        libraries=LIBRARIES,
    )
    committed = store.find(stage, split_fingerprint)
    if committed is not None:
        return committed
    with store.attempt(stage, split_fingerprint) as attempt:
        contents = (sample.source[sample.position] for sample in samples)
        counts = write_split(attempt.path, contents, queries, config.samples_per_shard)
        return attempt.commit(inputs=inputs, configuration=asdict(config), counts=counts)


def _commit_inventory(
    readings: list[Reading],
    unsupported: list[str],
    splits: dict[str, dict[int, str]],
    dropped: dict[str, dict[str, int]],
    warnings: list[str],
    outputs: dict[str, Committed],
    config: DocumentsConfig,
    store: Store,
) -> Committed:
    """Commit what became of every file: `inventory.json`."""
    documents = [
        {
            "path": r.source.name,
            "status": "quarantined" if r.reason else "used",
            "reason": r.reason,
            "pages": r.pages,
            "samples": len(ShardSource(r.samples.path)) if r.samples else 0,
            "splits": sorted(set(splits[r.source.name].values())) if r.samples else [],
        }
        for r in readings
    ]
    counts = {
        "used": sum(not r.reason for r in readings),
        "quarantined": sum(bool(r.reason) for r in readings),
        "unsupported": len(unsupported),
    }
    inventory = {
        "documents": documents,
        "unsupported": unsupported,
        "warnings": warnings,
        "counts": counts,
        "splits": {name: output.manifest.counts | dropped[name] for name, output in outputs.items()},
    }
    text = json.dumps(inventory, ensure_ascii=False, indent=1)
    inputs = {name: output.manifest.content_digest for name, output in outputs.items()}
    inventory_fingerprint = fingerprint(
        stage="documents-inventory",
        schema_version=SCHEMA_VERSION,
        configuration=asdict(config),
        inputs=inputs | {"inventory": hashlib.sha256(text.encode()).hexdigest()},
        packages=("data_prep",),
        libraries=LIBRARIES,
    )
    committed = store.find("documents-inventory", inventory_fingerprint)
    if committed is not None:
        return committed
    with store.attempt("documents-inventory", inventory_fingerprint) as attempt:
        (attempt.path / "inventory.json").write_text(text, encoding="utf-8")
        return attempt.commit(inputs=inputs, configuration=asdict(config), counts=counts)
