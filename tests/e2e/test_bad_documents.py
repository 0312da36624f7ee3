"""`lco run` on a folder in which hardly anything is right."""

import json
import subprocess
from pathlib import Path

import pytest
from fpdf import FPDF
from PIL import Image

from tests.e2e.conftest import check_private, lco
from tests.unit.data_prep.making import encrypted_pdf, png_of, prose, write_pdf

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def lco_run(documents: Path, output: Path) -> subprocess.CompletedProcess:
    options = ["--recipe", "smoke", "--documents", documents, "--output", output]
    return lco("run", *options, LCO_PROCESSES="1")  # fewer starts: the other core is another test's


@pytest.fixture
def bad_files(tmp_path) -> Path:
    """Everything but a usable document, and a PDF of scanned pages."""
    folder = tmp_path / "documents"
    folder.mkdir()
    whole = write_pdf(tmp_path / "whole.pdf", [prose(1)]).read_bytes()
    (folder / "truncated.pdf").write_bytes(whole[: len(whole) // 2])
    encrypted_pdf(folder / "encrypted.pdf")
    (folder / "empty.pdf").write_bytes(b"")
    (folder / "huge.png").write_bytes(png_of(30_000, 30_000))
    (folder / "letter.pdf").write_text("Dear reader, this is no PDF.")
    scanned, scan = FPDF(), Image.effect_noise((400, 240), 80)
    for _ in range(2):
        scanned.add_page()
        scanned.image(scan, x=20, y=20, w=100)
    scanned.output(str(folder / "scanned.pdf"))
    return folder


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """One for all: a new one needs a new Prefect database, half a minute."""
    return tmp_path_factory.mktemp("bad") / "output"


def test_one_good_document_among_bad_ones_is_enough(bad_files, output):
    write_pdf(bad_files / "good.pdf", [prose(number, lines=10) for number in range(4)])
    result = lco_run(bad_files, output)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    inventories = [
        json.loads(path.read_text())
        for path in (output / "store/documents-inventory").glob("*/inventory.json")
    ]
    [inventory] = [one for one in inventories if any(d["path"] == "good.pdf" for d in one["documents"])]
    reasons = {document["path"]: document["reason"] for document in inventory["documents"]}
    assert reasons["good.pdf"] is None and reasons["scanned.pdf"] is None
    report = (output / "report.html").read_text()
    for name, reason in {
        "truncated.pdf": "truncated",
        "encrypted.pdf": "encrypted",
        "empty.pdf": "0 bytes",
        "huge.png": "oversized",
        "letter.pdf": "not a PDF",
    }.items():
        assert reason in reasons[name]
        assert name in result.stdout + result.stderr
        assert name in report
    assert "inconclusive" in (result.stdout + result.stderr).lower()
    check_private(output)


def test_nothing_usable_is_one_line_and_an_exit_status(bad_files, output):
    (bad_files / "scanned.pdf").unlink()
    result = lco_run(bad_files, output)
    assert result.returncode == 2
    [message] = [line for line in result.stderr.splitlines() if str(bad_files) in line]
    assert "cannot be used" in message
