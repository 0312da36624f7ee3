"""The report: one self-contained HTML page, and every figure as a picture and its rows as CSV and JSON.

Text and file names come from other people's documents. The template escapes everything, the page
forbids scripts and outside resources, and images go in only as PNG or JPEG data.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.samples import Sample
from data_prep.shards import ShardSource
from stages.cells import BEFORE_CL, Cell
from stages.law.bound import BROKEN, HELD, OPEN
from stages.law.config import LawSettings
from stages.law.report import labels
from stages.law.report.figures import draw_figures, figure_tables
from stages.law.report.samples import SHOWN_CHARACTERS, Written, data_uri, sample_pages, sample_searches
from stages.law.report.sentences import bounds_in_words, environment, tell
from stages.law.statistics import with_sign
from stages.law.verdict import Findings
from stages.program import Input

_SHOWN_ROWS = 200
_TRANSCRIPTIONS = "transcription.json"
_THUMBNAIL_PIXELS = (560, 720)


def write(
    folder: Path,
    findings: Findings,
    *,
    inputs: Mapping[str, Input],
    settings: LawSettings,
    provenance: Mapping[str, str],
) -> None:
    """Write report.html and figures/ into `folder`; `inputs` are all outputs that the law read, by name."""
    inventories = {name: inputs[f"{name}_inventory"].path / "inventory.json" for name in ("target", "base")}
    tables = figure_tables(findings)
    figures = draw_figures(tables, findings.item)
    page = render(
        findings,
        tables,
        figures,
        settings=settings,
        inventories={name: json.loads(path.read_text("utf-8")) for name, path in inventories.items()},
        samples=_samples(inputs["target_test"].path),
        written=_written(inputs.values()),
        provenance=provenance,
        inputs={name: one.path.name for name, one in inputs.items()},
    )
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "figures").mkdir()
    for name, png in figures.items():
        (folder / "figures" / f"{name}.png").write_bytes(png)
    for name, table in tables.items():
        table.to_csv(folder / "figures" / f"{name}.csv", index=False)
        rows = json.dumps(records(table), ensure_ascii=False, allow_nan=False, indent=1)
        (folder / "figures" / f"{name}.json").write_text(rows + "\n", encoding="utf-8")


def render(
    findings: Findings,
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, bytes],
    *,
    settings: LawSettings,
    inventories: Mapping[str, dict],
    samples: Callable[[str], Sample],
    written: Written,
    provenance: Mapping[str, str],
    inputs: Mapping[str, str],
) -> str:
    """Return the HTML page.

    Args:
        inventories: contents of inventory.json, "target" and "base".
        samples: key -> sample, with its image and text.
        written: dose -> what was written for the test's samples, by key; empty without transcriptions.
        inputs: names of committed outputs by what they are.
    """
    found, law = findings.measurements, findings.thresholds
    read = {
        cell.dose: found.contents["generation", cell]["corpora"]["target"]["examples"]
        for cell in found.cells("generation", arm=BEFORE_CL, pages="target")
    }
    own = {"arm": found.primary, "pages": "target", "split": "test", "steps": found.steps}
    searched = {
        cell.dose: found.contents["retrieval", cell]["examples"]
        for cell in found.cells("retrieval", **own, seed=found.seeds[0])
    }
    html = environment(autoescape=True)
    html.filters |= {
        "percent": lambda share: "over 999%" if share >= 10 else f"{share:.1%}",  # of a long transcription
        "signed": with_sign,
        "held": {HELD: "yes", BROKEN: "no", OPEN: "open"}.get,  # class of the cell
        "data_uri": data_uri,
        "image": lambda key: data_uri(_thumbnail(samples(key))),
    }
    return html.get_template("report.html.jinja").render(
        findings=findings,
        found=found,
        compared=findings.compared,
        thresholds=law,
        story=tell(findings),
        test=found.test,
        item=findings.item,
        sweep=findings.controls is not None,
        at=findings.estimates,
        arms=(BEFORE_CL, *found.arms),
        columns=[place[:2] for place in findings.estimates if place[2:] == (0, found.primary.name)],
        data={name: records(table) for name, table in tables.items()},
        figures=figures,
        labels=labels,
        bounds=bounds_in_words(findings.bounds),
        pages=sample_pages(read, law.sample_pages),
        searches=sample_searches(
            searched,
            count=law.sample_searches,
            images=law.images_per_search,
            written=written,
            text_of=lambda key: samples(key).text,
        ),
        trainings=[
            (f"{stage}, {cell.words}", facts)
            for (stage, cell), facts in found.contents.items()
            if stage == "refine" or (stage == "pretrain" and cell.dose)  # dose 0 is not trained
        ],
        documents=settings.target_documents,
        provenance=provenance,
        inputs=inputs,
        inventories={name: _summary(inventory) for name, inventory in inventories.items()},
        limits=vars(law),
        recipe=json.dumps(settings.recipe, indent=2, ensure_ascii=False, default=str),
        shown_rows=_SHOWN_ROWS,
        shown_characters=SHOWN_CHARACTERS,
    )


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for templates and JSON; None where a number is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _summary(inventory: dict) -> dict:
    """What the report shows of an inventory: used documents, those of them of which something was left out,
    refused files as (path, reason), the rest."""
    documents = inventory["documents"]
    refused = [(document["path"], document["reason"]) for document in documents if document["reason"]]
    used = [document for document in documents if not document["reason"]]
    in_part = [one for one in used if one["refused_pages"] or one["left_out_characters"]]
    rest = {name: inventory[name] for name in ("splits", "warnings", "unused_queries")}
    return rest | {"used": used, "used_in_part": in_part, "refused": refused}


def _samples(test: Path) -> Callable[[str], Sample]:
    source = ShardSource(test)
    positions = {key: position for position, key in enumerate(source.keys())}
    return lambda key: source[positions[key]]


def _thumbnail(sample: Sample) -> bytes:
    """PNG of the page, small enough for a report."""
    picture, buffer = sample.image(), io.BytesIO()
    picture.thumbnail(_THUMBNAIL_PIXELS)
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _written(inputs: Iterable[Input]) -> Written:
    """What the checkpoints of the own pages wrote for the test's samples."""
    of_checkpoints = (
        one for one in inputs if one.stage == "transcription" and one.cell == Cell(dose=one.cell.dose)
    )
    contents = {one.cell.dose: (one.path / _TRANSCRIPTIONS).read_text("utf-8") for one in of_checkpoints}
    return {dose: json.loads(content)["target_test"] for dose, content in contents.items()}
