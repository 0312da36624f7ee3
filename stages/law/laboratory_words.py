"""What a sweep's laboratory says in plain words: controls among the reasons, the rest as notes."""

from collections.abc import Sequence

from stages.law.bound import BROKEN, HELD, OPEN, BoundReading, held_or_not
from stages.law.ceiling import Ceiling, CeilingTrend
from stages.law.checks import Findings
from stages.law.prediction import Prediction
from stages.law.results import LaboratoryResults
from stages.law.statistics import Estimate

CONTROL_NAMES = {
    "shuffled": "the same pages with one another's texts",
    "unrelated": "unrelated pages",
}


def control_reasons(findings: Findings) -> tuple[str, ...]:
    """One sentence for each control; none for a run without them."""
    controls = findings.controls
    if controls is None:
        return ()
    return (
        *(_control(findings, name) for name in controls.against),
        f"The highest dose is {_side(controls.compute)} dose 0 with the same compute spent on contrastive "
        f"learning ({controls.compute.signed()}).",
        f"Page images {_grounding(findings.compared.beyond_text)} "
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
    own = [bound for bound in results.bounds if bound.pages == "target"]
    kinds = dict.fromkeys(bound.kind for bound in own)
    found += [_bound(kind, [bound for bound in own if bound.kind == kind]) for kind in kinds]
    found += [
        f"Over the doses, −L_gen(N) of each {'page text' if kind == 'text' else kind} and nDCG@10 have a "
        f"Spearman correlation of {rho.value:.2f} [{rho.low:.2f}, {rho.high:.2f}]."
        for kind, rho in results.generative_order.items()
    ]
    found += _ceilings(results.ceilings, results.ceiling_trend)
    return tuple(found)


def _control(findings: Findings, name: str) -> str:
    """One control at its highest dose: what it gained, and what the own pages gained beyond it."""
    ahead, gained = findings.controls.at_top(name), findings.controls.gains[name]
    text = findings.controls.text_gains[name]
    verdict = " It explains the gain." if name in findings.explained_by else ""
    return (
        f"CGP on {CONTROL_NAMES[name]} changed nDCG@10 by {gained.signed()} (on the pages' text by "
        f"{text.signed()}); the own pages are {_side(ahead)} it ({ahead.signed()}).{verdict}"
    )


def _side(difference: Estimate) -> str:
    if difference.low > 0:
        return "ahead of"
    return "behind" if difference.high < 0 else "not clearly apart from"


def _grounding(beyond: Estimate) -> str:
    if beyond.low > 0:
        return "gained more than the pages' text, so the gain is not the language alone"
    if beyond.high < 0:
        return "gained less than the pages' text"
    return "did not clearly gain more than the pages' text: the gain may be learning the language"


def _prediction(found: Prediction) -> str:
    lies = "lies inside" if found.inside else "lies outside"
    expected = found.predicted
    return (
        f"From the {found.lower_doses} lower doses, a line of nDCG@10 on the logarithm of nats per byte "
        f"predicts {expected.value:.3f} [{expected.low:.3f}, {expected.high:.3f}] for the highest one; the "
        f"measured {found.measured:.3f} {lies} that interval."
    )


def _bound(kind: str, bounds: Sequence[BoundReading]) -> str:
    """Both readings of the bound over the doses of the own pages."""
    of = "page texts" if kind == "text" else "queries"
    return (
        f"Bound, {of} among {bounds[0].candidates} images: the guarantee (L_cl ≤ L_gen + slack) "
        f"{_tally([held_or_not(bound.guarantee) for bound in bounds])}; the ceiling (L_cl ≥ L_gen) "
        f"{_tally([held_or_not(bound.ceiling) for bound in bounds])}. At dose {bounds[-1].dose:,}: L_gen "
        f"{bounds[-1].generative.value:.3f}, L_cl {bounds[-1].contrastive.value:.3f} nats, slack "
        f"{bounds[-1].slack:.3f}; nDCG@10 among them {bounds[-1].critic_ndcg.value:.3f} by likelihood, "
        f"{bounds[-1].embedding_ndcg.value:.3f} by embedding."
    )


def _tally(readings: Sequence[str]) -> str:
    counted = ((word, readings.count(word)) for word in (HELD, BROKEN, OPEN))
    words = (f"{'is ' * (word == OPEN)}{word} at {count}" for word, count in counted if count)
    return f"{', '.join(words)} of {len(readings)} doses"


def _ceilings(ceilings: Sequence[Ceiling], trend: CeilingTrend | None) -> list[str]:
    found = []
    if trend is not None:
        rises = "rises" if trend.rise > 0 else "does not rise"
        found.append(
            f"The ceiling {rises} over the doses: {trend.rise:+.3f} from dose 0 to the highest, Spearman "
            f"{trend.spearman:.2f}, trend p {trend.p:.3f} ({trend.determined} of {trend.doses} are fitted "
            "plateaus, the others the highest measured).".replace("-", "−")
        )
    unseen = [f"dose {one.dose:,}: {one.reason}" for one in ceilings if not one.determined]
    if unseen:
        found.append(f"The CL budgets do not determine every ceiling: {'; '.join(unseen)}.")
    return found
