"""The thresholds of the verdict, fixed before the run. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LawConfig:
    """Thresholds of the verdict, fixed before the run; stages/law/verdict.py says how each one is used."""

    primary_arm: str = "text-only"
    """The CL arm that the law is judged on; the other arms stand beside it."""
    confidence: float = 0.95
    minimum_effect: float = 0.02
    """nDCG@10 gained from dose 0 to the highest dose; the whole interval must lie above it."""
    minimum_generative_gain: float = 2.0
    """Nats per byte at dose 0 over those at the highest dose, lower end of the interval."""
    minimum_times_random: float = 2.0
    """Lower end of nDCG@10 at the highest dose, as a multiple of random ranking."""
    minimum_spearman: float = 0.7
    """Rank correlation over doses of generative quality with nDCG@10."""
    maximum_trend_p: float = 0.10
    """Exact permutation test over doses; four doses in perfect order give 1/24."""
    maximum_forgetting: float = 1.5
    """Base-language nats per byte, highest dose over dose 0; above it the report warns."""
    maximum_explained: float = 0.75
    """Of a sweep: share of the gain that anything but reading the own pages may reproduce (CGP on unrelated
    pages, CL with equal compute, the same queries on text); an interval must show that it does not. To be
    ahead at all is not enough: checkpoints differ by chance, which intervals over queries cannot show."""
    maximum_explained_by_shuffled: float = 0.5
    """The same for CGP on shuffled image-text pairs, the control that is there to refute: so strict that one
    which gains alike is never mistaken (stages/law/simulation.py)."""
    ceiling_margin: float = 0.02
    """nDCG@10 by which a fitted ceiling may lie above the highest measured budget and still count as seen."""
    minimum_queries: int = 100
    minimum_documents: int = 5
    """That the queries come from. From so many on whole documents are resampled; with fewer, queries one by
    one, whose intervals are too narrow for a verdict."""
    minimum_doses: int = 4
    minimum_seeds: int = 2
    bootstrap_resamples: int = 4000
    random_seed: int = 0
    sample_pages: int = 6
    sample_searches: int = 5
    images_per_search: int = 4


@dataclass(frozen=True, kw_only=True)
class LawSettings:
    """What the verdict and its report take of a recipe."""

    law: LawConfig
    refine_steps: int
    """CL steps of the cells that the law is judged on."""
    item: str
    """What a sample is called: "page", or "passage" where pages are cut up."""
    target_documents: str
    """Name of the documents' folder."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """The complete recipe, for display, without places of this machine."""


def best_learning_rate(validation: Mapping[float, float]) -> float:
    """The learning rate with the highest score on validation documents; of equal ones the smallest."""
    return min(validation, key=lambda rate: (-validation[rate], rate))
