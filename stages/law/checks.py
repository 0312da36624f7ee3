"""The conditions of the verdict: what was required before the run, and what was measured."""

from dataclasses import dataclass

from stages.law.comparisons import Comparisons, compare
from stages.law.controls import Controls, allowed_share, compare_controls
from stages.law.evidence import Evidence
from stages.law.laboratory import Laboratory
from stages.law.statistics import Estimate, p_in_words
from stages.recipes import LawConfig


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition: the question, what was required before the run, what was measured."""

    name: str
    question: str
    required: str
    measured: str
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The evidence with everything computed from it.

    ``size`` are the conditions without which there is no verdict at all (queries, documents, doses,
    seeds);
    ``conditions`` are those of the law, by name: generation, effect, order, chance; of a sweep also
    shuffled, unrelated, compute, grounding. ``controls`` is None for a run without a laboratory.
    """

    evidence: Evidence
    thresholds: LawConfig
    compared: Comparisons
    controls: Controls | None
    size: tuple[Check, ...]
    conditions: dict[str, Check]

    @property
    def explained_by(self) -> tuple[str, ...]:
        """Controls that did without the own pages what these did: "shuffled", "unrelated"."""
        if self.controls is None:
            return ()
        least = self.thresholds.minimum_effect
        return tuple(name for name in self.controls.against if self.controls.at_top(name).high < least)

    @property
    def large_enough(self) -> bool:
        """Whether there is enough evidence for any verdict."""
        return all(check.passed for check in self.size)


def find(evidence: Evidence, thresholds: LawConfig, laboratory: Laboratory | None = None) -> Findings:
    """Compute the comparisons and check every condition; those of the controls where there are any."""
    compared = compare(evidence, thresholds)
    controls = None
    if laboratory is not None:
        controls = compare_controls(evidence, laboratory, thresholds)
    checks = _conditions(evidence, compared, thresholds)
    if controls is not None:
        checks += _control_conditions(compared, controls, thresholds)
    return Findings(
        evidence=evidence,
        thresholds=thresholds,
        compared=compared,
        controls=controls,
        size=_size(evidence, thresholds),
        conditions={check.name: check for check in checks},
    )


def steps_up(evidence: Evidence, compared: Comparisons) -> str:
    """How many steps from dose to dose went up: ``2 of 3 steps up``."""
    return f"{compared.steps_up} of {len(evidence.doses) - 1} steps up"


def _size(evidence: Evidence, thresholds: LawConfig) -> tuple[Check, ...]:
    seeds = len(evidence.seeds[thresholds.primary_arm])
    counts = (
        ("queries", "Enough held-out queries?", evidence.queries, thresholds.minimum_queries),
        (
            "test documents",
            "From enough documents to resample these?",
            evidence.query_documents,
            thresholds.minimum_documents,
        ),
        ("doses", "Enough doses, dose 0 included?", len(evidence.doses), thresholds.minimum_doses),
        ("seeds", "Enough repeats of contrastive learning?", seeds, thresholds.minimum_seeds),
    )
    return tuple(
        Check(
            name=name,
            question=question,
            required=f"{minimum} or more",
            measured=f"{count:,}",
            passed=count >= minimum,
        )
        for name, question, count, minimum in counts
    )


def _conditions(evidence: Evidence, compared: Comparisons, thresholds: LawConfig) -> tuple[Check, ...]:
    rho, p = compared.spearman, compared.trend_p
    return (
        Check(
            name="generation",
            question="Does the model read the target language better at the highest dose?",
            required=f"nats per byte cut {thresholds.minimum_generative_gain:g}× or more",
            measured=compared.gain.times(),
            passed=compared.gain.low >= thresholds.minimum_generative_gain,
        ),
        Check(
            name="effect",
            question=f"Does it find {evidence.item}s better after contrastive learning than dose 0 does?",
            required=f"nDCG@10 gain {thresholds.minimum_effect:+g} or more",
            measured=compared.paired.signed(),
            passed=compared.paired.low >= thresholds.minimum_effect,
        ),
        Check(
            name="order",
            question="Does retrieval rise over the doses?",
            required=f"Spearman ≥ {thresholds.minimum_spearman:g}, trend p ≤ {thresholds.maximum_trend_p:g}",
            measured=f"{rho.value:.2f}, {p_in_words(p)}; {steps_up(evidence, compared)}",
            passed=rho.value >= thresholds.minimum_spearman and p <= thresholds.maximum_trend_p,
        ),
        Check(
            name="chance",
            question="Is retrieval at the highest dose clearly better than random?",
            required=f"{thresholds.minimum_times_random:g}× random or more",
            measured=compared.times_random.times(),
            passed=compared.times_random.low >= thresholds.minimum_times_random,
        ),
    )


def _control_conditions(
    compared: Comparisons, controls: Controls, thresholds: LawConfig
) -> tuple[Check, ...]:
    """Ahead of each alternative, and by enough of the gain: `LawConfig.maximum_explained` says why."""

    def check(name: str, question: str, ahead: Estimate, minimum: float = 0.0) -> Check:
        unexplained, share = controls.unexplained[name], f"{allowed_share(name, thresholds):.0%} of the gain"
        lead = f"{minimum:g} or more" if minimum else "more than 0"
        return Check(
            name=name,
            question=question,
            required=f"ahead by {lead}; it reproduces under {share}",
            measured=f"{ahead.signed()}; {share} minus what it reproduces: {unexplained.signed()}",
            passed=ahead.low > 0 and ahead.low >= minimum and unexplained.low >= 0,
        )

    return (
        check(
            "shuffled",
            "Do the own pages teach more than the same pages with one another's texts?",
            controls.at_top("shuffled"),
            thresholds.minimum_effect,
        ),
        check("unrelated", "Do they teach more than unrelated pages?", controls.at_top("unrelated")),
        check(
            "compute",
            "Do they do more than the same compute spent on contrastive learning?",
            controls.compute,
        ),
        check("grounding", "Do page images gain more than the pages' text does?", compared.beyond_text),
    )
