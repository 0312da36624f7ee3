"""The table of stages: what each one is to the pipeline.

A new stage is its program (see stages/program.py), an entry here, and its call in pipelines/flow.py.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra.fingerprint import fingerprint
from infra.store import Committed
from stages.cells import PRIMARY_METRIC, Cell
from stages.evaluate.config import (
    CriticSettings,
    GenerationSettings,
    LinearMapSettings,
    RetrievalSettings,
    TranscriptionSettings,
)
from stages.law.config import LawSettings
from stages.pretrain.config import PretrainSettings
from stages.recipes import Recipe
from stages.refine.config import MiningSettings, RefineSettings

Metrics = dict[str, float]
SETTINGS = ("steps", "temperature", "learning_rate", "lora_rank", "lora_alpha")
"""Fields of training.json that say what was done, not what was measured."""
GENERATION = ("nats_per_byte", "token_accuracy", "character_error_rate")


@dataclass(frozen=True, kw_only=True)
class Output:
    """A committed output: of which stage and cell, where it lies, the digest of its content."""

    stage: str
    cell: Cell
    path: Path
    digest: str
    inputs: Mapping[str, "Output"] = field(default_factory=dict, repr=False)
    """What its cell alone was made from."""

    @classmethod
    def of(cls, committed: Committed, cell: Cell, inputs: Mapping[str, "Output"] | None = None) -> "Output":
        manifest = committed.manifest
        place = {"path": committed.path, "digest": manifest.content_digest}
        return cls(stage=manifest.stage, cell=cell, inputs=inputs or {}, **place)

    @property
    def model_inputs(self) -> dict[str, "Output"]:
        """What a cell that uses this trained model reads: the model, and the adapter on top after CL."""
        return {"model": self.inputs["model"], "adapter": self} if self.stage == "refine" else {"model": self}

    def json(self, file: str) -> Any:
        """The content of one of its files; the store verified it in this run."""
        return json.loads((self.path / file).read_text(encoding="utf-8"))

    def to_json(self) -> dict[str, Any]:
        cell = self.cell.to_json()
        return {"path": str(self.path), "digest": self.digest, "stage": self.stage, "cell": cell}


@dataclass(frozen=True, kw_only=True)
class Work:
    """A cell to make, and what it alone reads, by name."""

    cell: Cell
    inputs: Mapping[str, Output] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage. Its program's sources, by import, are in the fingerprint of its outputs."""

    name: str
    title: str
    program: str
    """A module with `main(job_path)`."""
    settings: Callable[[Recipe], Any]
    """What the program takes of a recipe; fields marked NOT_IN_RESULT are in no fingerprint."""
    metrics: Callable[[Committed], Metrics]
    """An output's headline numbers, for MLflow."""
    reads: tuple[str, ...] = ()
    """Outputs of data preparation that all cells read; a cell's own inputs come with its `Work`."""
    key: Callable[[Cell, Recipe], Mapping[str, Any]] = lambda cell, recipe: {}
    """What of a cell changes its result, beside its inputs: only that names its output."""
    processes: Callable[[Recipe], int] = lambda recipe: 1
    """Processes of one cell."""
    milestone: str | None = None
    """The field of the key that a training passes through; cells that differ in it alone share one."""
    independent: bool = False
    """Whether the program shares its cells out, so that several workers may run side by side."""

    @property
    def has_places(self) -> bool:
        """Whether its cells stand in the sweep; else it has one cell, without a place."""
        return self.independent or self.milestone is not None

    def fingerprint(self, recipe: Recipe, cell: Cell, inputs: Mapping[str, str]) -> str:
        """Name of a cell's output. `inputs`: name -> content digest."""
        return self._name(recipe, self.key(cell, recipe), inputs)

    def training(self, recipe: Recipe, cell: Cell, inputs: Mapping[str, str]) -> str:
        """Name of the training that makes a cell, whose checkpoints it continues from."""
        key = {name: value for name, value in self.key(cell, recipe).items() if name != self.milestone}
        return self._name(recipe, key, inputs)

    def _name(self, recipe: Recipe, key: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
        # A path is never in it: a moved store stays valid.
        return fingerprint(
            stage=self.name,
            program=self.program,
            configuration={"settings": self.settings(recipe), "cell": dict(key)},
            inputs=dict(inputs),
        )


def _pretrain_key(cell: Cell, recipe: Recipe) -> dict[str, Any]:
    """With a learning rate that falls at the end, every checkpoint depends on where the end is."""
    end = {"last_dose": max(recipe.pretrain.doses)} if recipe.pretrain.decay_steps else {}
    return {"dose": cell.dose, "pages": cell.pages, **end}


def _refine_key(cell: Cell, recipe: Recipe) -> dict[str, Any]:
    changes, soup = dict(cell.arm.changes), cell.arm.kind == "soup"
    return {"seed": cell.seed, "steps": cell.steps, "changes": changes, "soup": soup}


def _retrieval_key(cell: Cell, recipe: Recipe) -> dict[str, Any]:
    if cell.arm.kind != "linear map":
        return {}
    fitted = _retrieval_settings(recipe).linear_map
    return {"changes": dict(cell.arm.changes), "seed": cell.seed, "fitted": fitted}


def _retrieval_settings(recipe: Recipe) -> RetrievalSettings:
    return RetrievalSettings(
        backbone=recipe.backbone,
        search=recipe.evaluate.search,
        retrieval=recipe.evaluate.retrieval,
        readings=recipe.evaluate.readings,
        batch_size=recipe.evaluate.batch_size,
        temperature=recipe.refine.loss.temperature,
        linear_map=LinearMapSettings(
            config=recipe.evaluate.linear_map,
            batch_size=recipe.refine.batch_size,
            same_document_negatives=recipe.refine.same_document_negatives,
        ),
    )


def _generation_settings(recipe: Recipe) -> GenerationSettings:
    evaluate = recipe.evaluate
    return GenerationSettings(
        backbone=recipe.backbone, generation=evaluate.generation, batch_size=evaluate.batch_size
    )


def _transcription_settings(recipe: Recipe) -> TranscriptionSettings:
    evaluate = recipe.evaluate
    return TranscriptionSettings(
        backbone=recipe.backbone,
        test_samples=evaluate.search.max_corpus,
        validation_samples=evaluate.readings.validation_corpus,
        base_samples=evaluate.generation.decoded_samples,
        batch_size=evaluate.batch_size,
    )


def _mining_settings(recipe: Recipe) -> MiningSettings:
    return MiningSettings(
        backbone=recipe.backbone,
        mining=recipe.mining,
        same_document_negatives=recipe.refine.same_document_negatives,
        engine=recipe.refine.engine,
    )


def _law_settings(recipe: Recipe) -> LawSettings:
    """The recipe is shown in the report, without places of this machine."""
    shown = asdict(recipe)
    shown["backbone"].pop("location")
    for folder in ("target_documents", "base_documents"):
        shown[folder] = Path(shown[folder]).name
    return LawSettings(
        law=recipe.law,
        refine_steps=recipe.refine.steps,
        item="passage" if recipe.documents.unit == "block" else "page",
        target_documents=shown["target_documents"],
        recipe=shown,
    )


def _training_metrics(output: Committed) -> Metrics:
    return {
        f"summary/{name}": float(value)
        for name, value in output.json("training.json").items()
        if name not in SETTINGS and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _mine_metrics(output: Committed) -> Metrics:
    return {f"negatives/{name}": float(count) for name, count in output.manifest.counts.items()}


def _transcription_metrics(output: Committed) -> Metrics:
    return {f"transcribed/{split}": float(count) for split, count in output.manifest.counts.items()}


def _generation_metrics(output: Committed) -> Metrics:
    corpora = output.json("generation.json")["corpora"]
    return {
        f"{name}/{measure}": float(one[measure]) for name, one in corpora.items() for measure in GENERATION
    }


def _critic_metrics(output: Committed) -> Metrics:
    """The bound's generative side by kind of text: L_gen(N) and information in nats, among N candidates."""
    critic, metrics = output.json("critic.json"), {}
    for kind in ("query", "text"):
        for size, one in critic[kind]["by_size"].items():
            metrics |= {f"{kind}/L_gen/{size}": one["loss"], f"{kind}/information/{size}": one["information"]}
        metrics[f"{kind}/{PRIMARY_METRIC}"] = critic[kind]["scores"]["means"][PRIMARY_METRIC]
    return metrics


def _retrieval_metrics(output: Committed) -> Metrics:
    retrieval = output.json("retrieval.json")
    scored = dict(retrieval["directions"])
    for heading, group in (("reading", retrieval.get("readings", {})), ("baseline", retrieval["baselines"])):
        scored |= {f"{heading}/{name}": one for name, one in group.items()}
    return {f"{name}/{metric}": mean for name, one in scored.items() for metric, mean in one["means"].items()}


def _law_metrics(output: Committed) -> Metrics:
    verdict = output.json("verdict.json")
    paired, compared = verdict["paired"], verdict["comparisons"]
    return {
        "ndcg_at_10_gain": paired["difference"],
        "ndcg_at_10_gain_low": paired["low"],
        "ndcg_at_10_gain_high": paired["high"],
        "generative_gain": compared["gain"]["value"],
        **{name: compared[name]["value"] for name in ("times_random", "forgetting", "spearman")},
    }


STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="pretrain",
            title="generative pretraining (CGP)",
            program="stages.pretrain.program",
            reads=("target_train", "base_train"),
            settings=lambda recipe: PretrainSettings(backbone=recipe.backbone, pretrain=recipe.pretrain),
            key=_pretrain_key,
            metrics=_training_metrics,
            processes=lambda recipe: recipe.pretrain.engine.processes,
            milestone="dose",
        ),
        Stage(
            name="transcription",
            title="transcription",
            program="stages.evaluate.transcription",
            reads=("target_test", "target_validation", "base_test"),
            settings=_transcription_settings,
            metrics=_transcription_metrics,
            independent=True,
        ),
        Stage(
            name="generation",
            title="generation quality",
            program="stages.evaluate.generation",
            reads=("target_test", "base_test"),
            settings=_generation_settings,
            metrics=_generation_metrics,
            independent=True,
        ),
        Stage(
            name="critic",
            title="generative critic",
            program="stages.evaluate.critic",
            reads=("target_test", "target_test_queries"),
            settings=lambda recipe: CriticSettings(backbone=recipe.backbone, search=recipe.evaluate.search),
            metrics=_critic_metrics,
            independent=True,
        ),
        Stage(
            name="mine",
            title="hard negatives",
            program="stages.refine.mining",
            reads=("target_train", "target_train_queries"),
            settings=_mining_settings,
            metrics=_mine_metrics,
        ),
        Stage(
            name="refine",
            title="contrastive refinement (CL)",
            program="stages.refine.program",
            reads=("target_train", "target_train_queries"),
            settings=lambda recipe: RefineSettings(backbone=recipe.backbone, refine=recipe.refine),
            key=_refine_key,
            metrics=_training_metrics,
            processes=lambda recipe: recipe.refine.engine.processes,
            milestone="steps",
            independent=True,
        ),
        Stage(
            name="retrieval",
            title="page retrieval",
            program="stages.evaluate.retrieval",
            settings=_retrieval_settings,
            key=_retrieval_key,
            metrics=_retrieval_metrics,
            independent=True,
        ),
        Stage(
            name="law",
            title="scaling law and report",
            program="stages.law.program",
            reads=("target_test", "target_inventory", "base_inventory"),
            settings=_law_settings,
            metrics=_law_metrics,
        ),
    )
}
