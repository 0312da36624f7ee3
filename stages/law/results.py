"""Everything that a sweep's laboratory shows, as numbers with intervals."""

from dataclasses import dataclass

from stages.law.bound import BoundReading, generative_order, read_bounds
from stages.law.ceiling import Ceiling, CeilingTrend, read_ceilings
from stages.law.checks import Findings
from stages.law.comparisons import bootstrap
from stages.law.controls import Controls
from stages.law.laboratory import Laboratory
from stages.law.statistics import Estimate


@dataclass(frozen=True, kw_only=True)
class LaboratoryResults:
    """Controls, which decide, and what stands beside the verdict.

    Attributes:
        explained_by: controls that explain the gain.
        bounds: one for each pages, dose and kind ("text", "query") that a critic read.
        generative_order: kind -> Spearman of `-L_gen(N)` with nDCG@10 after CL, over the own pages' doses.
        ceilings: one for each dose with several CL budgets; `ceiling_trend` None below three of them.
    """

    controls: Controls
    explained_by: tuple[str, ...]
    bounds: tuple[BoundReading, ...]
    generative_order: dict[str, Estimate]
    ceilings: tuple[Ceiling, ...]
    ceiling_trend: CeilingTrend | None


def measure_laboratory(findings: Findings, laboratory: Laboratory | None) -> LaboratoryResults | None:
    """Compute what the conditions did not need yet; None without a laboratory."""
    if laboratory is None:
        return None
    evidence, thresholds = findings.evidence, findings.thresholds
    how = bootstrap(thresholds)
    ceilings, trend = read_ceilings(evidence, laboratory, how, thresholds.ceiling_margin)
    return LaboratoryResults(
        controls=findings.controls,
        explained_by=findings.explained_by,
        bounds=read_bounds(laboratory, how),
        generative_order=generative_order(evidence, laboratory, thresholds.primary_arm, how),
        ceilings=ceilings,
        ceiling_trend=trend,
    )
