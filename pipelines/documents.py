"""A folder of documents as committed shards: one task a folder."""

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from data_prep.config import DocumentsConfig
from data_prep.queries import USER_QUERIES
from data_prep.reading import Progress, find_documents
from infra.fingerprint import fingerprint
from infra.store import Store
from pipelines.console import clock_time, printable
from pipelines.runner import PipelineRun
from pipelines.stage_table import Output
from stages.cells import Cell

Documents = dict[str, Output]
"""{"target_train", "target_validation", "target_test", "target_inventory"}, of the target's folder."""
SPLITS = ("train", "validation", "test")
PREPARED = (*SPLITS, "inventory")
QUARANTINED_SHOWN = 10


def prepare_documents(run: PipelineRun, which: str, folder: str) -> Documents:
    """Shards of one folder, as a task. Raises data_prep.errors.NoUsableDocuments."""
    return run.as_task(f"prepare {which} documents", lambda: _prepare(run, which, folder))


def _prepare(run: PipelineRun, which: str, folder: str) -> Documents:
    title, began, started_at = f"{which} documents", time.monotonic(), time.time()
    run.reporter.stage_started(title, cells=1, reused=0)
    try:
        prepared = prepare_once(
            Path(folder),
            run.recipe.documents,
            run.store,
            lambda done, total, label: run.reporter.progress(label=label, step=done, total=total),
            workers=run.settings.processes,
        )
    except BaseException:
        run.reporter.stage_finished(f"{title}: stopped")
        raise
    outputs = {name: Output.of(getattr(prepared, name), Cell()) for name in PREPARED}
    used, quarantined, problems = inventory_summary(outputs["inventory"])
    made = [one for one in outputs.values() if (one.path / "manifest.json").stat().st_mtime >= started_at]
    verb = f"done ({clock_time(time.monotonic() - began)})" if made else "reused"
    run.reporter.stage_finished(f"{title}: {verb}, {used} used, {quarantined} could not be used")
    for problem in problems[:QUARANTINED_SHOWN]:
        run.reporter.note(f"  {problem}")
    if len(problems) > QUARANTINED_SHOWN:
        run.reporter.note(f"  ... and {len(problems) - QUARANTINED_SHOWN} more, all in the report")
    measured = {"documents/used": used, "documents/quarantined": quarantined}
    splits = {name: outputs[name] for name in SPLITS}
    run.record.documents(which, folder, splits, measured, seconds=time.monotonic() - began if made else None)
    return {f"{which}_{name}": one for name, one in outputs.items()}


def prepare_once(
    folder: Path, config: DocumentsConfig, store: Store, progress: Progress, *, workers: int
) -> Any:
    """`data_prep.prepare.prepare_documents`, or at once what it made of the same files in an earlier run.

    Not where a document could not be used: that may have been the machine's fault, and is tried again.
    """
    named = _name(folder, config)
    known = store.find("documents", named)
    if known is not None:
        names = known.json("prepared.json")
        found = {name: store.find(f"documents-{name}", names[name]) for name in PREPARED}
        if all(found.values()):
            return SimpleNamespace(**found)
    from data_prep.prepare import prepare_documents as prepare  # slow to import: codecs, duplicate search

    prepared = prepare(folder, config, store, progress, workers=workers)
    made = {name: getattr(prepared, name).manifest for name in PREPARED}
    unchanged = named == _name(folder, config)  # while it was prepared
    if known is None and unchanged and not made["inventory"].counts["quarantined"]:
        with store.attempt("documents", named) as attempt:
            names = {name: manifest.fingerprint for name, manifest in made.items()}
            (attempt.path / "prepared.json").write_text(json.dumps(names), encoding="utf-8")
            inputs = {name: manifest.content_digest for name, manifest in made.items()}
            attempt.commit(inputs=inputs, configuration=asdict(config), counts=made["inventory"].counts)
    return prepared


def _name(folder: Path, config: DocumentsConfig) -> str:
    """A fingerprint of every file that is read."""
    files, unsupported = find_documents(folder)
    queries = folder / USER_QUERIES
    asked = queries.read_bytes() if queries.is_file() else b""
    seen = json.dumps([[(file.name, file.digest) for file in files], unsupported]).encode()
    inputs = {"files": hashlib.sha256(seen).hexdigest(), "queries": hashlib.sha256(asked).hexdigest()}
    return fingerprint(stage="documents", program="data_prep.prepare", configuration=config, inputs=inputs)


def inventory_summary(inventory: Output) -> tuple[int, int, list[str]]:
    """(documents used, documents quarantined, one line per quarantined document or warning)."""
    content = inventory.json("inventory.json")
    quarantined = [one for one in content["documents"] if one["status"] == "quarantined"]
    lines = [f"{one['path']}: {one['reason']}" for one in quarantined] + content.get("warnings", [])
    return len(content["documents"]) - len(quarantined), len(quarantined), [printable(one) for one in lines]
