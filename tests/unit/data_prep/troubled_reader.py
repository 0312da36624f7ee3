"""A reader that refuses pages, leaves out characters or dies as the document's name tells it.

`refused=2,5 dies=9.pdf`: without its pages 2 and 5, and dead at page 9.
"""

import os
from pathlib import Path
from unittest import mock

from data_prep import reader
from data_prep.samples import PageNote

LEFT_OUT = {"no ink": 3, "turned": 1}
read_document = reader.read_document


def main(arguments, inputs, output):
    told = dict(word.split("=") for word in Path(arguments["name"]).stem.split() if "=" in word)
    trouble = {name: {int(page) for page in pages.split(",")} for name, pages in told.items()}

    def troubled(*document):
        noted = set()
        for sample in read_document(*document):
            page = sample.page
            if page in trouble.get("dies", ()):
                os._exit(3)
            refused = f"bad page {page}" if page in trouble.get("refused", ()) else None
            left_out = LEFT_OUT if page in trouble.get("left_out", ()) else {}
            if page not in noted and (refused or left_out):
                yield PageNote(page=page, refused=refused, left_out=left_out)
            noted.add(page)
            if not refused:
                yield sample

    with mock.patch("data_prep.reader.read_document", troubled):
        reader.main(arguments, inputs, output)
