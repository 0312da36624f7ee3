"""What the report is made of beside the cells: images of pages, and inventories of documents."""

import io
from collections import Counter

import matplotlib.font_manager
from PIL import Image, ImageDraw, ImageFont

from data_prep.samples import Sample
from tests.unit.stages.law.sweeps import TEXTS

REFUSED = [
    {"path": "old/scan.pdf", "status": "quarantined", "reason": "encrypted: it needs a password",
     "pages": 0, "samples": 0, "splits": []},
    {"path": "old/empty.pdf", "status": "quarantined", "reason": "empty file (0 bytes)",
     "pages": 0, "samples": 0, "splits": []},
    {"path": "notes.docx", "status": "unsupported", "reason": "neither a PDF nor a page image",
     "pages": 0, "samples": 0, "splits": []},
]  # fmt: skip


NOTHING_LEFT_OUT = {"refused_pages": 0, "first_refused_pages": [], "left_out_characters": {}}


def inventory(refused):
    """Contents of an inventory.json."""
    splits = ("train", "train", "train", "test", "validation")
    used = [
        {"path": f"help/topic-{i:02d}.pdf", "status": "used", "reason": None, "pages": 4, "samples": 21,
         "splits": [splits[i % 5]]} | NOTHING_LEFT_OUT for i in range(25)
    ]  # fmt: skip
    counts = {"samples": 105, "trainable": 101, "shards": 1, "queries": 200, "text_bytes": 9000,
              "exact_duplicates": 4, "near_duplicates_of_other_splits": 3}  # fmt: skip
    return {
        "documents": used + refused,
        "warnings": ["Only 3 document(s) with text: the scores are optimistic."] if refused else [],
        "unused_queries": ["line 3: no document 'A.PDF'; the nearest is 'a.pdf'"] if refused else [],
        "counts": {"used": 25} | Counter(one["status"] for one in refused),
        "splits": dict.fromkeys(("train", "validation", "test"), counts),
    }


def image_of(key):
    """A PNG of the sample's text, as a page block would look."""
    image = Image.new("L", (448, 96), 255)
    draw = ImageDraw.Draw(image)
    font = ImageFont.truetype(matplotlib.font_manager.findfont("DejaVu Sans Mono"), 22)
    text = TEXTS[int(key[1:])]
    for line in range(3):
        draw.text((6, 4 + 30 * line), text[line * 33 : (line + 1) * 33], 20, font)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def sample_of(key):
    """A passage with its image."""
    return Sample(
        key=key, document="a.pdf", page=0, block=0, text=TEXTS[int(key[1:])], is_heading=False, width=448,
        height=96, box=(0, 0, 448, 96), ink=(0, 255), reason=None, png=image_of(key),
    )  # fmt: skip


WRITTEN = {0: {"k1": "Dinh dang doan"}, 2400: {"k1": TEXTS[1]}}
"""Dose -> what was written, by key."""
INVENTORIES = {"target": inventory(REFUSED), "base": inventory([])}
