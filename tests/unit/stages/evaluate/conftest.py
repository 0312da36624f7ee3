"""A program of evaluation run as the pipeline runs it: from a job file, over the split of the fixtures."""

import json

import pytest
import torch

from infra.journal import JournalTail
from infra.store import open_store
from tests.unit.stages.conftest import job_of

SPLITS = ("target_test", "target_validation", "base_test", "target_train", "evaluated", "validation")
QUERIES = ("target_test_queries", "evaluated_queries", "validation_queries")


@torch.no_grad()
def logits_of(backbone, sequence) -> torch.Tensor:
    """Logits [length, vocabulary] of a sequence with an image, by a forward pass of transformers' own, which
    finds the M-RoPE positions itself."""
    ids = torch.tensor([sequence.ids])
    return backbone.model(
        input_ids=ids,
        pixel_values=torch.from_numpy(sequence.patches),
        image_grid_thw=torch.tensor([sequence.grid]),
        mm_token_type_ids=(ids == backbone.model.config.image_token_id).int(),
    ).logits[0]


@pytest.fixture
def run_program(backbone, split_folder, queries_folder, tmp_path):
    """(program, settings, cells) -> (what it committed, by cell; the events that it told).

    All inputs are one split and its queries, and all cells have one model and, where it is given, one
    `transcription` (content of transcription.json).
    """
    backbone.save(tmp_path / "pretrained" / "model")

    def run(program, settings, cells, transcription=None):
        own = {"model": tmp_path / "pretrained", "fit_pages": split_folder, "fit_queries": queries_folder}
        if transcription is not None:
            own["transcription"] = tmp_path / "transcription"
            own["transcription"].mkdir()
            (own["transcription"] / "transcription.json").write_text(json.dumps(transcription))
        stage, names = program.__name__.split(".")[-1], [f"{number:032x}" for number in range(len(cells))]
        job = job_of(
            stage,
            settings,
            tmp_path,
            cells=dict(zip(names, cells, strict=True)),
            inputs={
                **dict.fromkeys(SPLITS, split_folder),
                **dict.fromkeys(QUERIES, queries_folder),
            },
            own_inputs=own,
        )
        (tmp_path / "job.json").write_text(json.dumps(job))
        program.main(tmp_path / "job.json")
        store = open_store(tmp_path / "store")
        committed = [store.find(stage, name).json(f"{stage}.json") for name in names]
        return committed, list(JournalTail(tmp_path / "journal.jsonl", offset=0))

    return run
