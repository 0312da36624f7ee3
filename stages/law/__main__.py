"""Judge one run and write its report.

    python -m stages.law JOB.json

Reads the committed cells named in the job, of a sweep with its laboratory (critics, controls, ceilings), and
commits one output: verdict.json, report.html, and figures/ with each figure's picture and its data as CSV and
JSON. Needs no torch and no network.
"""

import csv
import importlib.metadata
import io
import itertools
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_prep.shards import ShardSource
from infra.fingerprint import code_version
from infra.process import MetricsFile, watch_parent
from infra.store import Committed, LocalStore
from stages.law.cells import name_of
from stages.law.evidence import cells_of_the_law, read_evidence
from stages.law.figures import draw_figures, figure_data
from stages.law.read_laboratory import read_laboratory
from stages.law.report import Report, render_report, trainings
from stages.law.samples import sample_pages, sample_searches
from stages.law.verdict import Verdict, judge
from stages.train.job import Job, read_job

STEPS = 4
_THUMBNAIL_PIXELS = (560, 720)
_FILES = {
    "pretrain": "training.json",
    "refine": "training.json",
    "generation": "generation.json",
    "retrieval": "retrieval.json",
    "critic": "critic.json",
}
_LIBRARIES = (
    "lco-pipeline",
    "torch",
    "transformers",
    "deepspeed",
    "peft",
    "numpy",
    "scipy",
    "pytrec-eval-terrier",
)


def main(job_path: Path) -> None:
    """Judge what the job's only cell names."""
    watch_parent()
    job = read_job(job_path)
    (cell,) = job.cells
    report_progress = _progress(job.metrics, cell["fingerprint"])

    sources = dict(job.inputs)
    read = {stage: _read_cells(job.store, stage, cells, sources) for stage, cells in cell["cells"].items()}
    thresholds, steps = job.recipe.law, job.recipe.refine.steps
    generation, retrieval = cells_of_the_law(read["generation"], read["retrieval"], steps)
    report_progress(1, "reading the evidence", {})

    item = "passage" if job.recipe.documents.unit == "block" else "page"
    documents = thresholds.minimum_documents
    evidence = read_evidence(generation, retrieval, minimum_documents=documents, item=item)
    laboratory = None
    if "critic" in read:
        laboratory = read_laboratory(
            read, primary_arm=thresholds.primary_arm, steps=steps, minimum_documents=documents
        )
    verdict = judge(evidence, thresholds, laboratory)
    report_progress(2, "judging", _headline(verdict))

    data = figure_data(verdict, evidence, retrieval, laboratory)
    figures = draw_figures(data, item)
    report_progress(3, "drawing", {})

    image_of = _thumbnails(sources["target_test"], _shown_keys(generation, retrieval))
    page = render_report(
        Report(
            verdict=verdict,
            evidence=evidence,
            data=data,
            figures=figures,
            pages=sample_pages(generation, image_of, verdict.thresholds.sample_pages),
            searches=sample_searches(
                retrieval,
                verdict.thresholds.primary_arm,
                image_of,
                count=verdict.thresholds.sample_searches,
                images=verdict.thresholds.images_per_search,
            ),
            inventories={
                name: _read(sources[f"{name}_inventory"].path / "inventory.json")
                for name in ("target", "base")
            },
            provenance=_provenance(job, cell),
            documents=Path(job.recipe.target_documents).name,
            inputs={name: source.manifest.fingerprint for name, source in sources.items()},
            trainings=trainings({stage: read[stage] for stage in ("pretrain", "refine")}),
            recipe=asdict(job.recipe),
        )
    )
    with job.store.attempt("law", cell["fingerprint"]) as attempt:
        _write(attempt.path, verdict, page)
        _write_figures(attempt.path / "figures", figures, data)
        attempt.commit(
            inputs={name: source.manifest.content_digest for name, source in sources.items()},
            configuration=asdict(job.recipe.law),
            counts={"queries": evidence.queries, "doses": len(evidence.doses), "cells": len(retrieval)},
        )
    report_progress(STEPS, f"verdict: {verdict.verdict}", {})


def _read_cells(
    store: LocalStore, stage: str, cells: list[dict], sources: dict[str, Committed]
) -> list[dict]:
    """What each committed cell of a stage measured; adds the cells to ``sources`` for the manifest."""
    contents = []
    for cell in cells:
        committed = sources[name_of(stage, cell)] = store.open(cell["path"])
        contents.append(_read(committed.path / _FILES[stage]))
    return contents


def _shown_keys(generation: list[dict], retrieval: list[dict]) -> set[str]:
    """Keys of the samples whose images the report may show."""
    pages = (example for cell in generation for example in cell["corpora"]["target"]["examples"])
    examples = [example for cell in retrieval for example in cell["examples"]]
    hits = (hit for example in examples for hit in example["top"])
    answers = {key for example in examples for key in example["relevant"]}
    return {shown["key"] for shown in itertools.chain(pages, hits)} | answers


def _thumbnails(test: Committed, keys: set[str]) -> Callable[[str], bytes]:
    """key -> PNG bytes of the page, small enough for a report."""
    samples = ShardSource(test.path)
    positions = samples.positions_of(keys)

    def image_of(key: str) -> bytes:
        image = samples[positions[key]].image()
        image.thumbnail(_THUMBNAIL_PIXELS)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    return image_of


def _headline(verdict: Verdict) -> dict[str, float]:
    """What the tracker shows beside the verdict."""
    compared = verdict.comparisons
    return {
        "ndcg_at_10_gain": compared.paired.value,
        "ndcg_at_10_gain_low": compared.paired.low,
        "ndcg_at_10_gain_high": compared.paired.high,
        "times_random": compared.times_random.value,
        "generative_gain": compared.gain.value,
        "forgetting": compared.forgetting.value,
        "spearman": compared.spearman.value,
    }


def _provenance(job: Job, cell: dict) -> dict[str, str]:
    versions = (f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    return {
        **job.provenance,
        "recipe": job.recipe.name,
        "fingerprint": cell["fingerprint"],
        "code": code_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "versions": ", ".join((f"Python {platform.python_version()}", *versions)),
    }


def _write(folder: Path, verdict: Verdict, page: str) -> None:
    _dump(folder / "verdict.json", verdict.to_json())
    (folder / "report.html").write_text(page, encoding="utf-8")


def _write_figures(
    folder: Path, figures: Mapping[str, bytes], data: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    """Every figure as a picture; every figure's and every table's rows as CSV and JSON."""
    folder.mkdir()
    for name, png in figures.items():
        (folder / f"{name}.png").write_bytes(png)
    for name, rows in data.items():
        _dump(folder / f"{name}.json", rows)
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def _dump(path: Path, content: Any) -> None:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def _progress(metrics: MetricsFile, cell: str) -> Callable[[int, str, dict[str, float]], None]:
    def report(step: int, label: str, values: dict[str, float]) -> None:
        metrics.write(cell=cell, step=step, label=label, done=step, total=STEPS, metrics=values)

    return report


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
