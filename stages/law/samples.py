"""What the report shows of single samples: pages as they were read, and searches.

Texts and images come from other people's documents: images go in only as PNG or JPEG data.
"""

import base64
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

ImageOf = Callable[[str], bytes]

_SHOWN_CHARACTERS = 400
_FORMATS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


@dataclass(frozen=True, kw_only=True)
class Transcription:
    """What one checkpoint read: pieces as (kind, text), kind equal, wrong or missing.

    Of a long text only the first pieces are there (``cut``); ``error_rate`` is that of the whole text.
    """

    dose: int
    error_rate: float
    pieces: tuple[tuple[str, str], ...]
    cut: bool


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
    """Align all of ``decoded`` with the true ``text``, both NFC, and mark what is wrong or missing in it."""
    decoded, text = (unicodedata.normalize("NFC", one) for one in (decoded, text))
    pieces: list[tuple[str, str]] = []
    room, cut = _SHOWN_CHARACTERS, False
    for step in Levenshtein.opcodes(decoded, text):
        if step.tag == "insert":
            kind, piece = "missing", text[step.dest_start : step.dest_end]
        else:
            kind = "equal" if step.tag == "equal" else "wrong"
            piece = decoded[step.src_start : step.src_end]
        cut = len(piece) > room
        if room:
            pieces.append((kind, piece[:room]))
        if cut:
            break
        room -= len(piece)
    error_rate = Levenshtein.distance(decoded, text) / max(len(text), 1)
    return Transcription(dose=dose, error_rate=error_rate, pieces=tuple(pieces), cut=cut)


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


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + " …"
