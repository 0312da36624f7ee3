"""What the verdict says in plain words: thresholds, reasons, and the notes beside it."""

from stages.law.checks import Findings, steps_up
from stages.law.comparisons import bootstrap
from stages.law.laboratory_words import control_reasons
from stages.law.statistics import Estimate, p_in_words, ratio_of_sums
from stages.recipes import LawConfig

_WITHOUT_CL = ("whitening", "projection")


def thresholds_in_words(thresholds: LawConfig) -> tuple[str, ...]:
    """What is required, to be shown before the results are known."""
    t = thresholds
    return (
        f"Judged on {t.primary_arm} CL, with {t.confidence:.0%} intervals, on {t.minimum_queries} or more "
        f"queries from {t.minimum_documents} or more documents, {t.minimum_doses} or more doses and "
        f"{t.minimum_seeds} or more CL seeds.",
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
        "Where a number has an interval, its lower end must meet the bound; the order of the doses is judged "
        'by its value. Anything between is "inconclusive".',
    )


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
        f"(Spearman {compared.spearman.plain(2)}; {steps_up(evidence, compared)}; trend "
        f"{p_in_words(compared.trend_p)}).",
        f"At the highest dose, {'' if passed['chance'].passed else 'retrieval is not clearly above chance: '}"
        f"nDCG@10 is {compared.times_random.times()} that of a random ranking.",
        *control_reasons(findings),
    )


def notes(findings: Findings) -> tuple[str, ...]:
    """What a careful reader should know beside the verdict."""
    evidence, compared, thresholds = findings.evidence, findings.compared, findings.thresholds
    found = []
    if compared.cl is not None:
        does = "adds" if compared.cl.low > 0 else "costs" if compared.cl.high < 0 else "may add or cost:"
        found.append(f"At the highest dose, CL {does} {compared.cl.signed()} against the model before CL.")
    for arm, gain in compared.arms.items():
        found.append(
            f"At the highest dose, {refined(arm)} differs from {refined(thresholds.primary_arm)} by "
            f"{gain.signed()}."
        )
    if evidence.documents is None:
        found.append(
            "The queries come from few documents and were resampled one by one: the intervals are narrower "
            "than for new documents. More test documents would make them honest."
        )
    found.append(_lexical(findings))
    found.append(_text_control(findings))
    if compared.forgetting.low > thresholds.maximum_forgetting:
        found.append(
            f"Forgetting: the loss on the base language is {compared.forgetting.times()} that of dose 0; "
            f"above {thresholds.maximum_forgetting:g}× is too much. Raise the share of replay."
        )
    return (*found, *_best_reader(findings))


def _best_reader(findings: Findings) -> list[str]:
    """That a lower dose reads best, where the highest is clearly worse than it."""
    doses, target = findings.evidence.doses, findings.evidence.target
    best = min(range(len(doses)), key=lambda index: target[index].nats_per_byte)
    worse = ratio_of_sums(target[-1].nats, target[best].nats, bootstrap(findings.thresholds))
    if worse.low <= 1:
        return []
    return [f"Dose {doses[best]:,} reads best: the loss of the highest dose is {worse.times()} as high."]


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
    gained = findings.compared.paired.low > 0
    if gained and beyond.low > 0:
        return f"{name}. Text {does}; images gained more ({against}), so the gain is not the language alone."
    if gained:
        return (
            f"{name}. Text {does}; {against}: the gain on images may be learning the language, not reading."
        )
    return f"{name}. Text {does}; {against}."


def _moved(estimate: Estimate, minimum_effect: float) -> str:
    if estimate.low >= minimum_effect:
        return "rose"
    if estimate.high < 0:
        return "fell"
    if estimate.high < minimum_effect:
        return "did not rise by what counts as an effect"
    if estimate.low > 0:
        return "rose, perhaps by less than counts as an effect,"
    return "may or may not have risen"


def refined(arm: str) -> str:
    """An arm in words: linear maps are fitted to the vectors before CL."""
    return f"{arm} without CL" if arm in _WITHOUT_CL else f"{arm} CL"
