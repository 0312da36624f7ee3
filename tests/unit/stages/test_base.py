"""The committed base of recipe `tiny` reads English in typefaces that it was not trained on."""

import pytest
from fpdf import FPDF

from data_prep.documents import read_document
from data_prep.samples import Sample
from stages.backbones.backbone import load_backbone
from stages.evaluate.decoding import greedy_transcriptions
from stages.evaluate.generation import character_edits
from stages.recipes import get_recipe

TINY = get_recipe("tiny")
PARAGRAPHS = (
    "The harbour master counted eleven boats before the fog came in from the north.",
    "Nobody had told the baker that the mill would stay closed until Thursday.",
    "In 1874 the company laid 2,340 miles of cable, most of it under water.",
    "A letter that arrives late is read twice; one that never comes is read every night.",
    "Her garden had quinces, plums and one fig tree that bore nothing at all.",
    "Measure the beam at both ends, and write down the smaller number of the two.",
    "They walked along the ridge for six hours without meeting another person.",
    "The clerk asked for a name, a street and the colour of the missing umbrella.",
)


@pytest.mark.parametrize("family", ["Helvetica", "Times"])
def test_the_base_reads_a_typeface_that_it_never_saw(family: str) -> None:
    """The PDF brings no font: PDFium's own are drawn, which no Debian package has."""
    pdf = FPDF(unit="pt", format="A4")
    pdf.add_page()
    pdf.set_font(family, size=11)
    for paragraph in PARAGRAPHS:
        pdf.multi_cell(0, 14, paragraph, align="L", new_x="LMARGIN", new_y="NEXT")
        pdf.ln(10)
    found = read_document("a.pdf", bytes(pdf.output()), None, TINY.documents.reading, range(1, 2))
    samples = [one for one in found if isinstance(one, Sample) and one.trainable]
    texts = [one.text for one in samples]
    assert sum(map(len, texts)) >= 0.9 * sum(map(len, PARAGRAPHS))
    written = greedy_transcriptions(load_backbone(TINY.backbone.location, TINY.backbone), samples, 16)
    edits = character_edits(texts, written)
    assert sum(wrong for wrong, _ in edits) <= 0.1 * sum(length for _, length in edits)
