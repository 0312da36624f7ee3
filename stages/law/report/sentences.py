"""What the findings say in plain words: the sentences are in sentences.jinja, here is what chooses them."""

import functools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from stages.law.bound import OPEN, SURE, BoundReading, held_or_not
from stages.law.config import LawConfig
from stages.law.report import labels
from stages.law.statistics import Estimate, count_units, p_in_words, ratio_of_sums
from stages.law.verdict import Findings


@dataclass(frozen=True, kw_only=True)
class Story:
    """What the findings say: what to do, why, what else to know, and every check.

    `checks`: each with name, question, what was required before the run, what was measured, whether passed.
    """

    decision: str
    search_with: str
    """Which way of searching finds most; empty where there is one."""
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    checks: list[dict[str, Any]]


def tell(findings: Findings) -> Story:
    """Put the findings into words."""
    compared, checks = findings.compared, []
    for check in findings.checks:
        said = _lines("check", findings, check.name, check.required, check.measured)
        words = dict(zip(("question", "required", "measured"), said, strict=True))
        checks.append({"name": check.name, **words, "passed": check.passed})
    return Story(
        decision=" ".join(_lines("decision", findings, compared, checks)),
        search_with=" ".join(_lines("search_with", findings)) if findings.best_reading else "",
        reasons=_lines("reasons", findings, compared, checks),
        notes=_lines("notes", findings, compared, *_best_reader(findings)),
        checks=checks,
    )


def thresholds_in_words(thresholds: LawConfig) -> tuple[str, ...]:
    """What is required, to be shown before the results are known."""
    return _lines("thresholds", thresholds)


def bounds_in_words(bounds: Iterable[BoundReading]) -> tuple[str, ...]:
    """Both readings of the law over the doses of the own pages, one sentence for each kind of text."""
    return _lines("bounds", bounds)


def environment(**options: Any) -> jinja2.Environment:
    """Templates of this folder, with the filters that put numbers into words."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    found.filters |= {
        "show": format,
        "log": math.log,
        "p": p_in_words,
        "nats": nats_in_words,
        "loss": lambda loss: "{} [{}, {}]".format(*map(nats_in_words, (loss.value, loss.low, loss.high))),
        "by_sign": by_sign,
        "side": lambda difference: by_sign(difference, "ahead of", "behind", "not clearly apart from"),
        "moved": moved,
        "tally": _tally,
        "refined": refined,
        "more_data": _more_data,
    }
    found.globals |= {"SURE": SURE, "READINGS": labels.READINGS}
    return found


def nats_in_words(loss: float) -> str:
    """A loss in nats; ``< 0.001`` where a critic is sure."""
    return "< 0.001" if loss < SURE else f"{loss:.3g}"


def by_sign(estimate: Estimate, above: str, below: str, both: str) -> str:
    """What is said of an interval wholly above zero, wholly below it, or on both sides."""
    return above if estimate.low > 0 else below if estimate.high < 0 else both


def moved(gain: Estimate, minimum_effect: float) -> str:
    """The verb of the main comparison."""
    if gain.low >= minimum_effect:
        return "rose"
    if 0 <= gain.high < minimum_effect:
        return "did not rise by what counts as an effect"
    rose = "rose, perhaps by less than counts as an effect,"
    return by_sign(gain, rose, "fell", "may or may not have risen")


def refined(findings: Findings, name: str) -> str:
    """An arm in words: linear maps are fitted to the vectors before CL."""
    maps = {arm.name for arm in findings.measurements.arms if arm.kind == "linear map"}
    return f"{name} without CL" if name in maps else f"{name} CL"


@functools.cache
def _sentences() -> Any:
    """The macros of sentences.jinja."""
    return environment().get_template("sentences.jinja").module


def _lines(macro: str, *arguments: Any) -> tuple[str, ...]:
    """Lines that a macro of sentences.jinja says, the empty ones left out."""
    said = getattr(_sentences(), macro)(*arguments)
    return tuple(line.strip() for line in said.splitlines() if line.strip())


def _tally(differences: Iterable[Estimate]) -> str:
    """How often a reading of the bound held: ``held at 6 of 8 doses, is open at 2``."""
    readings = [held_or_not(difference) for difference in differences]
    (word, count), *rest = Counter(f"is {OPEN}" if one == OPEN else one for one in readings).most_common()
    return ", ".join((f"{word} at {count} of {len(readings)} doses", *(f"{word} at {n}" for word, n in rest)))


def _best_reader(findings: Findings) -> tuple[int, Estimate]:
    """The dose that reads best, and how many times higher the loss of the highest dose is."""
    found = findings.measurements
    best = min(found.doses, key=found.nats_per_byte)
    return best, ratio_of_sums(found.blocks("nats", found.top), found.blocks("nats", best), findings.how)


def _more_data(findings: Findings) -> str:
    """How much test data would settle it: the interval shrinks with the square root of what is resampled."""
    paired, threshold = findings.compared.paired, findings.thresholds.minimum_effect
    # It must become narrower than the distance to the threshold, but half the threshold is fine enough.
    distance = max(abs(paired.value - threshold), threshold / 2)
    factor = math.ceil(((paired.high - paired.low) / 2 / distance) ** 2)
    if factor <= 1:
        return "The interval is narrow already: the gain is about as large as what just counts as an effect."
    test = findings.measurements.test
    units = "queries" if test.documents is None else "test documents"
    needed = factor * count_units(test.queries, test.documents)
    return f"About {needed:,} {units} ({factor}× as many) would settle it."
