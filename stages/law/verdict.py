"""The verdict: does better generation before CL come with better page retrieval after CL, on these documents?

The thresholds come from the recipe and are fixed before the run. *Supported* and *not supported* are
symmetric statements about the interval of one number, the nDCG@10 gained from dose 0 to the highest
dose: above the minimum effect, or below it. Everything between is *inconclusive*.
"""

from dataclasses import asdict, dataclass

from stages.law import words
from stages.law.checks import Check, Findings, find
from stages.law.comparisons import Comparisons, dose_table
from stages.law.evidence import Evidence
from stages.law.statistics import Estimate
from stages.recipes import LawConfig

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the run says, why, and what to do; ``table`` has one row per dose, ``baselines`` nDCG@10."""

    verdict: str
    decision: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    checks: tuple[Check, ...]
    comparisons: Comparisons
    table: tuple[dict, ...]
    baselines: dict[str, float]
    thresholds: LawConfig

    def to_json(self) -> dict:
        """Return the content of verdict.json."""
        compared = {name: _json(value) for name, value in vars(self.comparisons).items() if value is not None}
        paired = compared.pop("paired")
        return {
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


def judge(evidence: Evidence, thresholds: LawConfig) -> Verdict:
    """Judge the evidence; a pure function of its arguments."""
    findings = find(evidence, thresholds)
    verdict = _decide(findings)
    decision = {SUPPORTED: words.go_on, NOT_SUPPORTED: words.stop, INCONCLUSIVE: words.find_out}[verdict]
    return Verdict(
        verdict=verdict,
        decision=decision(findings),
        reasons=words.reasons(findings),
        notes=words.notes(findings),
        checks=(*findings.size, *findings.conditions.values()),
        comparisons=findings.compared,
        table=dose_table(evidence, thresholds),
        baselines={name: float(scores["ndcg@10"].mean()) for name, scores in evidence.baselines.items()},
        thresholds=thresholds,
    )


def _decide(findings: Findings) -> str:
    if not findings.large_enough or not findings.conditions["generation"].passed:
        return INCONCLUSIVE
    if all(check.passed for check in findings.conditions.values()):
        return SUPPORTED
    if findings.compared.paired.high < findings.thresholds.minimum_effect:
        return NOT_SUPPORTED
    return INCONCLUSIVE


def _json(value: object) -> object:
    if isinstance(value, Estimate):
        return value.to_json()
    return {key: _json(item) for key, item in value.items()} if isinstance(value, dict) else value
