"""An output of the documents is named by the program that makes it; nothing else renames it."""

import shutil
from pathlib import Path

import pytest

from data_prep import prepare, reading
from data_prep.splits import SPLITS
from infra.fingerprint import fingerprint, import_closure, source_digest
from tests.unit.data_prep import making

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT, SPLIT, TRAINING = "data_prep.reading", "data_prep.prepare", "stages.pretrain.program"


@pytest.mark.parametrize(
    ("edited", "renamed"),
    [
        ("benchmarks/seahelp_card.py", set()),
        ("data_prep/text_layer.py", {DOCUMENT, SPLIT}),
        ("data_prep/splits.py", {SPLIT}),
        ("data_prep/query_making.py", {SPLIT}),
        ("data_prep/user_queries.py", {SPLIT}),
        ("data_prep/order.py", {TRAINING}),
    ],
)
def test_an_edit_renames_what_the_edited_code_computes(tmp_path, edited, renamed):
    for room in ("benchmarks", "data_prep", "stages"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("*.pdf", "base"))
    (tmp_path / edited).write_text((tmp_path / edited).read_text(encoding="utf-8") + "# edited\n", "utf-8")
    programs = {DOCUMENT, SPLIT, TRAINING}
    assert {one for one in programs if source_digest(one, tmp_path) != source_digest(one)} == renamed


def test_documents_are_named_by_their_reader_and_splits_by_their_maker(six_documents, tmp_path, monkeypatch):
    programs = {}

    def recorded(*, stage, program, **parts) -> str:
        programs[stage] = program
        return fingerprint(stage=stage, program=program, **parts)

    monkeypatch.setattr(reading, "fingerprint", recorded)
    monkeypatch.setattr(prepare, "fingerprint", recorded)
    making.prepare(six_documents, tmp_path)
    assert programs.pop("document") == DOCUMENT
    splits = {f"documents-{split}{of}" for split in SPLITS for of in ("", "-queries")}
    assert programs.keys() == splits | {"documents-inventory"}
    assert set(programs.values()) == {SPLIT}


def test_stages_load_what_reads_shards_and_nothing_that_makes_them():
    assert import_closure("data_prep.shards") == tuple(
        f"data_prep{name}" for name in ("", ".samples", ".shards")
    )
    programs = [path.relative_to(ROOT) for path in ROOT.glob("stages/*/program.py")]
    programs += [Path("stages/evaluate") / f"{name}.py" for name in ("generation", "critic", "retrieval")]
    readers = {"config", "errors", "order", "packing", "plain_text", "queries", "samples", "shards"}
    for program in [*programs, Path("stages/refine/mining.py")]:
        modules = import_closure(".".join(program.with_suffix("").parts))
        loaded = {module.partition(".")[2] for module in modules if module.startswith("data_prep.")}
        assert loaded <= readers, program
