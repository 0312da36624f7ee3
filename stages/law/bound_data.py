"""The rows behind bound, critic and ceilings: what the law says of generation, and how far CL can go."""

import math
from collections.abc import Sequence

import numpy as np

from stages.law.bound import BoundReading, held_or_not
from stages.law.comparisons import bootstrap
from stages.law.figure_data import PAGES
from stages.law.figure_style import Row, columns
from stages.law.laboratory import Laboratory
from stages.law.statistics import ratio_of_sums
from stages.law.verdict import Verdict

_FITTED_POINTS = 61


def bound_rows(verdict: Verdict) -> list[Row]:
    """Both losses by kind of text, pages of CGP and dose, and whether each reading of the law held; nats."""
    return [
        {
            "kind": one.kind,
            "pages": PAGES[one.pages],
            "dose": one.dose,
            "candidates": one.candidates,
            "chance": math.log(one.candidates),
            **columns("generative", one.generative),
            **columns("contrastive", one.contrastive),
            "slack": one.slack,
            **columns("ceiling", one.ceiling),
            "ceiling_held": held_or_not(one.ceiling),
            **columns("guarantee", one.guarantee),
            "guarantee_held": held_or_not(one.guarantee),
        }
        for one in _by_kind(verdict.laboratory.bounds)
    ]


def bound_by_size_rows(laboratory: Laboratory) -> list[Row]:
    """Both losses over the first n candidates, at dose 0 and at the highest dose of a critic; nats."""
    doses = sorted(dose for pages, dose in laboratory.critics if pages == "target")
    return [
        {
            "kind": kind,
            "dose": dose,
            "candidates": size,
            "chance": math.log(size),
            "generative": generative,
            "contrastive": contrastive,
        }
        for dose in doses[:: max(len(doses) - 1, 1)]
        for kind, bound in laboratory.critics["target", dose].bounds.items()
        for size, (generative, contrastive) in sorted(bound.by_size.items())
    ]


def critic_rows(verdict: Verdict, laboratory: Laboratory) -> list[Row]:
    """What the critic knows of a page's text, and retrieval by likelihood beside that by cosine after CL."""
    how = bootstrap(verdict.thresholds)
    known = {
        place: ratio_of_sums(critic.nats_saved, critic.bytes, how)
        for place, critic in laboratory.critics.items()
    }
    return [
        {
            "kind": one.kind,
            "pages": PAGES[one.pages],
            "dose": one.dose,
            **columns("nats_per_byte", known[one.pages, one.dose]),
            **columns("critic_ndcg@10", one.critic_ndcg),
            **columns("embedding_ndcg@10", one.embedding_ndcg),
        }
        for one in _by_kind(verdict.laboratory.bounds)
    ]


def ceiling_rows(verdict: Verdict) -> list[Row]:
    """nDCG@10 of query -> image by dose and CL steps (0: before CL); the fit too, where it has a plateau."""
    rows = []
    for one in verdict.laboratory.ceilings:
        level = {"learning_rate": one.learning_rate, **columns("plateau", one.plateau)}
        for steps, point in one.curve.items():
            place = {"dose": one.dose, "kind": "measured", "steps": steps}
            rows.append(place | columns("ndcg@10", point) | level)
        if one.plateau is not None:
            before, height = one.curve[0].value, one.plateau.value
            for steps in np.linspace(0, max(one.curve), _FITTED_POINTS):
                reached = height - (height - before) * math.exp(-steps / one.time_constant)
                place = {"dose": one.dose, "kind": "fitted", "steps": float(steps)}
                rows.append(place | columns("ndcg@10", None) | {"ndcg@10": reached} | level)
    return rows


def plateau_rows(verdict: Verdict) -> list[Row]:
    """The ceiling of every dose beside its held-out loss; `height` is the plateau, or highest measured."""
    losses = {row["dose"]: row["nats_per_byte"] for row in verdict.table}
    return [
        {
            "dose": one.dose,
            **columns("nats_per_byte", losses[one.dose]),
            **columns("height", one.height),
            "determined": one.determined,
            "reason": one.reason,
            **columns("best", one.best),
            "best_steps": one.best_steps,
            "time_constant": one.time_constant,
            "learning_rate": one.learning_rate,
        }
        for one in verdict.laboratory.ceilings
    ]


def learning_rate_rows(laboratory: Laboratory) -> list[Row]:
    """Best nDCG@10 over the budgets on validation documents, by dose and learning rate."""
    return [
        {
            "dose": dose,
            "learning_rate": rate,
            "validation_ndcg@10": score,
            "chosen": rate == curve.learning_rate,
        }
        for dose, curve in sorted(laboratory.ceilings.items())
        for rate, score in sorted(curve.validation.items())
    ]


def _by_kind(bounds: Sequence[BoundReading]) -> list[BoundReading]:
    """Texts before queries, own pages first; doses stay in order."""
    return sorted(bounds, key=lambda one: (one.kind != "text", one.pages != "target", one.pages))
