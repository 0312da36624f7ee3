"""A folder of documents becomes three committed splits of samples, their queries, and an inventory.

Each document is read once: its samples are committed under the file's digest, so that a changed file is
the only one that is read again. Queries are outputs of their own: other ones repeat nothing that reads
samples only. The inventory tells of every file. It is named by what decides the splits, and names them: where
nothing has changed, nothing is split again.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.choosing import (
    Candidate,
    Place,
    assign_pages,
    choose_queries,
    choose_samples,
    list_candidates,
)
from data_prep.config import DocumentsConfig
from data_prep.errors import NoUsableDocuments
from data_prep.queries import Query, write_queries
from data_prep.reading import Progress, Reading, read_documents
from data_prep.shards import ShardSource
from data_prep.source_files import USER_QUERIES, Unsupported, find_documents, shown_name
from data_prep.user_queries import (
    Assigned,
    UserQuery,
    assign_user_queries,
    in_words,
    named_in,
    none_is_used,
    read_user_queries,
)
from data_prep.write_shards import write_split
from infra.fingerprint import fingerprint
from infra.store import Committed, Store


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The committed outputs of one folder of documents."""

    train: Committed
    train_queries: Committed
    validation: Committed
    validation_queries: Committed
    test: Committed
    test_queries: Committed
    inventory: Committed


def prepare_documents(
    folder: Path, config: DocumentsConfig, store: Store, progress: Progress, *, workers: int
) -> Prepared:
    """Read, split and shard every document below `folder`; `workers` processes read, with equal results.

    Raises:
        NoUsableDocuments: nothing is left to train and to test on; the message says why.
    """
    files, unsupported = find_documents(folder)
    of_user = folder / USER_QUERIES
    user_queries = read_user_queries(of_user) if os.path.lexists(of_user) else None
    readings = read_documents(files, config.reading, store, progress, workers=workers)
    unsupported += _texts_of_several_pages(folder, readings)
    usable = _usable(folder, readings, config)
    inventory_fingerprint = _inventory_fingerprint(readings, unsupported, user_queries, config)
    if known := _known(inventory_fingerprint, store):
        return known
    candidates = list_candidates(usable, config)
    splits, warnings = assign_pages(usable, candidates, config)
    chosen, dropped = choose_samples(candidates, splits, config)
    asked = assign_user_queries(user_queries or (), named_in(readings, unsupported, chosen))
    if user_queries and not any(asked.queries.values()):
        raise NoUsableDocuments(f"{of_user}: {none_is_used(asked.unused)}")
    outputs: dict[str, Committed] = {}
    queries = choose_queries(chosen, asked.queries)
    for done, name in enumerate(chosen, start=1):
        outputs[name] = _commit_split(name, chosen[name], config, store)
        outputs[f"{name}_queries"] = _commit_queries(name, queries[name], outputs[name], config, store)
        progress(done, len(chosen), "splitting")
    _check_enough(folder, usable, outputs, _why_too_little_is_left(candidates, dropped, config))
    warnings += _warnings(user_queries, asked, candidates, config)
    became = {
        "documents": _what_became_of_each(readings, unsupported, splits),
        "warnings": warnings,
        "unused_queries": in_words(asked.unused),
        "counts": {
            "used": len(usable),
            "quarantined": len(readings) - len(usable),
            "unsupported": len(unsupported),
            "refused_pages": sum(r.refused_pages for r in usable),
            "left_out_characters": sum(sum(r.left_out_characters.values()) for r in usable),
        },
        "splits": {name: _counts(name, outputs) | dropped[name] for name in chosen},
        "outputs": {name: output.manifest.fingerprint for name, output in outputs.items()},
    }
    inventory = _commit(
        "documents-inventory",
        inventory_fingerprint,
        inputs={name: output.manifest.content_digest for name, output in outputs.items()},
        write=lambda folder: _write_inventory(folder, became),
        config=config,
        store=store,
    )
    return Prepared(**outputs, inventory=inventory)


def _check_enough(folder: Path, usable: list[Reading], outputs: dict[str, Committed], why: str) -> None:
    """Raise NoUsableDocuments where a split has too little to test with or to train on."""
    for name, purpose, least in (("test", "test with", 1), ("train", "train on", 2)):
        left = _counts(name, outputs)
        if left["queries"] < least or not left["trainable"]:
            raise NoUsableDocuments(
                f"{folder}: {len(usable)} usable document(s) leave not enough text to {purpose} "
                f"({left['trainable']} part(s) with text, at least 1 needed; "
                f"{left['queries']} search queries, at least {least} needed): {why}"
            )


def _texts_of_several_pages(folder: Path, readings: list[Reading]) -> list[Unsupported]:
    """Texts that were not read because of their image; another image of the same name may take its text."""
    taken = {r.source.beside for r in readings if r.pages == 1}
    left = {r.source.beside: r.pages for r in readings if r.pages > 1 and r.source.beside}
    return [
        Unsupported(
            name=shown_name(text.relative_to(folder)),
            reason=f"beside an image of {pages:,} pages: it cannot say which page its words are on",
        )
        for text, pages in left.items()
        if text not in taken
    ]


def _inventory_fingerprint(
    readings: list[Reading],
    unsupported: list[Unsupported],
    user_queries: list[UserQuery] | None,
    config: DocumentsConfig,
) -> str:
    """Over everything that decides the splits and what is said of each file."""
    content = [
        [[r.source.name, r.reason or r.samples.manifest.content_digest] for r in readings],
        [[one.name, one.reason] for one in unsupported],
        user_queries and [asdict(query) for query in user_queries],
    ]
    return _fingerprint("documents-inventory", {}, json.dumps(content), config)


def _known(inventory_fingerprint: str, store: Store) -> Prepared | None:
    """What an earlier run made of the same; None where it, or a split of it, is not there."""
    inventory = store.find("documents-inventory", inventory_fingerprint)
    if inventory is None:
        return None
    names = inventory.json("inventory.json")["outputs"]
    outputs = {name: store.find(_stage_of(name), fingerprint) for name, fingerprint in names.items()}
    return Prepared(**outputs, inventory=inventory) if all(outputs.values()) else None


def _usable(folder: Path, readings: list[Reading], config: DocumentsConfig) -> list[Reading]:
    usable = [reading for reading in readings if reading.samples is not None]
    bad = [reading for reading in readings if reading.samples is None]
    if usable and len(bad) <= config.max_quarantined_share * len(readings):
        return usable
    raise NoUsableDocuments(
        f"{folder}: {len(bad)} of {len(readings)} document(s) cannot be used (limit "
        f"{config.max_quarantined_share:.0%}); the first is {bad[0].source.name}: {bad[0].reason}"
    )


def _why_too_little_is_left(
    candidates: list[Candidate], dropped: dict[str, dict[str, int]], config: DocumentsConfig
) -> str:
    """Return the reason and the next step, for a split without enough text."""
    if any(sample.made_queries for sample in candidates):
        repeats = sum(sum(counts.values()) for counts in dropped.values())
        return f"too little text, and {repeats} part(s) of it repeat others; add different pages"
    if any(len(sample.text) > config.max_block_characters for sample in candidates):
        return (
            "text beside page images is longer than one block and has no place in the image; "
            'use unit "page", or PDFs with a text layer'
        )
    return "none of their pages has text; add PDFs with a text layer, or images with a .txt beside them"


def _warnings(
    user_queries: list[UserQuery] | None,
    asked: Assigned,
    candidates: list[Candidate],
    config: DocumentsConfig,
) -> list[str]:
    """What the report is to say of the user's queries, and of images with too much text."""
    warnings = []
    if user_queries == []:
        warnings.append(f"{USER_QUERIES} holds no line: all queries are made.")
    if asked.unused:
        warnings.append(f"{USER_QUERIES}: {len(asked.unused):,} of {len(user_queries):,} lines are not used.")
    if asked.parted:
        warnings.append(
            f"{USER_QUERIES}: {asked.parted:,} text(s) have pages in several splits. Each is of the first of "
            "test, validation and train, with its pages there only: what is tested may not be trained on."
        )
    if user_queries and not asked.queries["test"]:
        warnings.append(f"{USER_QUERIES} has no query for the test pages; they get made ones.")
    searched = sum(not one.trainable and len(one.text) >= config.min_characters for one in candidates)
    if searched:
        warnings.append(
            f"{searched} page image(s) have more text beside them than one block may have: searched, not "
            'trained on. PDFs with a text layer can be cut into blocks; or use a recipe of unit "page".'
        )
    return warnings


def _what_became_of_each(
    readings: list[Reading], unsupported: list[Unsupported], splits: dict[Place, str]
) -> list[dict]:
    """Return an entry for all in the folder, but texts read with their images, and the user's queries."""
    splits_of: dict[str, set[str]] = {}
    for (document, _), split in splits.items():
        splits_of.setdefault(document, set()).add(split)
    nothing = {
        "pages": 0,
        "samples": 0,
        "splits": [],
        "refused_pages": 0,
        "first_refused_pages": [],
        "left_out_characters": {},
    }
    return [
        {
            "path": r.source.name,
            "status": "quarantined" if r.reason else "used",
            "reason": r.reason,
            "pages": r.pages,
            "samples": len(ShardSource(r.samples.path)) if r.samples else 0,
            "splits": sorted(splits_of.get(r.source.name, ())),
            "refused_pages": r.refused_pages,
            "first_refused_pages": r.first_refused_pages,
            "left_out_characters": r.left_out_characters,
        }
        for r in readings
    ] + [{"path": one.name, "status": "unsupported", "reason": one.reason} | nothing for one in unsupported]


def _stage_of(name: str) -> str:
    """Where the store has an output: `documents-train`, `documents-train-queries`."""
    return f"documents-{name.replace('_', '-')}"


def _counts(name: str, outputs: dict[str, Committed]) -> dict[str, int]:
    """Of a split and its queries."""
    return outputs[name].manifest.counts | outputs[f"{name}_queries"].manifest.counts


def _commit_split(name: str, samples: list[Candidate], config: DocumentsConfig, store: Store) -> Committed:
    stage, contents = _stage_of(name), (sample.source[sample.position] for sample in samples)
    inputs = {sample.document: sample.content_digest for sample in samples}
    plan = json.dumps([sample.key for sample in samples])
    return _commit(
        stage,
        _fingerprint(stage, inputs, plan, config),
        inputs=inputs,
        write=lambda folder: write_split(folder, contents, config.samples_per_shard),
        config=config,
        store=store,
    )


def _commit_queries(
    name: str, queries: list[Query], split: Committed, config: DocumentsConfig, store: Store
) -> Committed:
    stage, inputs = _stage_of(f"{name}_queries"), {name: split.manifest.content_digest}

    def write(folder: Path) -> dict:
        write_queries(folder, queries)
        return {"queries": len(queries)}

    name = _fingerprint(stage, inputs, json.dumps([query.to_json() for query in queries]), config)
    return _commit(stage, name, inputs=inputs, write=write, config=config, store=store)


def _write_inventory(folder: Path, became: dict) -> dict:
    text = json.dumps(became, ensure_ascii=False, indent=1)
    (folder / "inventory.json").write_text(text, encoding="utf-8")
    return became["counts"]


def _fingerprint(stage: str, inputs: dict[str, str], plan: str, config: DocumentsConfig) -> str:
    planned = {"plan": hashlib.sha256(plan.encode()).hexdigest()}
    return fingerprint(
        stage=stage, program="data_prep.prepare", configuration=config, inputs=inputs | planned
    )


def _commit(
    stage: str,
    output_fingerprint: str,
    *,
    inputs: dict[str, str],
    write: Callable[[Path], dict],
    config: DocumentsConfig,
    store: Store,
) -> Committed:
    """Return the output of this name; `write` fills its folder, where it is new, and returns its counts."""
    if committed := store.find(stage, output_fingerprint):
        return committed
    with store.attempt(stage, output_fingerprint) as attempt:
        counts = write(attempt.path)
        return attempt.commit(inputs=inputs, configuration=asdict(config), counts=counts)
