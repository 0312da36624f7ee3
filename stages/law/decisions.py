"""The decision that a reader takes home: go on with generative pretraining, stop, or find out first."""

import math

from stages.law.checks import Findings
from stages.law.laboratory_words import CONTROL_NAMES
from stages.law.statistics import count_units
from stages.law.words import refined

_OTHER_DATA = ("multimodal-20", "CLIP-style")


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
    # Without a gain there is nothing that a control could explain.
    if findings.explained_by and compared.paired.high >= findings.thresholds.minimum_effect:
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
        return f"The {what} is the limit: {refined(arm)} beats {refined(primary)} by {gain}."
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
        shared = findings.evidence.query_documents < findings.thresholds.minimum_documents
        add = " Add documents: the split gives the test a share of them." if shared else ""
        return f"The test is too small: it needs {' and '.join(few)}.{add}"
    if not findings.conditions["generation"].passed:
        return (
            "Pretraining did not improve reading enough to test the law "
            f"({compared.gain.times()}). Train longer or on more pages first."
        )
    if findings.conditions["effect"].passed:
        open_questions = " ".join(c.question for c in findings.conditions.values() if not c.passed)
        return (
            f"Retrieval gained {compared.paired.signed()} nDCG@10, but not every condition is shown: "
            f"{open_questions}"
        )
    return (
        f"The change of {compared.paired.signed()} nDCG@10 is neither clearly above nor clearly below "
        f"{threshold:+g}. {_more_data(findings)}"
    )


def _more_data(findings: Findings) -> str:
    """How much test data would settle it: the interval shrinks with the square root of what is resampled."""
    paired, threshold = findings.compared.paired, findings.thresholds.minimum_effect
    # It must become narrower than the distance to the threshold, but half the threshold is fine enough.
    distance = max(abs(paired.value - threshold), threshold / 2)
    factor = math.ceil(((paired.high - paired.low) / 2 / distance) ** 2)
    if factor <= 1:
        return "The interval is narrow already: the gain is about as large as what just counts as an effect."
    documents = findings.evidence.documents
    units = "queries" if documents is None else "test documents"
    needed = factor * count_units(findings.evidence.queries, documents)
    return f"About {needed:,} {units} ({factor}× as many) would settle it."


def _gained(findings: Findings) -> str:
    """The main comparison with both its sides."""
    thresholds, paired = findings.thresholds, findings.compared.paired
    curve = findings.evidence.curve(thresholds.primary_arm)
    moved = "rose" if paired.low > 0 else "fell" if paired.high < 0 else "went"
    return (
        f"nDCG@10 after {thresholds.primary_arm} CL {moved} from {curve[0].mean():.3f} to "
        f"{curve[-1].mean():.3f} ({paired.in_words(thresholds.confidence)})"
    )
