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
import numpy as np
from rapidfuzz.distance import Levenshtein

from stages.law.evidence import BEFORE_CL, Evidence
from stages.law.figures import mean_geometry
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
    """One query with the page that answers it, and per checkpoint (label, its rank, best pages)."""

    query: str
    answer: str
    results: tuple[tuple[str, int, tuple[Hit, ...]], ...]

    @property
    def ranks(self) -> str:
        """``rank 37 → 6``."""
        return "rank " + " → ".join(f"{rank:,}" for _, rank, _ in self.results)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one training cost and learned; padding is a share of decoder positions, None where not known."""

    name: str
    label_tokens: int | None
    padding_share: float | None
    losses: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything on the page; ``inventories`` are contents of inventory.json by name, ``inputs`` names of
    committed outputs by what they are."""

    verdict: Verdict
    evidence: Evidence
    figures: Mapping[str, bytes]
    pages: Sequence[SamplePage]
    searches: Sequence[Search]
    inventories: Mapping[str, dict]
    provenance: Mapping[str, str]
    documents: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    trainings: Sequence[Training] = ()
    geometry: Sequence[str] = ()
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
        item=report.evidence.item,
        pool=report.inventories["target"]["splits"]["test"],
        recipe=json.dumps(without_places(report.recipe), indent=2, ensure_ascii=False, default=str),
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
    """``count`` example queries after CL, at dose 0 and at the highest dose, first seed.

    In order of how much the rank of the right page improves, as a ratio, they are evenly spaced: the first is
    the largest gain, the last the largest loss, the one in the middle the median.
    """
    cells = sorted((c for c in retrieval if c["arm"] == arm), key=lambda cell: (cell["dose"], cell["seed"]))
    by_dose = {cell["dose"]: cell["examples"] for cell in reversed(cells)}
    shown = sorted({min(by_dose), max(by_dose)})
    # The same queries in the same order everywhere: `read_evidence` has checked it.
    queries = list(zip(*(by_dose[dose] for dose in shown), strict=True))
    queries.sort(key=lambda found: found[-1]["rank"] / found[0]["rank"])
    places = np.linspace(0, len(queries) - 1, min(count, len(queries))).round().astype(int)
    return tuple(_search(queries[place], shown, image_of, images) for place in places)


def _search(found: Sequence[dict], doses: Sequence[int], image_of: ImageOf, images: int) -> Search:
    return Search(
        query=found[0]["query"],
        answer=data_uri(image_of(found[0]["relevant"][0])),
        results=tuple(
            (f"dose {dose:,}", example["rank"], _hits(example, image_of, images))
            for dose, example in zip(doses, found, strict=True)
        ),
    )


def trainings(cells: Mapping[str, Sequence[dict]]) -> tuple[Training, ...]:
    """One row per training: ``cells`` are the contents of training.json by stage."""
    return tuple(
        Training(
            name=place_name(stage, facts),
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


def place_name(stage: str, cell: Mapping) -> str:
    """``retrieval, dose 300, seed 0, text-only``."""
    words = {"dose": "dose {:,}", "seed": "seed {}", "arm": "{}"}
    fields = [text.format(cell[name]) for name, text in words.items() if cell.get(name) is not None]
    return ", ".join((stage, *fields))


def geometry_in_words(retrieval: Sequence[dict], item: str) -> tuple[str, ...]:
    """What the geometry figure shows of the last layer before CL, and which layers it leaves out."""
    cells = mean_geometry(retrieval)
    doses = sorted({dose for dose, arm in cells if arm == BEFORE_CL})
    first, last = (cells[dose, BEFORE_CL][-1] for dose in (doses[0], doses[-1]))
    said = [
        f"In the last layer before CL, from dose {doses[0]:,} to {doses[-1]:,}, the share of common "
        f"neighbours goes from {first['mutual_knn']:.3f} to {last['mutual_knn']:.3f} (chance "
        f"{retrieval[0]['chance_mutual_knn']:.3f}), the anisotropy of {item} images from "
        f"{first['anisotropy_image']:.2f} to {last['anisotropy_image']:.2f}."
    ]
    empty = [f"{one['layer']:g}" for one in cells[doses[0], BEFORE_CL] if np.isnan(one["mutual_knn"])]
    if empty:
        said.append(
            f"Layer {', '.join(empty)} is left out: all its vectors are identical (one special token's "
            "embedding), so they have no nearest neighbours."
        )
    return tuple(said)


def without_places(value: object) -> object:
    """A recipe without the folders of this machine: paths from the project on, or their last part."""
    if isinstance(value, Mapping):
        return {name: without_places(inner) for name, inner in value.items()}
    if isinstance(value, str) and value.startswith("/"):
        path, project = Path(value), Path(__file__).parents[2]
        return str(path.relative_to(project)) if path.is_relative_to(project) else path.name
    return value


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
    return f"{share:.1%}"


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + " …"
