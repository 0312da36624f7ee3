"""The verdict: does better generation before CL come with better page retrieval after CL, on these documents?

The thresholds come from the recipe and are fixed before the run. *Supported* and *not supported* are
symmetric statements about the interval of one number, the nDCG@10 gained from dose 0 to the highest
dose: above the minimum effect, or below it. Everything between is *inconclusive*.

With a sweep's laboratory the controls decide too: *supported* needs every one of them beaten, and a control
that explains the gain makes it *not supported*. Bound, ceilings and prediction stand beside the verdict.
"""

from dataclasses import asdict, dataclass, is_dataclass

from stages.law import decisions, laboratory_words, words
from stages.law.checks import Check, Findings, find
from stages.law.comparisons import Comparisons, dose_table
from stages.law.evidence import Evidence
from stages.law.laboratory import Laboratory
from stages.law.prediction import Prediction, predict_highest
from stages.law.results import LaboratoryResults, measure_laboratory
from stages.recipes import LawConfig

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"
_DECISIONS = {SUPPORTED: decisions.go_on, NOT_SUPPORTED: decisions.stop, INCONCLUSIVE: decisions.find_out}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the run says, why, and what to do; ``table`` has one row per dose, ``baselines`` nDCG@10.

    ``prediction`` is None with too few doses, ``laboratory`` without a sweep.
    """

    verdict: str
    decision: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    checks: tuple[Check, ...]
    comparisons: Comparisons
    table: tuple[dict, ...]
    baselines: dict[str, float]
    thresholds: LawConfig
    prediction: Prediction | None = None
    laboratory: LaboratoryResults | None = None

    def to_json(self) -> dict:
        """Return the content of verdict.json."""
        compared = {name: _json(value) for name, value in vars(self.comparisons).items() if value is not None}
        paired = compared.pop("paired")
        content = {
            "verdict": self.verdict,
            "decision": self.decision,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "checks": [asdict(check) for check in self.checks],
            "paired": {"difference": paired.pop("value")} | paired,
            "comparisons": compared,
            "table": [_json(row) for row in self.table],
            "baselines": self.baselines,
            "thresholds": asdict(self.thresholds),
        }
        beside = {"prediction": self.prediction, "laboratory": self.laboratory}
        return content | {name: _json(value) for name, value in beside.items() if value is not None}


def judge(evidence: Evidence, thresholds: LawConfig, laboratory: Laboratory | None = None) -> Verdict:
    """Judge the evidence, of a sweep with its laboratory; a pure function of its arguments."""
    findings = find(evidence, thresholds, laboratory)
    verdict = decide(findings)
    prediction = predict_highest(evidence, thresholds.primary_arm, thresholds.confidence)
    measured = measure_laboratory(findings, laboratory)
    return Verdict(
        verdict=verdict,
        decision=_DECISIONS[verdict](findings),
        reasons=words.reasons(findings),
        notes=(*words.notes(findings), *laboratory_words.notes(findings, prediction, measured)),
        checks=(*findings.size, *findings.conditions.values()),
        comparisons=findings.compared,
        table=dose_table(evidence, thresholds),
        baselines={name: float(scores["ndcg@10"].mean()) for name, scores in evidence.baselines.items()},
        thresholds=thresholds,
        prediction=prediction,
        laboratory=measured,
    )


def decide(findings: Findings) -> str:
    """The verdict alone: supported, not supported, or inconclusive."""
    if not findings.large_enough or not findings.conditions["generation"].passed:
        return INCONCLUSIVE
    if all(check.passed for check in findings.conditions.values()):
        return SUPPORTED
    if findings.explained_by or findings.compared.paired.high < findings.thresholds.minimum_effect:
        return NOT_SUPPORTED
    return INCONCLUSIVE


def _json(value: object) -> object:
    """Dataclasses and what they hold as JSON."""
    if is_dataclass(value):
        return {name: _json(item) for name, item in vars(value).items()}
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    return [_json(item) for item in value] if isinstance(value, list | tuple) else value
