"""Documents that are prepared once for the tests that only look at the outcome."""

from pathlib import Path

import pytest
from PIL import Image

from data_prep.prepare import Prepared
from tests.unit.data_prep.making import prepare, prose, write_pdf


@pytest.fixture(scope="session")
def six_documents(tmp_path_factory) -> Path:
    """A folder of six PDFs of two pages; two share a page up to one word, one holds a paragraph twice."""
    folder = tmp_path_factory.mktemp("six")
    (folder / "deep").mkdir()
    for number in range(4):
        write_pdf(folder / "deep" / f"d{number}.pdf", [prose(10 * number), prose(10 * number + 1)])
    shared = prose(99)
    changed = [*shared[:-1], (*shared[-1][:2], shared[-1][2].replace(".", " now."))]
    write_pdf(folder / "near-1.pdf", [shared, prose(100)])
    write_pdf(folder / "near-2.pdf", [changed, prose(101), prose(101)])
    return folder


@pytest.fixture(scope="session")
def prepared(six_documents, tmp_path_factory) -> Prepared:
    return prepare(six_documents, tmp_path_factory.mktemp("store"))[0]


@pytest.fixture
def scan() -> Image.Image:
    """A page image with a dark bar in its upper left."""
    image = Image.new("L", (200, 120), 255)
    image.paste(0, (10, 10, 60, 20))
    return image
