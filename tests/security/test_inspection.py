"""What a reader that was taken over says reaches neither the screen nor the pages of `lco inspect`."""

from pathlib import Path

import pytest

from data_prep import reading
from data_prep.config import ReadingConfig
from data_prep.inspecting import given_documents, inspect_documents, page_pictures
from infra.sandbox import Sandbox
from tests.security.hostile_reader import CANARY_FILE, lies
from tests.unit.data_prep.making import prose, write_pdf


def test_a_lying_reader_is_not_believed_by_an_inspection_and_nothing_of_it_is_run(tmp_path, monkeypatch):
    hostile = {"module": "tests.security.hostile_reader"}
    monkeypatch.setattr(reading, "Sandbox", lambda **parts: Sandbox(**parts | hostile))
    whole = write_pdf(tmp_path / "whole.pdf", [prose(1)]).read_bytes()
    named = [tmp_path / f"{name}.pdf" for name in lies({"digest": ""})]
    for path in named:
        path.write_bytes(whole + path.stem.encode())
    Path(CANARY_FILE).unlink(missing_ok=True)
    files, _ = given_documents(named)
    inspected = list(inspect_documents(files, ReadingConfig(), workers=2))
    assert len(inspected) == len(named) and all(one.reason and not one.parts for one in inspected)
    for pictures in page_pictures(files, ReadingConfig(), workers=2):
        assert all(one.png.startswith(b"\x89PNG\r\n\x1a\n") for one in pictures)
    assert not Path(CANARY_FILE).exists()


def test_an_inspection_that_is_given_up_ends_its_readers(tmp_path):
    files, _ = given_documents([write_pdf(tmp_path / f"{name}.pdf", [prose(1)]) for name in "abc"])
    sandboxes = []

    class Watched(Sandbox):
        def __enter__(self) -> Sandbox:
            sandboxes.append(self)
            return super().__enter__()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "Sandbox", Watched)
        inspection = inspect_documents(files, ReadingConfig(), workers=2)
        assert next(inspection).name.endswith("a.pdf")
        inspection.close()
    [sandbox] = sandboxes
    assert sandbox._host.exit_code is not None
