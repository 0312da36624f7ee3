"""A folder of documents as committed shards: one task a folder."""

import time
from pathlib import Path

from pipelines.console import clock_time, printable
from pipelines.runner import PipelineRun
from pipelines.stage_table import Output
from stages.cells import Cell

Documents = dict[str, Output]
"""Of the target's folder: "target_train", "target_train_queries", the same of "validation" and "test", and
"target_inventory"."""
QUARANTINED_SHOWN = 10


def prepare_documents(run: PipelineRun, which: str, folder: str) -> Documents:
    """Shards of one folder, as a task. Raises data_prep.errors.NoUsableDocuments."""
    return run.as_task(f"prepare {which} documents", lambda: _prepare(run, which, folder))


def _prepare(run: PipelineRun, which: str, folder: str) -> Documents:
    from data_prep import prepare  # slow to import: codecs, search for repeats

    title, began, started_at = f"{which} documents", time.monotonic(), time.time()
    run.reporter.stage_started(title, cells=1, reused=0)
    try:
        prepared = prepare.prepare_documents(
            Path(folder),
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
    for problem in problems[:QUARANTINED_SHOWN]:
        run.reporter.note(f"  {problem}")
    if len(problems) > QUARANTINED_SHOWN:
        run.reporter.note(f"  ... and {len(problems) - QUARANTINED_SHOWN} more, all in the report")
    measured = {"documents/used": used, "documents/quarantined": quarantined}
    splits = {name: one for name, one in outputs.items() if name != "inventory"}
    run.record.documents(which, folder, splits, measured, seconds=time.monotonic() - began if made else None)
    return {f"{which}_{name}": one for name, one in outputs.items()}


def inventory_summary(inventory: Output) -> tuple[int, int, list[str]]:
    """(documents used, documents quarantined, one line per quarantined document or warning)."""
    content = inventory.json("inventory.json")
    used = sum(one["status"] == "used" for one in content["documents"])
    quarantined = [one for one in content["documents"] if one["status"] == "quarantined"]
    lines = [f"{one['path']}: {one['reason']}" for one in quarantined] + content.get("warnings", [])
    return used, len(quarantined), [printable(one) for one in lines]
