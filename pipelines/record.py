"""What a run tells its journal, for MLflow: a parent, a child per computed cell, inputs, the curve by dose.

An output that is reused is an input of the parent, not a run: the run that computed it has its story. Stages
append their own progress and metrics to the same journal; infra.mlflow_shipper sends all of it.
"""

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from statistics import fmean
from typing import Any

from infra.journal import Journal, Status
from infra.mlflow_shipper import Shipper
from infra.settings import Settings, command, without_password
from infra.store import Committed
from pipelines.results import DoseRow, values
from pipelines.stage_table import Output, Stage, Work
from stages.cells import Cell
from stages.recipes import Recipe

PARENT = "run"


class RunRecord:
    """The parent run and its children. Those still open at the end get the pipeline's final status."""

    def __init__(
        self,
        journal: Journal,
        *,
        recipe: Recipe,
        name: str,
        tags: Mapping[str, Any],
        shipper: Shipper | None = None,
    ) -> None:
        self.journal, self._recipe, self._shipper = journal, recipe, shipper
        self._costs: dict[str, dict[str, float]] = {}
        """{"pretrain padding_share": {fingerprint of a cell: newest value}}"""
        self._open: list[str] = []
        journal.start(PARENT, name, tags=tags, params=flatten(asdict(recipe)))

    def begin(self, stage: Stage, work: Work, fingerprint: str, inputs: Mapping[str, Output]) -> None:
        """A cell is about to be computed; its place (dose, seed, arm, ...) is params and tags."""
        place = _place(work.cell) if stage.has_places else {}
        tags = {"stage": stage.name, "fingerprint": fingerprint, **place}
        params = flatten(asdict(stage.settings(self._recipe))) | place
        self.journal.start(fingerprint, _short_name(stage, place), parent=PARENT, tags=tags, params=params)
        self._open.append(fingerprint)
        self._inputs(fingerprint, {**inputs, **work.inputs}, context=stage.name)

    def cost(self, stage: str, fingerprint: str, metrics: Mapping[str, float]) -> None:
        """Take in what some metrics of a cell say of its cost, not of what it learned."""
        for name, value in metrics.items():
            heading, _, short = name.partition("/")
            if heading == "resources" or name == "summary/padding_share":
                self._costs.setdefault(f"{stage} {short}", {})[fingerprint] = value

    def finish(self, stage: Stage, fingerprint: str, committed: Committed) -> None:
        """A cell is committed: its numbers, where it lies, and its end."""
        metrics, digest = stage.metrics(committed), committed.manifest.content_digest
        self.cost(stage.name, fingerprint, metrics)
        self.journal.metrics(fingerprint, metrics, step=0)
        self.journal.tags(fingerprint, {"output": committed.path, "content_digest": digest})
        self._finish(fingerprint, "FINISHED")

    def reused(self, stage: Stage, outputs: Mapping[str, Output], found: Mapping[str, Committed]) -> None:
        """Outputs, by fingerprint, that an earlier run has computed; `found` has them committed."""
        for fingerprint in outputs if stage.milestone else ():
            self.cost(stage.name, fingerprint, stage.metrics(found[fingerprint]))
        named = {_short_name(stage, _place(one.cell)): one for one in outputs.values()}
        self._inputs(PARENT, named, context=stage.name)

    def documents(
        self,
        which: str,
        folder: str,
        splits: Mapping[str, Output],
        measured: Mapping[str, float],
        *,
        seconds: float | None,
    ) -> None:
        """A folder of documents is prepared, in so many seconds; None where all was there already."""
        for name, split in splits.items():
            self._inputs(PARENT, {f"{which} {name}": split}, context=name)
        if seconds is None:
            return
        run = f"prepare {which} documents"
        self.journal.start(run, run, parent=PARENT, tags={"stage": "prepare"}, params={"documents": folder})
        self._inputs(run, {f"{which} {name}": split for name, split in splits.items()}, context="prepare")
        self.journal.metrics(run, {**measured, "documents/seconds": seconds}, step=0)
        self.journal.finish(run, "FINISHED")

    def dose_response(self, rows: list[DoseRow], heading: str = "dose") -> None:
        """One point per dose on the parent, step = dose: its chart is the dose-response curve."""
        for row in values(rows):
            points = {f"{heading}/{name}": value for name, value in row.items() if name != "dose"}
            self.journal.metrics(PARENT, points, step=row["dose"])

    def training(self) -> dict[str, float]:
        """`{"pretrain padding_share": ...}`: what the trainings cost, the mean over the cells of a stage."""
        return {name: fmean(cells.values()) for name, cells in self._costs.items()}

    def report(self, law: Output) -> None:
        """Attach the report, its verdict and its figures to the parent, and say what they found."""
        finding = law.json("verdict.json")
        reasons = (f"* {one}" for one in finding["reasons"])
        note = "\n\n".join((f"**{finding['verdict']}** {finding['decision']}", *reasons))
        tags = {
            "verdict": finding["verdict"],
            "report": law.path / "report.html",
            "mlflow.note.content": note,
        }
        self.journal.tags(PARENT, tags)
        costs = {f"training/{name}": value for name, value in self.training().items()}
        self.journal.metrics(PARENT, costs, step=0)
        for name in ("report.html", "verdict.json"):
            self.journal.artifact(PARENT, law.path / name)
        if (law.path / "figures").is_dir():
            self.journal.artifact(PARENT, law.path / "figures", "figures")

    def close(self, status: Status) -> None:
        """Give every run that is still open its true end, the parent last."""
        for run in reversed(self._open.copy()):
            self._finish(run, status)
        self.journal.finish(PARENT, status)

    def tracking(self, settings: Settings) -> dict[str, Any]:
        """What MLflow has of a run with a shipper that has ended: the parent's page, or the command that
        serves it (and Prefect's), and its id there, None where a part is missing; `not_recorded`: lines that
        say what is."""
        found = {"mlflow": None, "mlflow_run": None, "not_recorded": self._shipper.missing}
        if self._shipper.sent:
            serve = f"{command('lco')} up --output {shlex.quote(str(settings.output))}"
            page, run = self._shipper.page(PARENT), self._shipper.run_id(PARENT)
            found |= {"mlflow": page or serve, "mlflow_run": run}
        return found | {"mlflow_store": without_password(settings.tracking_uri)}

    def _inputs(self, run: str, outputs: Mapping[str, Output], *, context: str) -> None:
        places = {
            name.replace("_", " "): {"digest": one.digest, "source": str(one.path), "context": context}
            for name, one in outputs.items()
        }
        self.journal.inputs(run, [{"name": name, **place} for name, place in places.items()])

    def _finish(self, run: str, status: Status) -> None:
        self.journal.finish(run, status)
        self._open.remove(run)


def _place(cell: Cell) -> dict[str, Any]:
    """What is known of a cell's place, by name."""
    place = vars(cell) | {"arm": cell.arm.name if cell.arm.kind != "none" else None}
    return {name: value for name, value in place.items() if value is not None}


def _short_name(stage: Stage, place: Mapping[str, Any]) -> str:
    """`d4800 s0 text-only 30 steps - refine`: MLflow's lists cut long names, and what differs must come
    first."""
    if not stage.has_places:
        return stage.name
    short = {"dose": "d{}", "pages": "{}", "seed": "s{}", "arm": "{}", "steps": "{} steps", "split": "{}"}
    usual = {"pages": "target", "split": "test"}
    told = [name for name in short if name in place and place[name] != usual.get(name)]
    return f"{' '.join(short[name].format(place[name]) for name in told)} - {stage.name}"


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"pretrain": {"steps": 3}}` -> `{"pretrain.steps": 3}`, as MLflow's params are flat."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= (
            flatten(inner, f"{prefix}{name}.") if isinstance(inner, Mapping) else {f"{prefix}{name}": inner}
        )
    return flat
