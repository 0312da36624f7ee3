"""The report: one self-contained HTML page from the verdict, the evidence and a few pictures.

Text and file names come from other people's documents. The template escapes everything, the page
forbids scripts and outside resources, and images go in only as PNG or JPEG data.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from rapidfuzz.distance import Levenshtein

from stages.law.evidence import Evidence
from stages.law.verdict import Verdict

ImageOf = Callable[[str], bytes]

_SHOWN_CHARACTERS = 400
_SHOWN_ROWS = 200
_FORMATS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


@dataclass(frozen=True, kw_only=True)
class Transcription:
    """What one checkpoint read: pieces of the decoded text as (kind, text), kind equal, wrong or missing."""

    dose: int
    error_rate: float
    pieces: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class SamplePage:
    """A held-out page or block with its true text and its transcriptions."""

    key: str
    image: str
    text: str
    transcriptions: tuple[Transcription, ...]


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One retrieved page."""

    key: str
    image: str
    relevant: bool


@dataclass(frozen=True, kw_only=True)
class Search:
    """One query with its best pages, per checkpoint: (label, hits)."""

    query: str
    results: tuple[tuple[str, tuple[Hit, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything on the page; ``inventories`` are contents of inventory.json by name."""

    verdict: Verdict
    evidence: Evidence
    figures: Mapping[str, bytes]
    pages: Sequence[SamplePage]
    searches: Sequence[Search]
    inventories: Mapping[str, dict]
    provenance: Mapping[str, str]
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
    environment.filters |= {"percent": _percent, "data_uri": data_uri}
    return environment.get_template("report.html.jinja").render(
        report=report,
        verdict=report.verdict,
        compared=report.verdict.comparisons,
        evidence=report.evidence,
        inventories={name: _summary(inventory) for name, inventory in report.inventories.items()},
        recipe=json.dumps(report.recipe, indent=2, ensure_ascii=False, default=str),
        shown_rows=_SHOWN_ROWS,
    )


def sample_pages(generation: Sequence[dict], image_of: ImageOf, count: int) -> tuple[SamplePage, ...]:
    """The first ``count`` decoded blocks of the target language, at dose 0 and at the highest dose.

    They are not chosen: the order is that of the evaluation.
    """
    by_dose = {cell["dose"]: cell["corpora"]["target"]["examples"] for cell in generation}
    shown = sorted({min(by_dose), max(by_dose)})
    decoded = {dose: {example["key"]: example["decoded"] for example in by_dose[dose]} for dose in shown}
    common = [
        example for example in by_dose[shown[-1]] if all(example["key"] in decoded[dose] for dose in shown)
    ]
    return tuple(
        SamplePage(
            key=example["key"],
            image=data_uri(image_of(example["key"])),
            text=_clip(example["text"]),
            transcriptions=tuple(
                transcription(dose, decoded[dose][example["key"]], example["text"]) for dose in shown
            ),
        )
        for example in common[:count]
    )


def transcription(dose: int, decoded: str, text: str) -> Transcription:
    """Align ``decoded`` with the true ``text`` and mark what is wrong or missing in it."""
    clipped = decoded[:_SHOWN_CHARACTERS]
    pieces: list[tuple[str, str]] = []
    for step in Levenshtein.opcodes(clipped, text):
        if step.tag == "delete" or step.tag == "replace":
            pieces.append(("wrong", clipped[step.src_start : step.src_end]))
        elif step.tag == "insert":
            pieces.append(("missing", _clip(text[step.dest_start : step.dest_end])))
        else:
            pieces.append(("equal", clipped[step.src_start : step.src_end]))
    error_rate = Levenshtein.distance(decoded, text) / max(len(text), 1)
    return Transcription(dose=dose, error_rate=error_rate, pieces=tuple(pieces))


def sample_searches(
    retrieval: Sequence[dict], arm: str, image_of: ImageOf, *, count: int, images: int
) -> tuple[Search, ...]:
    """The first ``count`` example queries after CL, at dose 0 and at the highest dose, first seed."""
    cells = sorted((c for c in retrieval if c["arm"] == arm), key=lambda cell: (cell["dose"], cell["seed"]))
    by_dose = {cell["dose"]: cell["examples"] for cell in reversed(cells)}
    shown = sorted({min(by_dose), max(by_dose)})
    found = {dose: {example["query"]: example for example in by_dose[dose]} for dose in shown}
    queries = [query for query in found[shown[-1]] if all(query in found[dose] for dose in shown)]
    return tuple(
        Search(
            query=query,
            results=tuple((f"dose {dose:,}", _hits(found[dose][query], image_of, images)) for dose in shown),
        )
        for query in queries[:count]
    )


def data_uri(image: bytes) -> str:
    """Return a ``data:`` URI of a PNG or JPEG; anything else is refused, whatever its name says."""
    for magic, kind in _FORMATS:
        if image.startswith(magic):
            return f"data:{kind};base64,{base64.b64encode(image).decode()}"
    raise ValueError("report images must be PNG or JPEG; convert the page before it goes into the report.")


def _hits(example: dict, image_of: ImageOf, images: int) -> tuple[Hit, ...]:
    relevant = set(example["relevant"])
    return tuple(
        Hit(key=hit["key"], image=data_uri(image_of(hit["key"])), relevant=hit["key"] in relevant)
        for hit in example["top"][:images]
    )


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
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + " …"
