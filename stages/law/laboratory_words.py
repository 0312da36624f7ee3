"""What a sweep's laboratory says in plain words: controls among the reasons, the rest as notes."""

import math
from collections import Counter
from collections.abc import Sequence

from stages.law.bound import OPEN, SURE, BoundReading, held_or_not
from stages.law.ceiling import Ceiling, CeilingTrend
from stages.law.checks import Findings
from stages.law.prediction import Prediction
from stages.law.results import LaboratoryResults
from stages.law.statistics import Estimate, p_in_words

CONTROL_NAMES = {
    "shuffled": "the same pages with one another's texts",
    "unrelated": "unrelated pages",
}
_TEXTS = {"text": "page texts", "query": "queries"}


def control_reasons(findings: Findings) -> tuple[str, ...]:
    """One sentence for each control; none for a run without them."""
    controls = findings.controls
    if controls is None:
        return ()
    return (
        *(_control(findings, name) for name in controls.against),
        f"The highest dose is {_side(controls.compute)} dose 0 with the same compute spent on contrastive "
        f"learning ({controls.compute.signed()}).",
        f"Page images {_grounding(findings.compared.beyond_text, findings.compared.paired.low > 0)} "
        f"({findings.compared.beyond_text.signed()}).",
    )


def notes(
    findings: Findings, prediction: Prediction | None, results: LaboratoryResults | None
) -> tuple[str, ...]:
    """What stands beside the verdict: prediction, bound, ceilings, controls that were not run."""
    found = [_prediction(prediction)] if prediction is not None else []
    if results is None:
        return (
            *found,
            "No controls were run (shuffled and unrelated pages, equal compute): a gain may come from other "
            "causes than better reading. `lco sweep` runs them.",
        )
    found += bounds_in_words(results.bounds)
    found += [
        f"Over the doses, −L_gen(N) of {_TEXTS[kind]} and nDCG@10 have a Spearman correlation of "
        f"{rho.plain(2)}."
        for kind, rho in results.generative_order.items()
    ]
    found += _ceilings(results.ceilings, results.ceiling_trend, findings.thresholds.maximum_trend_p)
    return tuple(found)


def bounds_in_words(bounds: Sequence[BoundReading]) -> list[str]:
    """Both readings of the law over the doses of the own pages, one sentence for each kind of text."""
    return [_bound(kind, of_kind) for kind, of_kind in _own_by_kind(bounds).items()]


def nats_in_words(loss: float) -> str:
    """A loss in nats; ``< 0.001`` where a critic is sure."""
    return "< 0.001" if loss < SURE else f"{loss:.3g}"


def _control(findings: Findings, name: str) -> str:
    """One control at its highest dose: what it gained, and what the own pages gained beyond it."""
    ahead, gained = findings.controls.at_top(name), findings.controls.gains[name]
    text = findings.controls.text_gains[name]
    explains = name in findings.explained_by and findings.compared.paired.low > 0
    verdict = " It explains the gain." if explains else ""
    return (
        f"CGP on {CONTROL_NAMES[name]} changed nDCG@10 by {gained.signed()} (on the pages' text by "
        f"{text.signed()}); the own pages are {_side(ahead)} it ({ahead.signed()}).{verdict}"
    )


def _side(difference: Estimate) -> str:
    if difference.low > 0:
        return "ahead of"
    return "behind" if difference.high < 0 else "not clearly apart from"


def _grounding(beyond: Estimate, gained: bool) -> str:
    """Images against texts; ``gained``: whether there is a gain that needs an explanation."""
    if beyond.low > 0:
        if gained:
            return "gained more than the pages' text, so the gain is not the language alone"
        return "gained more or lost less than the pages' text"
    if beyond.high < 0:
        return "gained less than the pages' text"
    so = ": the gain may be learning the language" if gained else ""
    return f"did not clearly gain more than the pages' text{so}"


def _prediction(found: Prediction) -> str:
    lies = "lies inside" if found.inside else "lies outside"
    return (
        f"From the {found.lower_doses} lower doses, a line of nDCG@10 on the logarithm of nats per byte "
        f"predicts {found.predicted.plain()} for the highest one; the measured {found.measured:.3f} {lies} "
        "that interval."
    )


def _own_by_kind(bounds: Sequence[BoundReading]) -> dict[str, list[BoundReading]]:
    """Kind of text -> the bounds of the own pages, doses ascending."""
    own = [bound for bound in bounds if bound.pages == "target"]
    return {kind: [bound for bound in own if bound.kind == kind] for kind in {bound.kind: 0 for bound in own}}


def _bound(kind: str, bounds: Sequence[BoundReading]) -> str:
    last = bounds[-1]
    return (
        f"Bound, {_TEXTS[kind]} among {last.candidates} images: the guarantee (L_cl ≤ L_gen + slack) "
        f"{_tally([held_or_not(bound.guarantee) for bound in bounds])}; the ceiling (L_cl ≥ L_gen) "
        f"{_tally([held_or_not(bound.ceiling) for bound in bounds])}.{_vacuous(bounds)} At dose "
        f"{last.dose:,}: L_gen {_loss(last.generative)}, L_cl {_loss(last.contrastive)} nats, slack "
        f"{last.slack:.3f}; nDCG@10 among them {last.critic_ndcg.plain()} by likelihood, "
        f"{last.embedding_ndcg.plain()} by embedding."
    )


def _tally(readings: Sequence[str]) -> str:
    """``held at 6 of 8 doses, is open at 2``."""
    said = {OPEN: f"is {OPEN}"}
    (word, count), *rest = Counter(said.get(reading, reading) for reading in readings).most_common()
    return ", ".join((f"{word} at {count} of {len(readings)} doses", *(f"{word} at {n}" for word, n in rest)))


def _vacuous(bounds: Sequence[BoundReading]) -> str:
    """Where the reading is empty: a critic that is surely wrong guarantees nothing, one that is sure bounds
    nothing."""
    chance = math.log(bounds[0].candidates)
    worse = sum(bound.generative.value >= chance for bound in bounds)
    sure = sum(bound.generative.value < SURE for bound in bounds)
    said = ""
    if worse:
        said += (
            f" But at {worse} of {len(bounds)} doses L_gen is no better than guessing (log N = "
            f"{chance:.2f}): there the guarantee is empty, and the ceiling easily broken."
        )
    if sure:
        apart = ", and these doses cannot be told apart by it" if sure > 1 else ""
        said += (
            f" But at {sure} of {len(bounds)} doses L_gen is below {SURE:g}: the critic errs at none of so "
            f"few candidates, so the ceiling is easily held{apart}."
        )
    return said


def _loss(loss: Estimate) -> str:
    value, low, high = (nats_in_words(number) for number in (loss.value, loss.low, loss.high))
    return f"{value} [{low}, {high}]"


def _ceilings(ceilings: Sequence[Ceiling], trend: CeilingTrend | None, maximum_p: float) -> list[str]:
    found = []
    if trend is not None:
        found.append(_ceiling_trend(trend, maximum_p))
    unseen = [f"dose {one.dose:,}: {one.reason}" for one in ceilings if not one.determined]
    if unseen:
        found.append(f"The CL budgets do not determine every ceiling: {'; '.join(unseen)}.")
    return found


def _ceiling_trend(trend: CeilingTrend, maximum_p: float) -> str:
    subject = "ceiling" if trend.determined else "highest measured score"
    rises = "rises" if trend.p <= maximum_p else "is not shown to rise"
    seen = "no dose shows a plateau"
    if trend.determined:
        seen = f"{trend.determined} of {trend.doses} are fitted plateaus"
        seen += ", the others the highest measured" if trend.determined < trend.doses else ""
    spearman = f"{trend.spearman:.2f}".replace("-", "−")
    return (
        f"The {subject} {rises} over the doses: {trend.rise.signed()} from dose 0 to the highest, Spearman "
        f"{spearman}, trend {p_in_words(trend.p)} ({seen})."
    )
