"""The verdict: does better generation before CL come with better page retrieval after CL, on these documents?

The thresholds come from the recipe and are fixed before the run. *Supported* and *not supported* are
symmetric statements about the interval of one number, the nDCG@10 gained from dose 0 to the highest
dose: above the minimum effect, or below it. Everything between is *inconclusive*.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np

from stages.law.evidence import BEFORE_CL, METRICS, Evidence
from stages.law.statistics import (
    Bootstrap,
    Estimate,
    mean_over_queries,
    means_over_queries,
    paired_difference,
    ratio_of_sums,
    spearman,
    trend_p,
)
from stages.recipes import LawConfig

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition of the verdict: what was asked, what was required before the run, what was measured."""

    name: str
    question: str
    required: str
    measured: str
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """Differences in nDCG@10 of query -> page image, unless said otherwise; None where not measured.

    Attributes:
        paired: highest dose minus dose 0, after CL, primary arm: the number the verdict rests on.
        last_step: highest dose minus the one below it.
        before_cl: highest dose minus dose 0, without CL.
        cl: after CL minus before CL, at the highest dose.
        text_control: the paired difference for query -> page *text*; flat if grounding is what improves.
        beyond_text: ``paired`` minus ``text_control``, paired by query.
        arms: other arm -> that arm minus the primary one, at the highest dose.
        gain: nats per byte at dose 0 over the highest dose, target language.
        forgetting: nats per byte at the highest dose over dose 0, base language; above 1 is worse.
        times_random: nDCG@10 at the highest dose over that of random ranking.
        spearman, trend_p: order of the doses.
    """

    paired: Estimate
    last_step: Estimate | None
    before_cl: Estimate | None
    cl: Estimate | None
    text_control: Estimate
    beyond_text: Estimate
    arms: dict[str, Estimate]
    gain: Estimate
    forgetting: Estimate
    times_random: Estimate
    spearman: Estimate
    trend_p: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the run says, why, and what to do; ``table`` has one row per dose."""

    verdict: str
    decision: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    checks: tuple[Check, ...]
    comparisons: Comparisons
    table: tuple[dict, ...]
    thresholds: LawConfig

    def to_json(self) -> dict:
        """Return the content of verdict.json."""
        compared = {
            name: _json(value)
            for name, value in vars(self.comparisons).items()
            if name != "paired" and value is not None
        }
        return {
            "verdict": self.verdict,
            "decision": self.decision,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "checks": [asdict(check) for check in self.checks],
            "paired": {"difference": self.comparisons.paired.value} | self.comparisons.paired.to_json(),
            "comparisons": compared,
            "table": [_json(row) for row in self.table],
            "thresholds": asdict(self.thresholds),
        }


def judge(evidence: Evidence, thresholds: LawConfig) -> Verdict:
    """Judge the evidence; a pure function of its arguments."""
    compared = compare(evidence, thresholds)
    enough = _enough(evidence, thresholds)
    checks = _checks(compared, thresholds)
    verdict = _decide(enough, checks, compared, thresholds)
    return Verdict(
        verdict=verdict,
        decision=_decision(verdict, evidence, compared, enough, checks, thresholds),
        reasons=_reasons(evidence, compared, enough, checks, thresholds),
        notes=_notes(evidence, compared, thresholds),
        checks=(*enough, *checks.values()),
        comparisons=compared,
        table=dose_table(evidence, thresholds),
        thresholds=thresholds,
    )


def compare(evidence: Evidence, thresholds: LawConfig) -> Comparisons:
    """Compute every comparison that the verdict and the report use."""
    how, documents = _bootstrap(thresholds), evidence.documents
    primary, top = thresholds.primary_arm, evidence.doses[-1]
    image = evidence.curve(primary)
    text = evidence.curve(primary, "query_to_text")

    def difference(after: np.ndarray | None, before: np.ndarray | None) -> Estimate | None:
        return None if after is None or before is None else paired_difference(after, before, how, documents)

    untouched = evidence.scores(top, BEFORE_CL)
    return Comparisons(
        paired=difference(image[-1], image[0]),
        last_step=difference(image[-1], image[-2]) if len(image) > 2 else None,
        before_cl=difference(untouched, evidence.scores(0, BEFORE_CL)),
        cl=difference(image[-1], untouched),
        text_control=difference(text[-1], text[0]),
        beyond_text=difference(image[-1] - image[0], text[-1] - text[0]),
        arms={
            arm: difference(evidence.scores(top, arm), image[-1])
            for arm in evidence.arms
            if arm != primary and _comparable(evidence, top, arm, primary)
        },
        gain=_gain(evidence, how),
        forgetting=_forgetting(evidence, how),
        times_random=_times_random(image[-1], evidence, how),
        spearman=spearman(
            np.array([-reading.nats_per_byte for reading in evidence.target]), image, how, documents
        ),
        trend_p=trend_p(image.mean(axis=(1, 2)), seed=thresholds.random_seed),
    )


def dose_table(evidence: Evidence, thresholds: LawConfig) -> tuple[dict, ...]:
    """One row per dose: generation of both languages and every retrieval score, with intervals."""
    how = _bootstrap(thresholds)
    rows = []
    for dose, target, base in zip(evidence.doses, evidence.target, evidence.base, strict=True):
        rows.append(
            {
                "dose": dose,
                "nats_per_byte": ratio_of_sums(target.nats, target.bytes, how),
                "character_error_rate": target.character_error_rate,
                "token_accuracy": target.token_accuracy,
                "base_nats_per_byte": ratio_of_sums(base.nats, base.bytes, how),
                "base_character_error_rate": base.character_error_rate,
                "base_token_accuracy": base.token_accuracy,
                "retrieval": {
                    arm: _retrieval_row(evidence, dose, arm, how)
                    for arm in (BEFORE_CL, *evidence.arms)
                    if (dose, arm) in evidence.cells
                },
            }
        )
    return tuple(rows)


def _retrieval_row(evidence: Evidence, dose: int, arm: str, how: Bootstrap) -> dict[str, Estimate]:
    documents = evidence.documents
    measured = {metric: evidence.scores(dose, arm, metric=metric) for metric in METRICS}
    measured["query_to_text"] = evidence.scores(dose, arm, "query_to_text")
    estimates = means_over_queries(np.stack(list(measured.values())), how, documents)
    row = dict(zip(measured, estimates, strict=True))
    # The queries of this direction are the pages' own texts, which `documents` does not describe.
    row["text_to_image"] = mean_over_queries(evidence.scores(dose, arm, "text_to_image"), how)
    return row


def _bootstrap(thresholds: LawConfig) -> Bootstrap:
    return Bootstrap(
        resamples=thresholds.bootstrap_resamples,
        confidence=thresholds.confidence,
        seed=thresholds.random_seed,
    )


def _comparable(evidence: Evidence, dose: int, arm: str, primary: str) -> bool:
    return (dose, arm) in evidence.cells and (
        len(evidence.seeds[arm]) == len(evidence.seeds[primary]) or len(evidence.seeds[arm]) == 1
    )


def _gain(evidence: Evidence, how: Bootstrap) -> Estimate:
    return ratio_of_sums(evidence.target[0].nats, evidence.target[-1].nats, how)


def _forgetting(evidence: Evidence, how: Bootstrap) -> Estimate:
    return ratio_of_sums(evidence.base[-1].nats, evidence.base[0].nats, how)


def _times_random(scores: np.ndarray, evidence: Evidence, how: Bootstrap) -> Estimate:
    reached = mean_over_queries(scores, how, evidence.documents)
    chance = float(evidence.baselines["random"]["ndcg@10"].mean())
    return Estimate(value=reached.value / chance, low=reached.low / chance, high=reached.high / chance)


def _enough(evidence: Evidence, thresholds: LawConfig) -> tuple[Check, ...]:
    """Whether there is evidence for any verdict at all."""
    counts = (
        ("queries", "held-out queries", evidence.queries, thresholds.minimum_queries),
        (
            "doses",
            "checkpoints along one pretraining run, dose 0 included",
            len(evidence.doses),
            thresholds.minimum_doses,
        ),
        (
            "seeds",
            "repeats of contrastive learning",
            len(evidence.seeds[thresholds.primary_arm]),
            thresholds.minimum_seeds,
        ),
    )
    return tuple(
        Check(
            name=name,
            question=f"Enough {name} ({what})?",
            required=f"at least {minimum}",
            measured=str(count),
            passed=count >= minimum,
        )
        for name, what, count, minimum in counts
    )


def _checks(compared: Comparisons, thresholds: LawConfig) -> dict[str, Check]:
    gain, effect = thresholds.minimum_generative_gain, thresholds.minimum_effect
    rho = compared.spearman
    ordered = rho.value >= thresholds.minimum_spearman and compared.trend_p <= thresholds.maximum_trend_p
    found = (
        Check(
            name="generation",
            question="Did pretraining make the model read the target language better?",
            required=f"nats per byte cut {gain:g}× or more",
            measured=times(compared.gain),
            passed=compared.gain.low >= gain,
        ),
        Check(
            name="effect",
            question="Did retrieval after contrastive learning gain from dose 0 to the highest dose?",
            required=f"nDCG@10 gain above {effect:+.3g}, whole interval",
            measured=signed(compared.paired),
            passed=compared.paired.low >= effect,
        ),
        Check(
            name="order",
            question="Does retrieval rise with generation, dose by dose?",
            required=f"Spearman {thresholds.minimum_spearman:g} or more, trend p {thresholds.maximum_trend_p:g} or less",
            measured=f"{rho.value:.2f} [{rho.low:.2f}, {rho.high:.2f}], p {compared.trend_p:.3f}",
            passed=ordered,
        ),
        Check(
            name="chance",
            question="Is retrieval at the highest dose clearly better than random?",
            required=f"{thresholds.minimum_times_random:g}× random or more, whole interval",
            measured=times(compared.times_random),
            passed=compared.times_random.low >= thresholds.minimum_times_random,
        ),
    )
    return {check.name: check for check in found}


def _decide(
    enough: tuple[Check, ...], checks: dict[str, Check], compared: Comparisons, thresholds: LawConfig
) -> str:
    if not all(check.passed for check in enough) or not checks["generation"].passed:
        return INCONCLUSIVE
    if all(check.passed for check in checks.values()):
        return SUPPORTED
    if compared.paired.high < thresholds.minimum_effect:
        return NOT_SUPPORTED
    return INCONCLUSIVE


def _decision(
    verdict: str,
    evidence: Evidence,
    compared: Comparisons,
    enough: tuple[Check, ...],
    checks: dict[str, Check],
    thresholds: LawConfig,
) -> str:
    if verdict == SUPPORTED:
        return _decision_supported(evidence, compared, thresholds)
    if verdict == NOT_SUPPORTED:
        return (
            "More generative pretraining will not help on these documents, because reading improved "
            f"{compared.gain.value:.1f}× while nDCG@10 moved by {signed(compared.paired)}. "
            + _limit(evidence, compared, thresholds)
        )
    return "No decision yet. " + _what_is_missing(evidence, compared, enough, checks, thresholds)


def _decision_supported(evidence: Evidence, compared: Comparisons, thresholds: LawConfig) -> str:
    last = compared.last_step
    if last is None or last.low > 0:
        step = (
            f", and the last step, from dose {evidence.doses[-2]:,}, still added {signed(last)}"
            if last
            else ""
        )
        return (
            "More generative pretraining will probably help on these documents, because every bit of it so far did: "
            f"nDCG@10 gained {signed(compared.paired)} up to dose {evidence.doses[-1]:,}{step}."
        )
    if last.high < thresholds.minimum_effect:
        return (
            f"Generative pretraining helped ({signed(compared.paired)} nDCG@10), but more will not: the last step, from "
            f"dose {evidence.doses[-2]:,} to {evidence.doses[-1]:,}, changed {signed(last)}. "
            + _limit(evidence, compared, thresholds)
        )
    return (
        f"Keep generative pretraining: it gained {signed(compared.paired)} nDCG@10. Whether more will help is open: "
        f"the last step, from dose {evidence.doses[-2]:,} to {evidence.doses[-1]:,}, changed {signed(last)}."
    )


def _limit(evidence: Evidence, compared: Comparisons, thresholds: LawConfig) -> str:
    """What holds retrieval back when better generation does not lift it, from the measured comparisons."""
    effect = thresholds.minimum_effect
    better = {arm: gain for arm, gain in compared.arms.items() if gain.low > 0 and gain.value >= effect}
    reached = evidence.scores(evidence.doses[-1], thresholds.primary_arm).mean()
    if reached > 1 - effect:
        return "Retrieval is solved on this test: there is nothing left to gain. Try harder queries or a larger corpus."
    if better:
        arm = max(better, key=lambda name: better[name].value)
        return f"The limit is the data of contrastive learning: arm {arm} is better than text-only CL by {signed(better[arm])}."
    if compared.cl is not None and compared.cl.high < 0:
        return (
            f"The limit is contrastive learning: it costs {signed(compared.cl)} against the same model before CL. "
            "Train it more lightly (fewer steps, lower learning rate, fewer layers)."
        )
    if compared.before_cl is not None and compared.before_cl.low >= effect and compared.paired.high < effect:
        return (
            f"The limit is contrastive learning: before CL, retrieval did gain {signed(compared.before_cl)} "
            "from pretraining, and CL does not pass it on."
        )
    return "Contrastive learning or the data is the limit: spend on better queries, more pages, or the CL recipe."


def _what_is_missing(
    evidence: Evidence,
    compared: Comparisons,
    enough: tuple[Check, ...],
    checks: dict[str, Check],
    thresholds: LawConfig,
) -> str:
    missing = [
        f"{check.required} {check.name} (there are {check.measured})" for check in enough if not check.passed
    ]
    if missing:
        return f"The test is too small: it needs {_and(missing)}."
    if not checks["generation"].passed:
        return (
            "Pretraining did not improve generation enough to test the law "
            f"({times(compared.gain)}). Train longer or on more pages first."
        )
    if checks["effect"].passed:
        failed = [check.question for check in checks.values() if not check.passed]
        return f"Retrieval did gain {signed(compared.paired)}, but not all checks passed: {' '.join(failed)}"
    # The interval shrinks with the square root of the queries; it must become narrower than the distance to
    # the threshold, and no narrower than half the threshold, which nobody would pay for.
    half_width = (compared.paired.high - compared.paired.low) / 2
    distance = max(abs(compared.paired.value - thresholds.minimum_effect), thresholds.minimum_effect / 2)
    factor = math.ceil((half_width / distance) ** 2)
    return (
        f"The gain of {signed(compared.paired)} nDCG@10 is neither clearly above nor clearly below "
        f"{thresholds.minimum_effect:+.3g}. " + _more_evidence(evidence, factor)
    )


def _more_evidence(evidence: Evidence, factor: int) -> str:
    if factor <= 1:
        return "It lies close to the threshold: more seeds and doses would settle it."
    return f"About {factor * evidence.queries:,} queries ({factor}× as many), or more seeds, would settle it."


def _reasons(
    evidence: Evidence,
    compared: Comparisons,
    enough: tuple[Check, ...],
    checks: dict[str, Check],
    thresholds: LawConfig,
) -> tuple[str, ...]:
    target, top = evidence.target, evidence.doses[-1]
    chance = compared.times_random
    return (
        *(
            f"Too few {check.name}: {check.measured}, {check.required} needed."
            for check in enough
            if not check.passed
        ),
        f"Generation {'improved' if checks['generation'].passed else 'did not improve enough'}: held-out loss went from "
        f"{target[0].nats_per_byte:.3g} to {target[-1].nats_per_byte:.3g} nats per byte ({times(compared.gain)}), "
        f"character error rate from {target[0].character_error_rate:.0%} to {target[-1].character_error_rate:.0%}.",
        f"Page retrieval after {thresholds.primary_arm} CL {_moved(compared.paired, thresholds)} between dose 0 and "
        f"dose {top:,}: nDCG@10 {signed(compared.paired)}.",
        f"The doses {'are' if checks['order'].passed else 'are not'} in order: "
        f"Spearman {compared.spearman.value:.2f}, trend p {compared.trend_p:.3f}.",
        f"At the highest dose retrieval is {'' if checks['chance'].passed else 'not clearly above chance: '}"
        f"{chance.value:.1f} times as good as random.",
    )


def _moved(estimate: Estimate, thresholds: LawConfig) -> str:
    if estimate.low >= thresholds.minimum_effect:
        return "rose"
    if estimate.high < 0:
        return "fell"
    if estimate.high < thresholds.minimum_effect:
        return "did not rise by what counts as an effect"
    return "may or may not have risen"


def _notes(evidence: Evidence, compared: Comparisons, thresholds: LawConfig) -> tuple[str, ...]:
    """What a careful reader should know beside the verdict."""
    notes = []
    if compared.cl is not None:
        word = "adds" if compared.cl.low > 0 else "costs" if compared.cl.high < 0 else "changes little:"
        notes.append(
            f"At the highest dose, CL {word} {signed(compared.cl)} nDCG@10 against the model before CL."
        )
    for arm, gain in compared.arms.items():
        notes.append(
            f"At the highest dose, arm {arm} differs from {thresholds.primary_arm} by {signed(gain)}."
        )
    notes.append(_text_note(compared))
    if compared.forgetting.low > thresholds.maximum_forgetting:
        notes.append(
            f"Forgetting: the base language's loss grew {times(compared.forgetting)}; "
            f"more than {thresholds.maximum_forgetting:g}× was to be avoided. Raise the share of replay."
        )
    best = min(range(len(evidence.doses)), key=lambda index: evidence.target[index].nats_per_byte)
    if evidence.doses[best] != evidence.doses[-1]:
        notes.append(
            f"The best generator is dose {evidence.doses[best]:,}, not the highest: later training overfits."
        )
    return tuple(notes)


def _text_note(compared: Comparisons) -> str:
    control = compared.text_control
    if control.low <= 0 <= control.high:
        return f"Control: query → text of the same pages stayed flat ({signed(control)}), so the gain is in reading images."
    if control.high < 0:
        return f"Control: query → text of the same pages fell ({signed(control)})."
    beyond = compared.beyond_text
    share = "more than" if beyond.low > 0 else "less than" if beyond.high < 0 else "about as much as"
    return (
        f"Control: query → text of the same pages also rose ({signed(control)}); images gained {share} that "
        f"(difference {signed(beyond)}), so part of the gain may be language adaptation."
    )


def signed(estimate: Estimate) -> str:
    """``+0.160 [+0.121, +0.199]``."""
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def times(estimate: Estimate) -> str:
    """``8.2× [7.9×, 8.6×]``."""
    return f"{estimate.value:.3g}× [{estimate.low:.3g}×, {estimate.high:.3g}×]"


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _json(value: object) -> object:
    if isinstance(value, Estimate):
        return value.to_json()
    return {key: _json(item) for key, item in value.items()} if isinstance(value, dict) else value
