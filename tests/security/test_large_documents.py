"""Whatever a document promises or does, the calling process stays small, comes back and leaves no reader."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.unit.data_prep.making import endless_pdf, prose, swelling_pdf, tiff_of, wordy_pdf, write_pdf
from tests.unit.infra.conftest import ROOT, alive, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

READ = """
import json, sys
from pathlib import Path
from data_prep.config import DocumentsConfig
from data_prep.prepare import prepare_documents
from infra.store import LocalStore

folder, store = map(Path, sys.argv[1:3])
config = DocumentsConfig(**json.loads(sys.argv[3]))
prepared = prepare_documents(folder, config, LocalStore(store), lambda *step: None, workers=2)
entries = prepared.inventory.json("inventory.json")["documents"]
# Not ru_maxrss: a process begins with that of its parent, and pytest's may have held more.
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(json.dumps({"peak": int(peak) * 1024, "reasons": {one["path"]: one["reason"] for one in entries}}))
"""


def reading(folder: Path, store: Path, **settings) -> list[str]:
    return [sys.executable, "-c", READ, str(folder), str(store), json.dumps(settings)]


def reasons_of(folder: Path, store: Path, **settings) -> dict[str, str | None]:
    """What a process of its own says of each file; its memory is checked."""
    command = reading(folder, store, **settings)
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert told["peak"] < 2**30
    return told["reasons"]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "documents").mkdir()
    return tmp_path / "documents"


def test_the_caller_stays_under_a_gibibyte_whatever_lies_there(folder, tmp_path):
    write_pdf(folder / "good.pdf", [prose(1), prose(2), prose(3)])
    with (folder / "sparse.pdf").open("wb") as file:
        file.truncate(2**40)
    with (folder / "sparse-but-allowed.pdf").open("wb") as file:
        file.truncate(2**29)
    wordy_pdf(folder / "wordy.pdf", 10**7)
    (folder / "frames.tiff").write_bytes(tiff_of(5_000))
    (folder / "more-frames.tiff").write_bytes(tiff_of(5_001))
    (folder / "circle.tiff").write_bytes(tiff_of(5, back_to=0))
    swelling_pdf(folder / "swelling.pdf")
    os.mkfifo(folder / "pipe.pdf")
    (folder / "zero.pdf").symlink_to("/dev/zero")
    reasons = reasons_of(folder, tmp_path / "store")
    assert reasons.pop("wordy.pdf").startswith("a page has 10,1")
    assert reasons == {
        "circle.tiff": None,
        "frames.tiff": None,
        "good.pdf": None,
        "more-frames.tiff": "5,001 pages, the limit is 5,000",
        "pipe.pdf": "no file but a pipe, a socket or a device",
        "sparse-but-allowed.pdf": "not a PDF: the file does not begin with %PDF-",
        "sparse.pdf": "too large: 1,099,511,627,776 bytes, the limit is 536,870,912",
        "swelling.pdf": None,  # to 2^28 bytes: a reader may have more
        "zero.pdf": "no file but a pipe, a socket or a device",
    }


def test_a_document_without_an_end_is_given_up(folder, tmp_path):
    write_pdf(folder / "good.pdf", [prose(1), prose(2), prose(3)])
    endless_pdf(folder / "endless.pdf")
    reasons = reasons_of(folder, tmp_path / "store", document_seconds=8, document_memory_bytes=64 * 2**30)
    assert reasons == {"endless.pdf": "took longer than 8 s to read", "good.pdf": None}


def test_no_reader_outlives_a_caller_that_is_killed(folder, tmp_path):
    for number in range(3):
        endless_pdf(folder / f"{number}.pdf")
    command = reading(folder, tmp_path / "store", document_memory_bytes=64 * 2**30)
    with subprocess.Popen(command, cwd=ROOT) as caller:
        process = psutil.Process(caller.pid)
        assert wait_until(lambda: len(process.children(recursive=True)) == 3), "a host and two readers"
        readers = process.children(recursive=True)
        busy = [one for one in readers if one.ppid() != caller.pid]
        assert wait_until(lambda: all(one.cpu_times().user > 0.5 for one in busy)), "inside PDFium"
        caller.kill()
    assert wait_until(lambda: not any(alive(one.pid) for one in readers), 5), "a reader is left"
