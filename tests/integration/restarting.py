"""A training that can be interrupted, for test_restart.py and test_elastic.py."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from infra.launcher import Launch, LocalLauncher
from infra.process import ProcessFailed
from infra.store import Committed, LocalStore
from stages.cells import Cell
from stages.pretrain.config import PretrainSettings
from stages.recipes import ARMS, get_recipe
from stages.refine.config import RefineSettings
from stages.train.config import EngineConfig

STEPS, BATCH = 14, 4
CELL = Cell(dose=STEPS * BATCH, arm=ARMS["multimodal-20"], seed=0, steps=STEPS)


@dataclass
class Bench:
    """One store, one job of one stage, and a way to run it under interruptions."""

    root: Path
    launcher: LocalLauncher
    model: Path
    split: Path
    stage: str
    runs: int = 0

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.root / "store")

    def settings(self, engine: EngineConfig) -> PretrainSettings | RefineSettings:
        tiny = get_recipe("tiny")
        backbone = replace(tiny.backbone, location=str(self.model / "model"))
        if self.stage == "refine":
            refine = replace(tiny.refine, batch_size=BATCH, lora_rank=4, engine=engine)
            return RefineSettings(backbone=backbone, refine=refine)
        pretrain = replace(
            tiny.pretrain,
            doses=(0, STEPS * BATCH),
            batch_size=BATCH,
            warmup_steps=2,
            learning_rate=1e-4,
            engine=engine,
        )
        return PretrainSettings(backbone=backbone, pretrain=pretrain)

    def run(self, *, processes: int = 1, zero_stage: int = 1, **interruption) -> None:
        self.runs += 1
        engine = EngineConfig(processes=processes, zero_stage=zero_stage, checkpoint_steps=4)
        place = {"digest": "", "stage": "", "cell": CELL.to_json()}
        split = {"path": str(self.split), **place}
        task = {"cell": CELL.to_json(), "fingerprint": "output", "training": "training"}
        job = {
            "stage": self.stage,
            "settings": asdict(self.settings(engine)),
            "store": str(self.store.root),
            "journal": str(self.root / f"journal-{self.runs}.jsonl"),
            "inputs": {name: split for name in ("target_train", "base_train")},
            "tasks": [{**task, "inputs": {"model": {"path": str(self.model), **place}}}],
            "processes_per_cell": processes,
            "provenance": {},
            "interruption": interruption,
        }
        path = self.root / f"job-{self.runs}.json"
        path.write_text(json.dumps(job))
        launch = Launch(
            module="tests.integration.interrupted",
            job_path=path,
            processes=processes,
            threads=1,
            log_path=self.root / f"{self.runs}.log",
            journal_path=Path(job["journal"]),
        )
        self.launcher.run(launch, lambda event: None)

    def interrupted(self, signal: str, at: int, **options) -> ProcessFailed:
        with pytest.raises(ProcessFailed) as failure:
            self.run(signal=signal, at=at, **options)
        return failure.value

    def output(self) -> Committed:
        output = self.store.find(self.stage, "output")
        assert output is not None
        return output

    def checkpoints(self) -> list[int]:
        return [int(name.rsplit("-")[-1]) for name in self.store.names("checkpoint")]

    def steps(self) -> list[dict]:
        return [json.loads(line) for line in (self.output().path / "steps.jsonl").read_text().splitlines()]
