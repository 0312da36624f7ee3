"""A folder of documents as committed shards: one task a folder."""

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_prep.source_files import USER_QUERIES
from infra.bucket import open_bucket
from infra.bucket_folder import fetch_folder
from infra.settings import bucket_address
from pipelines.console import clock_time, printable
from pipelines.runner import PipelineRun
from pipelines.stage_table import Output
from stages.cells import Cell

Documents = dict[str, Output]
"""Of the target's folder: "target_train", "target_train_queries", the same of "validation" and "test", and
"target_inventory"."""
SHOWN = 10


def prepare_documents(run: PipelineRun, which: str, folder: str) -> Documents:
    """Shards of one folder, as a task. Raises data_prep.errors.NoUsableDocuments."""
    return run.as_task(f"prepare {which} documents", lambda: _prepare(run, which, folder))


def _prepare(run: PipelineRun, which: str, folder: str) -> Documents:
    from data_prep import prepare  # slow to import: codecs, search for repeats

    title, began, started_at = f"{which} documents", time.monotonic(), time.time()
    run.reporter.stage_started(title, cells=1, reused=0)
    try:
        prepared = prepare.prepare_documents(
            _local(run, folder),
            run.recipe.documents,
            run.store,
            lambda done, total, label: run.reporter.progress(label=label, step=done, total=total),
            workers=run.settings.processes,
        )
    except BaseException:
        run.reporter.stage_finished(f"{title}: stopped")
        raise
    outputs = {name: Output.of(committed, Cell()) for name, committed in vars(prepared).items()}
    used, quarantined, problems = inventory_summary(outputs["inventory"])
    made = [one for one in outputs.values() if (one.path / "manifest.json").stat().st_mtime >= started_at]
    verb = f"done ({clock_time(time.monotonic() - began)})" if made else "reused"
    run.reporter.stage_finished(f"{title}: {verb}, {used} used, {quarantined} could not be used")
    for problem in problems:
        run.reporter.note(f"  {problem}")
    measured = {"documents/used": used, "documents/quarantined": quarantined}
    splits = {name: one for name, one in outputs.items() if name != "inventory"}
    run.record.documents(which, folder, splits, measured, seconds=time.monotonic() - began if made else None)
    return {f"{which}_{name}": one for name, one in outputs.items()}


def _local(run: PipelineRun, folder: str) -> Path:
    """The folder itself, or that into which a bucket's documents are fetched."""
    address = bucket_address(folder)
    if address is None:
        return Path(folder)
    name = hashlib.sha256(address.encode()).hexdigest()[:16]
    place = run.settings.output / "documents" / name

    def told(done: int, total: int) -> None:
        run.reporter.progress(label=f"fetching {address}", step=done, total=total)

    fetch_folder(open_bucket(address), place, told)
    return place


def inventory_summary(inventory: Output) -> tuple[int, int, list[str]]:
    """(documents used, documents quarantined, lines for the screen: the warnings, the first documents and the
    first of the user's queries that could not be used, and what was left out of the documents used)."""
    content = inventory.json("inventory.json")
    used = sum(one["status"] == "used" for one in content["documents"])
    quarantined = [one for one in content["documents"] if one["status"] == "quarantined"]
    refused = [f"{one['path']}: {one['reason']}" for one in quarantined]
    unused = [f"{USER_QUERIES}: {line}" for line in content["unused_queries"]]
    lines = [*_first(refused), *_left_out(content["documents"]), *content["warnings"], *_first(unused)]
    return used, len(quarantined), [printable(one) for one in lines]


def _left_out(documents: Sequence[dict]) -> list[str]:
    """What of the documents used is in no sample: a line for pages, a line for characters."""
    lines = []
    if of := [one for one in documents if one["refused_pages"]]:
        first, pages = of[0]["first_refused_pages"][0], sum(one["refused_pages"] for one in of)
        lines.append(
            f"{pages:,} page(s) of {len(of):,} document(s) could not be used; the first is page "
            f"{first['page']:,} of {of[0]['path']}: {first['reason']}"
        )
    if of := [one["left_out_characters"] for one in documents if one["left_out_characters"]]:
        reasons = sum(map(Counter, of), Counter())
        told = [f"{reason} ({count:,})" for reason, count in reasons.most_common(SHOWN)]
        more = ["other reasons, in the report"] if len(reasons) > SHOWN else []
        lines.append(
            f"{reasons.total():,} character(s) of {len(of):,} document(s) left out: {', '.join(told + more)}"
        )
    return lines


def _first(lines: Sequence[str]) -> list[str]:
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"... and {more:,} more, in the report"] if more > 0 else [])]
