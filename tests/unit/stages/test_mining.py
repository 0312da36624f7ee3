"""Hard negatives look like answers and are none."""

import dataclasses
import json

import numpy as np
import pytest

from data_prep.queries import Query, read_queries
from data_prep.shards import ShardSource
from infra.store import LocalStore
from stages.cells import Cell
from stages.recipes import get_recipe
from stages.refine.config import MiningConfig, MiningSettings
from stages.refine.mining import choose, main, mine
from stages.refine.pairs import read_negatives
from tests.unit.stages.conftest import job_of

CONFIG = MiningConfig(hard_negatives=3)
TINY = get_recipe("tiny")
ANYTHING = MiningSettings(  # no margin: whatever is proposed is taken
    backbone=TINY.backbone,
    mining=MiningConfig(hard_negatives=3, relative_margin=-2.0),
    same_document_negatives=True,
    engine=TINY.refine.engine,
)
NONE = np.zeros(6, dtype=bool)


def test_bm25_and_the_model_propose_in_turn():
    cosine = np.array([0.9, 0.1, 0.8, 0.7, 0.6, 0.0])
    bm25 = np.array([9.0, 5.0, 0.0, 7.0, 0.0, 0.0])
    # Answer: 0. BM25 proposes 3, 1; the model 2, 3, 4, ...
    assert choose(cosine, bm25, np.array([0]), NONE | (np.arange(6) == 0), CONFIG) == [3, 2, 1]


def test_what_scores_too_near_the_answer_may_be_one():
    cosine = np.array([0.80, 0.77, 0.75, 0.85, 0.2, 0.1])
    wide = dataclasses.replace(CONFIG, relative_margin=0.05)  # up to 0.76
    none = dataclasses.replace(CONFIG, relative_margin=0.0)
    excluded = np.arange(6) == 0
    assert choose(cosine, np.zeros(6), np.array([0]), excluded, wide) == [2, 4, 5]
    assert choose(cosine, np.zeros(6), np.array([0]), excluded, none) == [1, 2, 4]
    # A positive below zero: the margin still asks for less, not for more.
    below = np.array([-0.5, -0.51, -0.6, -0.9, -0.4, -1.0])
    assert choose(below, np.zeros(6), np.array([0]), excluded, wide) == [2, 3, 5]


def test_depth_bounds_the_proposals():
    shallow = dataclasses.replace(CONFIG, depth=2, relative_margin=0.0)
    cosine = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert choose(cosine, np.zeros(6), np.array([0]), np.arange(6) == 0, shallow) == [1]


def test_how_many_are_embedded_at_once_changes_nothing(backbone, split_folder, samples, monkeypatch):
    queries = [Query(identity=s.key, text=s.text, relevant=(s.key,)) for s in samples]
    whole = mine(backbone, ShardSource(split_folder), queries, ANYTHING)
    monkeypatch.setattr("stages.refine.mining.ROWS_AT_ONCE", 3)
    told = []
    assert mine(backbone, ShardSource(split_folder), queries, ANYTHING, on_rows=told.append) == whole
    assert told == [3, 6, 8, 8 + 3, 8 + 6, 8 + 8], "texts, then queries"


@pytest.mark.parametrize("same_document_negatives", [True, False])
def test_mined_keys_are_never_answers_nor_equal_to_one(
    backbone, split_folder, samples, same_document_negatives
):
    settings = dataclasses.replace(ANYTHING, same_document_negatives=same_document_negatives)
    queries = [
        Query(identity="q", text=samples[0].text, relevant=(samples[0].key, samples[1].key)),
        Query(identity="elsewhere", text="x", relevant=("not here",)),
    ]
    mined = mine(backbone, ShardSource(split_folder), queries, settings)
    assert mined.keys() == {"q"}
    if same_document_negatives:
        assert len(mined["q"]) == 3 and not set(mined["q"]) & set(queries[0].relevant)
    else:
        assert mined["q"] == (), "all samples are of one document"


def test_refinement_reads_what_the_program_commits(backbone, split_folder, queries_folder, tmp_path):
    backbone.save(tmp_path / "model")
    settings = dataclasses.replace(
        ANYTHING, backbone=dataclasses.replace(TINY.backbone, location=str(tmp_path / "model"))
    )
    inputs = {"target_train": split_folder, "target_train_queries": queries_folder}
    job = job_of("mine", settings, tmp_path, cells={"one": Cell()}, inputs=inputs)
    (tmp_path / "job.json").write_text(json.dumps(job))
    main(tmp_path / "job.json")
    committed = LocalStore(tmp_path / "store").find("mine", "one")
    expected = mine(backbone, ShardSource(split_folder), read_queries(queries_folder), settings)
    assert read_negatives(committed.path) == expected and any(expected.values())
