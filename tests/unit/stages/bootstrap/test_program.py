"""The phases of a bootstrap: what was trained is not trained again."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from data_prep.config import ReadingConfig
from data_prep.samples import Sample
from data_prep.write_shards import write_split
from infra.store import LocalStore
from stages.backbones.backbone import load_backbone
from stages.backbones.config import TinyShape
from stages.bootstrap import program
from stages.bootstrap.config import FURTHER_PHASES, PHASES, STAGE, BootstrapConfig, BootstrapJob
from stages.recipes import get_recipe
from stages.train.config import EngineConfig
from stages.train.ledger import Step

TINY = get_recipe("tiny")


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BootstrapJob:
    """A job of a hundred steps whose documents are one sample; nothing waits for other ranks."""
    monkeypatch.setattr(program, "start_process_group", lambda processes: None)
    monkeypatch.setattr(program, "rank", lambda: 0)
    monkeypatch.setattr(program.distributed, "barrier", lambda: None)
    sample = Sample(
        key="a", document="a.pdf", page=1, block=0, text="four", is_heading=False, box=(0, 0, 9, 9),
        ink=(0, 255), reason=None, width=16, height=16, png=b"",
    )  # fmt: skip
    (tmp_path / "documents").mkdir()
    write_split(tmp_path / "documents", [sample], per_shard=1)
    return BootstrapJob(
        name="training",
        config=BootstrapConfig(shape=TinyShape(), steps=100, batch_size=1, learning_rate=1e-3),
        backbone=TINY.backbone,
        engine=EngineConfig(),
        reading=ReadingConfig(),
        documents=str(tmp_path / "documents"),
        store=str(tmp_path / "store"),
        journal=str(tmp_path / "journal.jsonl"),
    )


def run(job: BootstrapJob, folder: Path) -> None:
    (folder / "job.json").write_text(json.dumps(asdict(job)))
    program.main(folder / "job.json")


def step(number: int) -> Step:
    counts = dict.fromkeys(
        ("examples", "label_tokens", "tokens", "positions", "visual_tokens", "oversized", "flops"), 1
    )
    return Step(
        number=number, objective="transcribe_image", loss=1.0, seconds=6.0, data_seconds=0.0, memory_gib=1.0,
        **counts,
    )  # fmt: skip


def test_a_bootstrap_goes_on_with_the_model_of_its_last_phase(job, tmp_path, monkeypatch):
    trained: list[int] = []

    def pretrain_steps(backbone, sources, weights, plan, *, milestones, checkpoints):
        if len(trained) == 3 and "interrupted" not in trained:
            trained.append("interrupted")
            raise KeyboardInterrupt
        trained.append(plan.seed)
        with torch.no_grad():
            next(backbone.model.parameters()).add_(1.0)
        yield from (step(number + 1) for number in range(max(milestones)))

    monkeypatch.setattr(program, "pretrain_steps", pretrain_steps)
    with pytest.raises(KeyboardInterrupt):
        run(job, tmp_path)
    run(job, tmp_path)
    assert trained == [0, 1, 2, "interrupted", 3, 4, 5]
    store = LocalStore(tmp_path / "store")
    models = [
        load_backbone(store.find(STAGE, f"training-{number}").path / "model", job.backbone).model
        for number in range(len(PHASES))
    ]
    first, last = (next(model.parameters()) for model in (models[0], models[-1]))
    assert torch.allclose(last - first, torch.full_like(first, len(PHASES) - 1))


def test_a_base_goes_on_from_its_own_weights_with_long_passages_only(job, tmp_path, monkeypatch):
    trained: list[tuple] = []

    def pretrain_steps(backbone, sources, weights, plan, *, milestones, checkpoints):
        trained.append((next(backbone.model.parameters()).clone(), plan.doses, plan.decay_steps))
        yield from (step(number + 1) for number in range(max(milestones)))

    monkeypatch.setattr(program, "pretrain_steps", pretrain_steps)
    base = TINY.backbone.location
    run(replace(job, config=replace(job.config, base=base)), tmp_path)
    weights = next(load_backbone(base, job.backbone).model.parameters())
    assert all(torch.equal(first, weights) for first, *_ in trained)
    assert [tuple(rest) for _, *rest in trained] == [((50,), 0), ((50,), 50)]
    assert all(phase.longer for phase in FURTHER_PHASES)


def test_the_journal_counts_the_steps_of_all_phases(job, tmp_path, monkeypatch):
    monkeypatch.setattr(
        program,
        "pretrain_steps",
        lambda *_, milestones, **__: (step(number + 1) for number in range(max(milestones))),
    )
    run(replace(job, name="other"), tmp_path)
    events = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    done = [event["done"] for event in events]
    assert done == sorted(set(done)) and done[-1] == 100 == events[-1]["total"]
    assert "up to 16 characters" in events[0]["label"] and "70% longer" in events[-1]["label"]
