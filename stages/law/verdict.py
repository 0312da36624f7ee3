"""The verdict: does better generation before CL come with better page retrieval after CL, on these documents?

The thresholds come from the recipe and are fixed before the run. *Supported* and *not supported* are
symmetric statements about the interval of one number, the nDCG@10 gained from dose 0 to the highest
dose: above the minimum effect, or below it. Everything between is *inconclusive*.

With a sweep's controls these decide too: *supported* needs every one of them beaten, and a control that
explains the gain makes it *not supported*. Bound, ceilings and prediction stand beside the verdict.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stages.law.bound import BoundReading, generative_order, read_bounds
from stages.law.ceiling import BudgetCurve, Ceiling, CeilingTrend, read_budgets, read_ceilings
from stages.law.comparisons import Comparisons, Controls, allowed_share, compare, compare_controls, leads
from stages.law.config import LawConfig
from stages.law.estimates import Place, estimate_all
from stages.law.measurements import Measurements
from stages.law.prediction import Prediction, predict_last
from stages.law.readings import BestReading, LawInReading, best_reading, read_readings
from stages.law.statistics import Bootstrap, Estimate

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition: what was required before the run, and what was measured.

    | name | required | measured |
    |---|---|---|
    | queries, test documents, doses, seeds | fewest | count |
    | generation, effect, chance | least | the number with its interval |
    | order | least Spearman, highest p | Spearman with its interval, p |
    | shuffled, unrelated, compute, grounding | least lead, share | lead, share of the gain minus reproduced |
    """

    name: str
    passed: bool
    required: tuple[float, ...]
    measured: tuple[Estimate | float, ...]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What decides, computed by `find`; and what stands beside it, computed when it is asked for.

    Attributes:
        item: what a sample is called: "page", or "passage" where pages are cut up.
        size: the conditions without which there is no verdict at all: queries, test documents, doses, seeds.
        conditions: those of the law, by name: generation, effect, order, chance; of a sweep also shuffled,
            unrelated, compute, grounding.
        controls: None for a run without them.
    """

    measurements: Measurements
    thresholds: LawConfig
    compared: Comparisons
    controls: Controls | None
    size: tuple[Check, ...]
    conditions: dict[str, Check]
    item: str = "page"

    @property
    def checks(self) -> tuple[Check, ...]:
        """All conditions, of size first."""
        return (*self.size, *self.conditions.values())

    @property
    def explained_by(self) -> tuple[str, ...]:
        """Controls that did without the own pages what these did: "shuffled", "unrelated"."""
        if self.controls is None:
            return ()
        least = self.thresholds.minimum_effect
        return tuple(name for name in self.controls.against if self.controls.at_top(name).high < least)

    @property
    def verdict(self) -> str:
        """Supported, not supported, or inconclusive."""
        if not all(check.passed for check in (*self.size, self.conditions["generation"])):
            return INCONCLUSIVE
        if all(check.passed for check in self.conditions.values()):
            return SUPPORTED
        if self.explained_by or self.compared.paired.high < self.thresholds.minimum_effect:
            return NOT_SUPPORTED
        return INCONCLUSIVE

    @property
    def how(self) -> Bootstrap:
        """How its intervals are resampled."""
        return Bootstrap.of(self.thresholds)

    @cached_property
    def prediction(self) -> Prediction | None:
        """The highest dose as the lower ones predict it; None with too few doses."""
        found = self.measurements
        losses = np.log([found.nats_per_byte(dose) for dose in found.doses])
        means = found.curve(found.primary).mean(axis=(1, 2))
        return predict_last(losses, means, self.thresholds.confidence)

    @cached_property
    def readings(self) -> tuple[LawInReading, ...]:
        """The law in each reading, the primary one among them; empty where only the vector was read."""
        return read_readings(self.measurements, self.thresholds)

    @cached_property
    def best_reading(self) -> BestReading | None:
        """What to search with at the highest dose, as far as validation documents can choose it."""
        return best_reading(self.measurements, self.thresholds, self.readings)

    @cached_property
    def bounds(self) -> tuple[BoundReading, ...]:
        """One for each pages, dose and kind ("text", "query") that a critic read; none without critics."""
        return read_bounds(self.measurements, self.how)

    @cached_property
    def generative_order(self) -> dict[str, Estimate]:
        """Kind -> Spearman of `-L_gen(N)` with nDCG@10 after CL, over the own pages' doses."""
        return generative_order(self.measurements, self.how)

    @cached_property
    def budgets(self) -> dict[int, BudgetCurve]:
        """Dose -> retrieval by CL steps, doses ascending; none for a run that is no sweep."""
        return read_budgets(self.measurements) if self.controls is not None else {}

    @property
    def ceilings(self) -> tuple[Ceiling, ...]:
        """One for each of `budgets`."""
        return self._ceilings[0]

    @property
    def ceiling_trend(self) -> CeilingTrend | None:
        """The order of the ceilings; None below three of them."""
        return self._ceilings[1]

    @cached_property
    def _ceilings(self) -> tuple[tuple[Ceiling, ...], CeilingTrend | None]:
        return read_ceilings(self.measurements, self.budgets, self.how, self.thresholds.ceiling_margin)

    @cached_property
    def estimates(self) -> dict[Place, Estimate]:
        """Every mean by dose and arm with its interval: stages/law/estimates.py."""
        return estimate_all(self.measurements, self.how)


def find(measurements: Measurements, thresholds: LawConfig, item: str = "page") -> Findings:
    """Compute the comparisons and check every condition; those of the controls where there are any."""
    compared = compare(measurements, thresholds)
    controls = compare_controls(measurements, thresholds) if measurements.is_sweep else None
    checks = _conditions(compared, thresholds)
    if controls is not None:
        checks += _control_conditions(compared, controls, thresholds)
    return Findings(
        measurements=measurements,
        thresholds=thresholds,
        compared=compared,
        controls=controls,
        size=_size(measurements, thresholds),
        conditions={check.name: check for check in checks},
        item=item,
    )


def _size(found: Measurements, thresholds: LawConfig) -> tuple[Check, ...]:
    counts = {
        "queries": (found.test.queries, thresholds.minimum_queries),
        "test documents": (found.test.query_documents, thresholds.minimum_documents),
        "doses": (len(found.doses), thresholds.minimum_doses),
        "seeds": (len(found.seeds), thresholds.minimum_seeds),
    }
    return tuple(
        Check(name=name, passed=count >= minimum, required=(minimum,), measured=(count,))
        for name, (count, minimum) in counts.items()
    )


def _conditions(compared: Comparisons, thresholds: LawConfig) -> tuple[Check, ...]:
    def at_least(name: str, measured: Estimate, minimum: float) -> Check:
        """The whole interval must lie there."""
        return Check(name=name, passed=measured.low >= minimum, required=(minimum,), measured=(measured,))

    rho, p = compared.spearman, compared.trend_p
    return (
        at_least("generation", compared.gain, thresholds.minimum_generative_gain),
        at_least("effect", compared.paired, thresholds.minimum_effect),
        Check(
            name="order",
            passed=rho.value >= thresholds.minimum_spearman and p <= thresholds.maximum_trend_p,
            required=(thresholds.minimum_spearman, thresholds.maximum_trend_p),
            measured=(rho, p),
        ),
        at_least("chance", compared.times_random, thresholds.minimum_times_random),
    )


def _control_conditions(
    compared: Comparisons, controls: Controls, thresholds: LawConfig
) -> tuple[Check, ...]:
    """Ahead of each alternative, and by enough of the gain: `LawConfig.maximum_explained` says why."""
    checks = []
    for name, lead in leads(compared, controls).items():
        unexplained = controls.unexplained[name]
        minimum = thresholds.minimum_effect if name == "shuffled" else 0.0
        checks.append(
            Check(
                name=name,
                passed=lead.low > 0 and lead.low >= minimum and unexplained.low >= 0,
                required=(minimum, allowed_share(name, thresholds)),
                measured=(lead, unexplained),
            )
        )
    return tuple(checks)
