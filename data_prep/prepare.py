"""A folder of documents becomes three committed splits of samples and an inventory of every file.

    prepared = prepare_documents(Path("documents"), DocumentsConfig(), store, progress, workers=2)

Each document is read once: its samples are committed under the file's digest, so that a changed file is
the only one that is read again.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.choosing import Candidate, assign_pages, choose_samples, list_candidates
from data_prep.config import DocumentsConfig
from data_prep.errors import NoUsableDocuments, UnreadableDocument
from data_prep.queries import Query, UserQuery, match_user_queries, read_user_queries
from data_prep.reading import (
    LIBRARIES,
    SCHEMA_VERSION,
    USER_QUERIES,
    Progress,
    Reading,
    find_documents,
    read_documents,
)
from data_prep.shards import ShardSource, write_split
from data_prep.splits import SPLITS, ImageDuplicates, TextDuplicates
from infra.fingerprint import fingerprint
from infra.store import Committed, Store


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The committed outputs of one folder of documents."""

    train: Committed
    validation: Committed
    test: Committed
    inventory: Committed


def prepare_documents(
    folder: Path, config: DocumentsConfig, store: Store, progress: Progress, *, workers: int
) -> Prepared:
    """Read, split and shard every document below `folder`; `workers` processes read, with equal results.

    Raises:
        NoUsableDocuments: nothing is left to train and to test on; the message says why.
    """
    files, unsupported = find_documents(folder)
    readings = read_documents(files, config, store, progress, workers=workers)
    usable = [reading for reading in readings if reading.samples is not None]
    _check_usable(folder, readings, usable, config)
    user_queries = _user_queries(folder)
    candidates = list_candidates(usable)
    splits, warnings = assign_pages(usable, candidates, config)
    warnings += _unknown_pages(user_queries, candidates) + _only_searched(candidates, config)
    texts = TextDuplicates(config.near_duplicate_similarity)
    images = ImageDuplicates(config.near_duplicate_image_bits)
    digests = {reading.source.name: reading.samples.manifest.content_digest for reading in usable}
    outputs: dict[str, Committed] = {}
    counts: dict[str, dict[str, int]] = {}
    # Test first: a near-duplicate of a test sample is dropped from the other splits, never the reverse.
    for done, name in enumerate(reversed(SPLITS), start=1):
        chosen = choose_samples(name, candidates, splits, texts, images)
        queries, warning = _queries_of(name, chosen.samples, user_queries, config)
        warnings += warning
        counts[name] = chosen.dropped
        outputs[name] = _commit_split(name, chosen.samples, queries, digests, config, store)
        progress(done, len(SPLITS), "splitting")
    for name, purpose, least in (("test", "test with", 1), ("train", "train on", 2)):
        left = outputs[name].manifest.counts
        if left["queries"] < least or not left["trainable"]:
            raise NoUsableDocuments(
                f"{folder}: {len(usable)} usable document(s) leave not enough text to {purpose} "
                f"({left['trainable']} part(s) with text, at least 1 needed; "
                f"{left['queries']} search queries, at least {least} needed): "
                f"{_why_too_little_is_left(candidates, counts, config)}"
            )
    inventory = _commit_inventory(readings, unsupported, splits, counts, warnings, outputs, config, store)
    return Prepared(**outputs, inventory=inventory)


def _check_usable(
    folder: Path, readings: list[Reading], usable: list[Reading], config: DocumentsConfig
) -> None:
    bad = len(readings) - len(usable)
    if usable and bad <= config.max_quarantined_share * len(readings):
        return
    first = next(reading for reading in readings if reading.reason)
    raise NoUsableDocuments(
        f"{folder}: {bad} of {len(readings)} document(s) cannot be used "
        f"(limit {config.max_quarantined_share:.0%}); "
        f"the first is {first.source.name}: {first.reason}"
    )


def _why_too_little_is_left(
    candidates: list[Candidate], counts: dict[str, dict[str, int]], config: DocumentsConfig
) -> str:
    """Return the reason and the next step, for a split without enough text."""
    if any(sample.made_queries(config) for sample in candidates):
        repeats = sum(count for dropped in counts.values() for count in dropped.values())
        return f"too little text, and {repeats} part(s) of it repeat others; add different pages"
    if any(len(sample.text) > config.max_block_characters for sample in candidates):
        return (
            "text beside page images is longer than one block and has no place in the image; "
            'use unit "page", or PDFs with a text layer'
        )
    return "none of their pages has text; add PDFs with a text layer, or images with a .txt beside them"


def _user_queries(folder: Path) -> list[UserQuery] | None:
    path = folder / USER_QUERIES
    if not path.is_file():
        return None
    try:
        return read_user_queries(path)
    except UnreadableDocument as error:
        raise NoUsableDocuments(f"{path}: {error}") from error


def _unknown_pages(user_queries: list[UserQuery] | None, candidates: list[Candidate]) -> list[str]:
    """Return a warning if user queries name pages that no usable document has."""
    pages = {(sample.document, sample.page): [sample.key] for sample in candidates}
    _, unknown = match_user_queries(user_queries or [], pages)
    if not unknown:
        return []
    return [f"{USER_QUERIES}: {unknown} of {len(user_queries)} queries name unknown pages."]


def _only_searched(candidates: list[Candidate], config: DocumentsConfig) -> list[str]:
    """Return a warning if images have more text than a block may have."""
    count = sum(not one.trainable and len(one.text) >= config.min_characters for one in candidates)
    if not count:
        return []
    return [
        f"{count} page image(s) have more text beside them than one block may have: searched, not trained "
        'on. PDFs with a text layer can be cut into blocks; or use a recipe of unit "page".'
    ]


def _queries_of(
    name: str, samples: list[Candidate], user_queries: list[UserQuery] | None, config: DocumentsConfig
) -> tuple[list[Query], list[str]]:
    """Return the split's queries and warnings for the report.

    The user's queries alone are the test, where any name its pages; other splits have made ones beside them.
    """
    pages: dict[tuple[str, int], list[str]] = {}
    for sample in samples:
        pages.setdefault((sample.document, sample.page), []).append(sample.key)
    matched, _ = match_user_queries(user_queries or [], pages)
    if name == "test" and matched:
        return matched, []
    made = [query for sample in samples for query in sample.made_queries(config)]
    if name == "test" and user_queries and made:
        return made, [f"{USER_QUERIES} has no query for the test pages; they get made ones."]
    return matched + made, []


def _commit_split(
    name: str,
    samples: list[Candidate],
    queries: list[Query],
    digests: dict[str, str],
    config: DocumentsConfig,
    store: Store,
) -> Committed:
    """Commit one split. `digests`: {document: content digest of the samples read from it}."""
    stage = f"documents-{name}"
    inputs = {sample.document: digests[sample.document] for sample in samples}
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
