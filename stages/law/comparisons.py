"""The numbers that the verdict rests on: what CGP gained, and what else could explain it."""

from dataclasses import dataclass

import numpy as np

from stages.cells import BEFORE_CL, CONTROLS, PRIMARY_METRIC, Arm
from stages.law.config import LawConfig
from stages.law.measurements import EvidenceError, Measurements
from stages.law.statistics import (
    Bootstrap,
    Estimate,
    mean_over_queries,
    ratio_of_sums,
    spearman,
    trend_p,
)


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """Differences in nDCG@10 of query -> image, unless said otherwise; None where not measured.

    Attributes:
        paired: highest dose minus dose 0, after CL, primary arm: the number the verdict rests on.
        last_step: highest dose minus the one below it.
        before_cl: highest dose minus dose 0, without CL.
        cl: after CL minus before CL, at the highest dose.
        text_control: the paired difference for query -> page *text*; flat if grounding is what improves.
        beyond_bm25: the highest dose after CL minus BM25 on the text layer.
        beyond_text: ``paired`` minus ``text_control``, paired by query.
        arms: other arm -> that arm minus the primary one, at the highest dose.
        gain: nats per byte at dose 0 over the highest dose, target language.
        forgetting: nats per byte at the highest dose over dose 0, base language; above 1 is worse.
        times_random: nDCG@10 at the highest dose over that of random ranking.
        spearman, trend_p: order of the doses.
        steps_up: from how many doses to the next one the mean rose.
    """

    paired: Estimate
    last_step: Estimate | None
    before_cl: Estimate | None
    cl: Estimate | None
    text_control: Estimate
    beyond_text: Estimate
    beyond_bm25: Estimate
    arms: dict[str, Estimate]
    gain: Estimate
    forgetting: Estimate
    times_random: Estimate
    spearman: Estimate
    trend_p: float
    steps_up: int


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Differences in nDCG@10 of query -> image after the primary CL, paired by query and seed.

    Attributes:
        against: "shuffled" and "unrelated" -> dose -> CGP on the own pages minus CGP on those.
        gains: "shuffled" and "unrelated" -> that control at its highest dose minus dose 0.
        text_gains: the same for query -> text: what the control taught about the language.
        compute: highest dose minus dose 0 with so much more CL as CGP of the highest dose costs.
        unexplained: "shuffled", "unrelated", "compute", "grounding" (the text side) -> the share of the gain
            that it may reproduce (`allowed_share`) minus what it did: not negative where it explains no
            more than that.
    """

    against: dict[str, dict[int, Estimate]]
    gains: dict[str, Estimate]
    text_gains: dict[str, Estimate]
    compute: Estimate
    unexplained: dict[str, Estimate]

    def at_top(self, control: str) -> Estimate:
        """Own pages minus a control's, at the control's highest dose."""
        return self.against[control][max(self.against[control])]


def compare(found: Measurements, thresholds: LawConfig) -> Comparisons:
    """Compute every comparison that a run has."""
    how, documents, top = Bootstrap.of(thresholds), found.test.documents, found.top
    image, text = found.curve(found.primary), found.curve(found.primary, "query_to_text")

    def difference(after: np.ndarray | None, before: np.ndarray | None) -> Estimate | None:
        return None if after is None or before is None else mean_over_queries(after - before, how, documents)

    def comparable(arm: Arm) -> bool:
        seeds = found.seeds_of(top, arm)
        return arm != found.primary and (seeds == found.seeds or len(seeds) == 1)

    untouched, means = found.scores(top, BEFORE_CL), image.mean(axis=(1, 2))
    chance = float(found.test.baselines["random"][PRIMARY_METRIC].mean())
    nats, base = ([found.blocks("nats", dose, of) for dose in (0, top)] for of in ("target", "base"))
    quality = np.array([-found.nats_per_byte(dose) for dose in found.doses])
    reached = mean_over_queries(image[-1], how, documents)
    return Comparisons(
        paired=difference(image[-1], image[0]),
        last_step=difference(image[-1], image[-2]) if len(image) > 2 else None,
        before_cl=difference(untouched, found.scores(0, BEFORE_CL)),
        cl=difference(image[-1], untouched),
        text_control=difference(text[-1], text[0]),
        beyond_text=difference(image[-1] - image[0], text[-1] - text[0]),
        beyond_bm25=difference(image[-1], found.test.baselines["bm25"][PRIMARY_METRIC][None]),
        arms={
            arm.name: difference(found.scores(top, arm), image[-1]) for arm in found.arms if comparable(arm)
        },
        gain=ratio_of_sums(nats[0], nats[1], how),
        forgetting=ratio_of_sums(base[1], base[0], how),
        times_random=Estimate(**{name: level / chance for name, level in vars(reached).items()}),
        spearman=spearman(quality, image, how, documents),
        trend_p=trend_p(means, seed=thresholds.random_seed),
        steps_up=int((np.diff(means) > 0).sum()),
    )


def compare_controls(found: Measurements, thresholds: LawConfig) -> Controls:
    """Pair every control of a sweep with the law's own cells.

    Raises:
        EvidenceError: a control or the equal-compute arm is missing, or has other seeds.
    """
    how, arm, equal = Bootstrap.of(thresholds), found.primary, found.equal_compute
    doses = {control: control_doses(found, control) for control in CONTROLS}

    def mean(difference: np.ndarray) -> Estimate:
        return mean_over_queries(difference, how, found.test.documents)

    def at_top(direction: str) -> dict[str, np.ndarray]:
        return {
            control: found.paired(max(doses[control]), arm, direction, pages=control) for control in CONTROLS
        }

    own, own_text = found.curve(arm), found.curve(arm, "query_to_text")
    image, text = at_top("query_to_image"), at_top("query_to_text")
    more_cl = found.paired(0, equal.arm, steps=equal.steps)
    reproduced = {control: scores - own[0] for control, scores in image.items()}
    reproduced |= {"compute": more_cl - own[0], "grounding": own_text[-1] - own_text[0]}
    gain = own[-1] - own[0]
    return Controls(
        against={
            control: {
                dose: mean(found.scores(dose, arm) - found.paired(dose, arm, pages=control))
                for dose in doses[control]
            }
            for control in CONTROLS
        },
        gains={control: mean(scores - own[0]) for control, scores in image.items()},
        text_gains={control: mean(scores - own_text[0]) for control, scores in text.items()},
        compute=mean(own[-1] - more_cl),
        unexplained={
            name: mean(gain * allowed_share(name, thresholds) - part) for name, part in reproduced.items()
        },
    )


def control_doses(found: Measurements, pages: str) -> list[int]:
    """Doses of a control after the primary CL, ascending. Raises EvidenceError without the highest."""
    cells = found.cells("retrieval", arm=found.primary, pages=pages, steps=found.steps, split="test")
    doses = sorted({cell.dose for cell in cells})
    if found.top not in doses:
        raise EvidenceError(
            f"no retrieval after CGP on {pages} pages at dose {found.top}; run this control first."
        )
    return doses


def leads(compared: Comparisons, controls: Controls) -> dict[str, Estimate]:
    """What the own pages gain more than "shuffled", "unrelated", "compute", "grounding" (the text side)."""
    of_pages = {name: controls.at_top(name) for name in controls.against}
    return of_pages | {"compute": controls.compute, "grounding": compared.beyond_text}


def allowed_share(name: str, thresholds: LawConfig) -> float:
    """Share of the gain that "shuffled", "unrelated", "compute" or "grounding" may reproduce."""
    return thresholds.maximum_explained_by_shuffled if name == "shuffled" else thresholds.maximum_explained
