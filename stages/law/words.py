"""What the verdict says in plain words: the decision, its reasons, and the notes beside it."""

import math

from stages.law.checks import Findings, steps_up
from stages.law.laboratory_words import CONTROL_NAMES, control_reasons
from stages.law.statistics import Estimate
from stages.recipes import LawConfig

_OTHER_DATA = ("multimodal-20", "CLIP-style")
_WITHOUT_CL = ("whitening", "projection")


def thresholds_in_words(thresholds: LawConfig) -> tuple[str, ...]:
    """What is required, to be shown before the results are known."""
    t = thresholds
    return (
        f"Judged on {t.primary_arm} CL, with {t.confidence:.0%} intervals, on {t.minimum_queries} or more "
        f"queries, {t.minimum_doses} or more doses and {t.minimum_seeds} or more CL seeds.",
        f"Generation: nats per byte cut {t.minimum_generative_gain:g}× or more.",
        f"Effect: nDCG@10 gains {t.minimum_effect:+g} or more from dose 0 to the highest dose; an interval "
        'wholly below it is "not supported".',
        f"Order: Spearman {t.minimum_spearman:g} or more, trend p {t.maximum_trend_p:g} or less.",
        f"Chance: {t.minimum_times_random:g}× random or more at the highest dose.",
        f"Controls, of a sweep: own pages ahead of shuffled pairs by {t.minimum_effect:g} or more, of "
        "unrelated pages and of the same compute spent on CL by more than 0; images gain more than text. "
        f"Shuffled pairs reproduce {t.maximum_explained_by_shuffled:.0%} of the gain at most, each of the "
        f"others {t.maximum_explained:.0%}. Shuffled or unrelated pages that the own pages lead by less than "
        f'{t.minimum_effect:g}, the whole interval, explain the gain: "not supported".',
        'Each lower end of an interval must meet its bound; anything between is "inconclusive".',
    )


def go_on(findings: Findings) -> str:
    """The decision where the law is supported: does the last step still pay?"""
    last, doses = findings.compared.last_step, findings.evidence.doses
    gained = _gained(findings)
    if last is None:
        return f"More generative pretraining will probably help on these documents: {gained}."
    step = f"the last step, from dose {doses[-2]:,} to {doses[-1]:,},"
    if last.low > 0:
        return (
            "More generative pretraining will probably help on these documents, because it has so far: "
            f"{gained}, and {step} still added {last.signed()}."
        )
    if last.high < findings.thresholds.minimum_effect:
        return (
            f"Generative pretraining helped: {gained}. But more will not: {step} changed it by "
            f"{last.signed()}. {_limit(findings)}"
        )
    return (
        f"Keep generative pretraining: {gained}. Whether more of it will help is open: {step} changed it by "
        f"{last.signed()}."
    )


def stop(findings: Findings) -> str:
    """The decision where the law is not supported: where else to spend."""
    compared = findings.compared
    if findings.explained_by:
        return _explained(findings)
    if compared.paired.high < 0:
        return (
            "Generative pretraining harms retrieval on these documents: reading improved "
            f"{compared.gain.value:.3g}× while {_gained(findings)}. Do not add more. "
            f"{_limit(findings)}"
        )
    return (
        "More generative pretraining will not help on these documents, because reading improved "
        f"{compared.gain.value:.3g}× while {_gained(findings)}. {_limit(findings)}"
    )


def find_out(findings: Findings) -> str:
    """The decision where the evidence does not decide: what would."""
    return f"No decision yet. {_missing(findings)}"


def reasons(findings: Findings) -> tuple[str, ...]:
    """One sentence for each thing that the verdict rests on."""
    evidence, compared, passed = findings.evidence, findings.compared, findings.conditions
    first, last = evidence.target[0], evidence.target[-1]
    arm, item = findings.thresholds.primary_arm, evidence.item
    moved = _moved(compared.paired, findings.thresholds.minimum_effect)
    return (
        *(f"Too few {c.name}: {c.measured}; required: {c.required}." for c in findings.size if not c.passed),
        f"Reading {'improved' if passed['generation'].passed else 'did not improve enough'}: the loss on "
        f"held-out {item}s went from {first.nats_per_byte:.3g} to {last.nats_per_byte:.3g} nats per byte "
        f"({compared.gain.times()}), wrong characters from {first.character_error_rate:.0%} to "
        f"{last.character_error_rate:.0%}.",
        f"Finding {item}s after {arm} CL {moved} between dose 0 and dose {evidence.doses[-1]:,}: "
        f"nDCG@10 {compared.paired.signed()}.",
        f"Retrieval {'rises' if passed['order'].passed else 'is not shown to rise'} over the doses "
        f"(Spearman {compared.spearman.value:.2f}; {steps_up(evidence, compared)}; trend p "
        f"{compared.trend_p:.3f}).",
        f"At the highest dose, {'' if passed['chance'].passed else 'retrieval is not clearly above chance: '}"
        f"nDCG@10 is {compared.times_random.value:.3g} times that of a random ranking.",
        *control_reasons(findings),
    )


def notes(findings: Findings) -> tuple[str, ...]:
    """What a careful reader should know beside the verdict."""
    evidence, compared, thresholds = findings.evidence, findings.compared, findings.thresholds
    found = []
    if compared.cl is not None:
        does = "adds" if compared.cl.low > 0 else "costs" if compared.cl.high < 0 else "changes little:"
        found.append(f"At the highest dose, CL {does} {compared.cl.signed()} against the model before CL.")
    for arm, gain in compared.arms.items():
        found.append(
            f"At the highest dose, {_refined(arm)} differs from {_refined(thresholds.primary_arm)} by "
            f"{gain.signed()}."
        )
    if evidence.documents is None:
        found.append(
            "The queries come from few or unnamed documents and were resampled one by one: the intervals are "
            "narrower than for new documents. More test documents would make them honest."
        )
    found.append(_lexical(findings))
    found.append(_text_control(findings))
    if compared.forgetting.low > thresholds.maximum_forgetting:
        found.append(
            f"Forgetting: the loss on the base language is {compared.forgetting.times()} that of dose 0; "
            f"above {thresholds.maximum_forgetting:g}× is too much. Raise the share of replay."
        )
    best = min(range(len(evidence.doses)), key=lambda index: evidence.target[index].nats_per_byte)
    if best != len(evidence.doses) - 1:
        found.append(f"Dose {evidence.doses[best]:,} reads best, not the highest: later training overfits.")
    return tuple(found)


def _explained(findings: Findings) -> str:
    """The decision where a control did as well without the own pages."""
    names = " and on ".join(CONTROL_NAMES[name] for name in findings.explained_by)
    ahead = ", ".join(findings.controls.at_top(name).signed() for name in findings.explained_by)
    return (
        f"More generative pretraining on these pages will not help, because what they teach is not needed: "
        f"CGP on {names} does as well (own pages minus these: {ahead}), while {_gained(findings)}. "
        f"{_limit(findings)}"
    )


def _limit(findings: Findings) -> str:
    """What holds retrieval back when better reading does not lift it."""
    evidence, compared, effect = findings.evidence, findings.compared, findings.thresholds.minimum_effect
    primary = findings.thresholds.primary_arm
    better = {arm: gain for arm, gain in compared.arms.items() if gain.low > 0 and gain.value >= effect}
    if evidence.scores(evidence.doses[-1], primary).mean() > 1 - effect:
        return "Retrieval is solved on this test; try harder queries or a larger corpus."
    if better:
        arm = max(better, key=lambda name: better[name].value)
        gain = better[arm].signed()
        what = "data of contrastive learning" if arm in _OTHER_DATA else "way of refining"
        return f"The {what} is the limit: {_refined(arm)} beats {_refined(primary)} by {gain}."
    if compared.cl is not None and compared.cl.high < 0:
        return (
            f"Contrastive learning is the limit: it costs {compared.cl.signed()} against the same model "
            "before CL. Train it more lightly (fewer steps, lower learning rate, fewer layers)."
        )
    if compared.before_cl is not None and compared.before_cl.low >= effect > compared.paired.high:
        return (
            f"Contrastive learning is the limit: before it, retrieval gained {compared.before_cl.signed()} "
            "from pretraining, and CL does not pass that on."
        )
    if not findings.conditions["chance"].passed:
        return "Retrieval is hardly better than chance: the CL recipe or the queries are the limit."
    return (
        "Contrastive learning or the data is the limit: spend on better queries, more pages or the CL recipe."
    )


def _missing(findings: Findings) -> str:
    compared, threshold = findings.compared, findings.thresholds.minimum_effect
    few = [f"{c.required} {c.name} (there are {c.measured})" for c in findings.size if not c.passed]
    if few:
        return f"The test is too small: it needs {' and '.join(few)}."
    if not findings.conditions["generation"].passed:
        return (
            "Pretraining did not improve reading enough to test the law "
            f"({compared.gain.times()}). Train longer or on more pages first."
        )
    if findings.conditions["effect"].passed:
        open_questions = " ".join(c.question for c in findings.conditions.values() if not c.passed)
        return f"Retrieval gained {compared.paired.signed()} nDCG@10, but one answer is no: {open_questions}"
    return (
        f"The change of {compared.paired.signed()} nDCG@10 is neither clearly above nor clearly below "
        f"{threshold:+g}. {_more_queries(findings)}"
    )


def _more_queries(findings: Findings) -> str:
    """How many queries would settle it: the interval shrinks with their square root."""
    paired, threshold = findings.compared.paired, findings.thresholds.minimum_effect
    # It must become narrower than the distance to the threshold, but half the threshold is fine enough.
    distance = max(abs(paired.value - threshold), threshold / 2)
    factor = math.ceil(((paired.high - paired.low) / 2 / distance) ** 2)
    if factor <= 1:
        return "It lies close to the threshold; more seeds and doses would settle it."
    needed = factor * findings.evidence.queries
    return f"About {needed:,} queries ({factor}× as many) or more seeds would settle it."


def _lexical(findings: Findings) -> str:
    bm25, ahead = findings.evidence.baselines["bm25"]["ndcg@10"].mean(), findings.compared.beyond_bm25
    if ahead.high < 0:
        return (
            f"BM25 on the text layer reaches {bm25:.3f}, more than the model ({ahead.signed()}): where pages "
            "have a text layer, search that first. Queries made of pages' own words favour BM25."
        )
    return f"BM25 on the text layer reaches {bm25:.3f}; the model differs by {ahead.signed()}."


def _text_control(findings: Findings) -> str:
    control, beyond = findings.compared.text_control, findings.compared.beyond_text
    name = f"Control, the same queries on the {findings.evidence.item}s' text: {control.signed()}"
    against = f"images against text: {beyond.signed()}"
    if control.high < 0:
        return f"{name}. Text retrieval became worse; {against}."
    does = "improved too" if control.low > 0 else "may have improved or become worse"
    if beyond.low > 0:
        return f"{name}. Text {does}; images gained more ({against}), so the gain is not the language alone."
    if findings.compared.paired.low > 0:
        return (
            f"{name}. Text {does}; {against}: the gain on images may be learning the language, not reading."
        )
    return f"{name}. Text {does}; {against}."


def _gained(findings: Findings) -> str:
    """The main comparison with both its sides."""
    thresholds, paired = findings.thresholds, findings.compared.paired
    curve = findings.evidence.curve(thresholds.primary_arm)
    moved = "rose" if paired.low > 0 else "fell" if paired.high < 0 else "went"
    return (
        f"nDCG@10 after {thresholds.primary_arm} CL {moved} from {curve[0].mean():.3f} to "
        f"{curve[-1].mean():.3f} ({paired.in_words(thresholds.confidence)})"
    )


def _moved(estimate: Estimate, minimum_effect: float) -> str:
    if estimate.low >= minimum_effect:
        return "rose"
    if estimate.high < 0:
        return "fell"
    if estimate.high < minimum_effect:
        return "did not rise by what counts as an effect"
    return "may or may not have risen"


def _refined(arm: str) -> str:
    """An arm in words: linear maps are fitted to the vectors before CL."""
    return f"{arm} without CL" if arm in _WITHOUT_CL else f"{arm} CL"
