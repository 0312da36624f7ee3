"""Judge one run or sweep and write its report: verdict.json, report.html and figures/.

    python -m stages.law.program JOB.json

Reads the small files of the outputs named in the job; needs no torch and no network.
"""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from infra.fingerprint import code_version
from stages.law.config import LawSettings
from stages.law.reading import read_measurements
from stages.law.report import page
from stages.law.report.sentences import Story, tell
from stages.law.verdict import Findings, find
from stages.program import Job, Task, read_job

_LIBRARIES = (
    *("lco-pipeline", "torch", "transformers", "deepspeed", "peft", "numpy", "scipy", "pandas"),
    "pytrec-eval-terrier",
)


def main(job_path: Path) -> None:
    """Judge what the job's only task names."""
    job = read_job(job_path, LawSettings)
    (task,) = job.tasks
    inputs = {**job.inputs, **task.inputs}

    measurements = read_measurements(inputs.values(), job.store, job.settings)
    job.tell(task, "reading the evidence", step=1, done=1, total=4)
    findings = find(measurements, job.settings.law, job.settings.item)
    job.tell(task, "judging", step=2, done=2, total=4)

    def write_report(folder: Path) -> None:
        provenance = _provenance(job, task)
        page.write(folder, findings, inputs=inputs, settings=job.settings, provenance=provenance)
        job.tell(task, "drawing", step=3, done=3, total=4)

    counts = {"queries": measurements.test.queries, "doses": len(measurements.doses)}
    counts["cells"] = len(measurements.cells("retrieval"))
    verdict = verdict_json(findings, tell(findings))
    job.commit(task, {"verdict.json": verdict, ".": write_report}, counts=counts)
    job.tell(task, f"verdict: {findings.verdict}", step=4, done=4, total=4)


def verdict_json(findings: Findings, story: Story) -> dict[str, Any]:
    """The content of verdict.json: every number with its interval, and what they say in words.

    `table` has one row for each dose; "readings", "prediction" and "sweep" are there where there is one.
    """
    compared = {name: value for name, value in vars(findings.compared).items() if value is not None}
    paired = vars(compared.pop("paired"))
    content = {
        "verdict": findings.verdict,
        "decision": story.decision,
        "search_with": story.search_with,
        "reasons": story.reasons,
        "notes": story.notes,
        "checks": story.checks,
        "paired": {"difference": paired["value"], "low": paired["low"], "high": paired["high"]},
        "comparisons": compared,
        "table": _table(findings),
        "baselines": {
            name: float(scores["ndcg@10"].mean())
            for name, scores in findings.measurements.test.baselines.items()
        },
        "thresholds": findings.thresholds,
    }
    if findings.readings:
        content["readings"] = findings.readings
    if findings.best_reading is not None:
        content["best_reading"] = findings.best_reading
    if findings.prediction is not None:
        content["prediction"] = findings.prediction
    if findings.controls is not None:
        names = ("controls", "explained_by", "bounds", "generative_order", "ceilings", "ceiling_trend")
        content["sweep"] = {name: getattr(findings, name) for name in names}
    return TypeAdapter(dict[str, Any]).dump_python(content, mode="json")


def _table(findings: Findings) -> list[dict[str, Any]]:
    """One row for each dose: how it reads both languages, and every retrieval score by arm."""
    rows = {dose: {"dose": dose, "retrieval": {}} for dose in findings.measurements.doses}
    for (quantity, metric, dose, arm), estimate in findings.estimates.items():
        if quantity in ("target", "base"):
            rows[dose][metric if quantity == "target" else f"base_{metric}"] = estimate
        else:
            name = metric if quantity == "query_to_image" else quantity
            rows[dose]["retrieval"].setdefault(arm, {})[name] = estimate
    return list(rows.values())


def _provenance(job: Job, task: Task) -> dict[str, str]:
    versions = (f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    return {
        **job.provenance,
        "recipe": job.settings.recipe["name"],
        "fingerprint": task.fingerprint,
        "code": code_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "versions": ", ".join((f"Python {platform.python_version()}", *versions)),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
