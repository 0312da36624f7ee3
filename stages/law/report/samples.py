"""What the report shows of single samples: pages as they were read, and searches.

Rows for the template. They name images by their samples' keys; the page shows these only as PNG or JPEG data.
"""

import base64
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from data_prep.plain_text import escaped

Examples = Mapping[int, Sequence[Mapping[str, Any]]]
"""Dose -> examples of its generation.json or retrieval.json, the same in the same order at every dose."""
Written = Mapping[int, Mapping[str, str]]
"""Dose -> what was written for each sample, by key."""
SHOWN_CHARACTERS = 400
_FORMATS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


def sample_pages(examples: Examples, count: int) -> list[dict[str, Any]]:
    """The first ``count`` decoded blocks with their key, text, and transcriptions at dose 0 and the highest.

    They are not chosen: the order is that of the evaluation.
    """
    shown = sorted({min(examples), max(examples)})
    found = islice(zip(*(examples[dose] for dose in shown), strict=True), count)
    return [
        {
            "key": by_dose[0]["key"],
            "text": by_dose[0]["text"],
            "transcriptions": [
                transcription(dose, one["decoded"], one["text"])
                for dose, one in zip(shown, by_dose, strict=True)
            ],
        }
        for by_dose in found
    ]


def transcription(dose: int, decoded: str, text: str) -> dict[str, Any]:
    """What was written at a dose, `compared` with the true text."""
    return {"dose": dose} | compared(decoded, text)


def compared(decoded: str, text: str) -> dict[str, Any]:
    """Align all of ``decoded`` with the true ``text``, both NFC, and mark what is wrong or missing in it.

    ``pieces``: (kind, text), kind equal, wrong or missing. Of a long text only the first ones are there
    (``cut``), with escapes for what is obeyed instead of printed; ``error_rate`` is that of the whole text.
    """
    decoded, text = (unicodedata.normalize("NFC", one) for one in (decoded, text))
    pieces: list[tuple[str, str]] = []
    room, cut = SHOWN_CHARACTERS, False
    for step in Levenshtein.opcodes(decoded, text):
        if step.tag == "insert":
            kind, piece = "missing", text[step.dest_start : step.dest_end]
        else:
            kind = "equal" if step.tag == "equal" else "wrong"
            piece = decoded[step.src_start : step.src_end]
        cut = len(piece) > room
        if room:
            pieces.append((kind, escaped(piece[:room])))
        if cut:
            break
        room -= len(piece)
    error_rate = Levenshtein.distance(decoded, text) / max(len(text), 1)
    return {"error_rate": error_rate, "pieces": pieces, "cut": cut}


def sample_searches(
    examples: Examples, *, count: int, images: int, written: Written, text_of: Callable[[str], str]
) -> list[dict[str, Any]]:
    """``count`` example queries with the right page, its ranks and the best pages, at dose 0 and the highest.

    In order of how much the rank of the right page improves, as a ratio, they are evenly spaced: the first is
    the largest gain, the last the largest loss, the one in the middle the median.

    ``transcriptions``: what was written for the right page at these doses; ``text_of`` has its true text.
    """
    shown = sorted({min(examples), max(examples)})
    found = list(zip(*(examples[dose] for dose in shown), strict=True))
    found.sort(key=lambda by_dose: by_dose[-1]["rank"] / by_dose[0]["rank"])
    places = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [
        {
            "query": by_dose[0]["query"],
            "relevant": by_dose[0]["relevant"],
            "transcriptions": [
                transcription(dose, written[dose][key], text_of(key))
                for key in by_dose[0]["relevant"][:1]
                for dose in shown
                if key in written.get(dose, {})
            ],
            "results": [
                {"dose": dose, "rank": one["rank"], "keys": [hit["key"] for hit in one["top"][:images]]}
                for dose, one in zip(shown, by_dose, strict=True)
            ],
        }
        for by_dose in (found[place] for place in places)
    ]


def data_uri(image: bytes) -> str:
    """Return a ``data:`` URI of a PNG or JPEG; anything else is refused, whatever its name says."""
    for magic, kind in _FORMATS:
        if image.startswith(magic):
            return f"data:{kind};base64,{base64.b64encode(image).decode()}"
    raise ValueError("report images must be PNG or JPEG; convert the page before it goes into the report.")
