"""The report: one self-contained HTML page from the verdict, the evidence, the laboratory and the figures.

Text and file names come from other people's documents. The template escapes everything, the page
forbids scripts and outside resources, and images go in only as PNG or JPEG data.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from stages.law.bound import BROKEN, HELD, OPEN
from stages.law.cells import name_of
from stages.law.evidence import Evidence
from stages.law.figure_data import BASELINES, arm_name
from stages.law.figure_style import Row, series
from stages.law.laboratory_words import bounds_in_words, nats_in_words
from stages.law.report_words import words_of
from stages.law.samples import SamplePage, Search, data_uri
from stages.law.statistics import with_sign
from stages.law.verdict import Verdict

_SHOWN_ROWS = 200


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one training cost and learned; padding is a share of decoder positions, None where not known."""

    name: str
    label_tokens: int | None
    padding_share: float | None
    losses: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything on the page.

    ``data`` and ``figures`` are what `figure_data` and `draw_figures` return; a sweep's sections are there
    where its rows are. ``inventories`` are contents of inventory.json by name, ``inputs`` names of committed
    outputs by what they are.
    """

    verdict: Verdict
    evidence: Evidence
    data: Mapping[str, Sequence[Row]]
    figures: Mapping[str, bytes]
    pages: Sequence[SamplePage]
    searches: Sequence[Search]
    inventories: Mapping[str, dict]
    provenance: Mapping[str, str]
    documents: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    trainings: Sequence[Training] = ()
    recipe: Mapping[str, object] = field(default_factory=dict)


def render_report(report: Report) -> str:
    """Return the HTML page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    return environment.get_template("report.html.jinja").render(
        report=report,
        verdict=report.verdict,
        compared=report.verdict.comparisons,
        evidence=report.evidence,
        inventories={name: _summary(inventory) for name, inventory in report.inventories.items()},
        item=report.evidence.item,
        data=report.data,
        laboratory="controls" in report.data,
        words=words_of(report.data, report.evidence.item),
        bounds=bounds_in_words(report.verdict.laboratory.bounds) if report.verdict.laboratory else (),
        arm_name=arm_name,
        baseline_names=BASELINES,
        pool=report.inventories["target"]["splits"]["test"],
        recipe=json.dumps(without_places(report.recipe), indent=2, ensure_ascii=False, default=str),
        shown_rows=_SHOWN_ROWS,
    )


def trainings(cells: Mapping[str, Sequence[dict]]) -> tuple[Training, ...]:
    """One row per training: ``cells`` are the contents of training.json by stage."""
    return tuple(
        Training(
            name=name_of(stage, facts),
            label_tokens=facts.get("label_tokens"),
            padding_share=facts.get("padding_share"),
            losses=", ".join(
                f"{name.removeprefix('loss_').replace('_', ' ')} {value:.3g}"
                for name, value in facts.items()
                if name.startswith("loss_") or name == "last_loss"
            ),
        )
        for stage, contents in cells.items()
        for facts in contents
        if facts["dose"] or stage != "pretrain"  # dose 0 is not trained
    )


def without_places(value: object) -> object:
    """A recipe without the folders of this machine: paths from the project on, or their last part."""
    if isinstance(value, Mapping):
        return {name: without_places(inner) for name, inner in value.items()}
    if isinstance(value, str) and value.startswith("/"):
        path, project = Path(value), Path(__file__).parents[2]
        return str(path.relative_to(project)) if path.is_relative_to(project) else path.name
    return value


def _summary(inventory: dict) -> dict:
    """What the report shows of an inventory: used documents, refused files as (path, reason), splits."""
    documents = inventory["documents"]
    refused = [(document["path"], document["reason"]) for document in documents if document["reason"]]
    unsupported = [(path, "neither a PDF nor a page image") for path in inventory["unsupported"]]
    return {
        "used": [document for document in documents if not document["reason"]],
        "refused": refused + unsupported,
        "splits": inventory["splits"],
        "warnings": inventory["warnings"],
    }


def _percent(share: float) -> str:
    if share >= 10:
        return "over 999%"  # a transcription may be many times longer than the text
    return f"{share:.1%}"


_FILTERS = {
    "percent": _percent,
    "signed": with_sign,
    "nats": nats_in_words,
    "held": {HELD: "yes", BROKEN: "no", OPEN: "open"}.get,  # class of the cell
    "by": series,
    "data_uri": data_uri,
}
