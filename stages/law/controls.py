"""What could explain the gain other than reading the pages better: the paired differences that decide."""

from dataclasses import dataclass

import numpy as np

from stages.law.comparisons import bootstrap
from stages.law.evidence import Evidence
from stages.law.laboratory import Laboratory
from stages.law.statistics import Estimate, paired_difference
from stages.recipes import LawConfig


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


def allowed_share(name: str, thresholds: LawConfig) -> float:
    """Share of the gain that "shuffled", "unrelated", "compute" or "grounding" may reproduce."""
    return thresholds.maximum_explained_by_shuffled if name == "shuffled" else thresholds.maximum_explained


def compare_controls(evidence: Evidence, laboratory: Laboratory, thresholds: LawConfig) -> Controls:
    """Pair every control with the law's own cells."""
    how, top = bootstrap(thresholds), evidence.doses[-1]

    def own(dose: int, direction: str = "query_to_image") -> np.ndarray:
        return evidence.scores(dose, thresholds.primary_arm, direction)

    def minus(after: np.ndarray, before: np.ndarray) -> Estimate:
        return paired_difference(after, before, how, evidence.documents)

    def gains(direction: str) -> dict[str, Estimate]:
        return {
            control: minus(by_dose[max(by_dose)][direction], own(0, direction))
            for control, by_dose in laboratory.controls.items()
        }

    gain = own(top) - own(0)
    reproduced = {
        control: by_dose[max(by_dose)]["query_to_image"] - own(0)
        for control, by_dose in laboratory.controls.items()
    }
    reproduced["compute"] = laboratory.equal_compute["query_to_image"] - own(0)
    reproduced["grounding"] = own(top, "query_to_text") - own(0, "query_to_text")
    return Controls(
        against={
            control: {
                dose: minus(own(dose), scores["query_to_image"]) for dose, scores in sorted(by_dose.items())
            }
            for control, by_dose in laboratory.controls.items()
        },
        gains=gains("query_to_image"),
        text_gains=gains("query_to_text"),
        compute=minus(own(top), laboratory.equal_compute["query_to_image"]),
        unexplained={
            name: minus(gain * allowed_share(name, thresholds), part) for name, part in reproduced.items()
        },
    )
