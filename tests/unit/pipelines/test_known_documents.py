"""Documents that an earlier run has prepared are not read, split and searched for repeats again."""

import shutil
from pathlib import Path

import pytest

from data_prep import prepare
from data_prep.config import DocumentsConfig
from infra.store import LocalStore
from pipelines.documents import PREPARED, prepare_once
from tests.unit.data_prep.making import prose, write_pdf


def test_the_same_files_are_prepared_once_and_a_change_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, real = [], prepare.prepare_documents
    monkeypatch.setattr(prepare, "prepare_documents", lambda *a, **b: calls.append(a) or real(*a, **b))
    store, folder = LocalStore(tmp_path / "store"), tmp_path / "documents"
    folder.mkdir()

    def paths() -> list[Path]:
        prepared = prepare_once(folder, DocumentsConfig(), store, lambda *_: None, workers=2)
        return [getattr(prepared, name).path for name in PREPARED]

    for number in range(3):
        write_pdf(folder / f"{number}.pdf", [prose(10 * number + page) for page in range(2)])
    first = paths()
    assert paths() == first and len(calls) == 1
    shutil.rmtree(first[2])
    assert paths() == first and len(calls) == 2, "a lost output is made again"
    assert paths() == first and len(calls) == 2
    (folder / "queries.jsonl").write_text('{"query": "one", "document": "0.pdf", "page": 1}\n')
    with_queries = paths()
    assert with_queries != first and len(calls) == 3
    (folder / "bad.pdf").write_bytes(b"")
    for _ in range(2):  # what could not be used is tried again
        assert paths()[3] != with_queries[3]
    assert len(calls) == 5
