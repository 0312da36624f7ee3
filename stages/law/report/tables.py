"""The tables behind the report's figures: filters of what was measured, with numbers and keys and no labels.

Each measured number ``x`` has its interval beside it, as ``x_low`` and ``x_high``. Estimates come from the
findings, so that page, figures and verdict.json say one number. A table without rows is not in the report.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from stages.cells import BEFORE_CL, PRIMARY_METRIC
from stages.law import estimates
from stages.law.bound import BoundReading, held_or_not, losses_by_size
from stages.law.comparisons import allowed_share
from stages.law.measurements import TEXTS
from stages.law.statistics import Estimate
from stages.law.verdict import Findings

SEARCHES = IMAGE, TEXT = "query_to_image", "query_to_text"
GEOMETRY = ("anisotropy_image", "anisotropy_text", "mutual_knn", "cka")
_KINDS = ("none", "linear map", "refinement", "soup")
_UNKNOWN = Estimate(value=math.nan, low=math.nan, high=math.nan)
_FITTED_POINTS = 61


def dose_response(found: Findings) -> pd.DataFrame:
    """nDCG@10 of query -> image by arm and dose; the baselines, which have no dose, last."""
    levels = _baselines(found).sort_values("arm").assign(low=math.nan, high=math.nan)
    return _level(pd.concat([_at_every_dose(found), levels]), PRIMARY_METRIC, "arm", "kind", "dose")


def law(found: Findings) -> pd.DataFrame:
    """Held-out loss before CL and nDCG@10, by arm and dose; then what the lower doses predict."""
    reached = _level(_at_every_dose(found), PRIMARY_METRIC, "arm", "kind", "dose")
    if found.prediction is not None:
        place = {"arm": found.thresholds.primary_arm, "kind": "prediction", "dose": found.measurements.top}
        reached = pd.concat([reached, _frame([place | {PRIMARY_METRIC: found.prediction.predicted}])])
    return reached.merge(_language(found, "target", "nats_per_byte"), on="dose")


def generation(found: Findings) -> pd.DataFrame:
    """Held-out loss and character error rate by language and dose."""
    return pd.concat(
        _language(found, name, "nats_per_byte")
        .merge(_language(found, name, "character_error_rate"), on="dose")
        .assign(language=name)
        for name in ("target", "base")
    )


def geometry(found: Findings) -> pd.DataFrame:
    """Geometry by layer of every dose, before CL and after the primary arm's; means over its seeds.

    Empty of a measure that does not exist: a layer of identical vectors. Without rows where the corpus is
    smaller than a neighbourhood, or every layer is of identical vectors.
    """
    rows = []
    for arm in (BEFORE_CL, found.measurements.primary):
        for dose in found.measurements.doses:
            place = {"dose": dose, "arm": arm, "split": "test"}
            layers = {
                name: found.measurements.values("retrieval", "geometry", name, **place)
                for name in ("layer", *GEOMETRY)
            }
            if any(values is None or not values.size for values in layers.values()):
                return pd.DataFrame()
            means = pd.DataFrame({name: values.mean(axis=0) for name, values in layers.items()})
            rows.append(means.assign(arm=arm.name, kind=arm.kind, dose=dose, seeds=len(layers["layer"])))
    table = pd.concat(rows).assign(chance_mutual_knn=found.measurements.test.chance_mutual_knn)
    return table if table["mutual_knn"].notna().any() else pd.DataFrame()


def bound(found: Findings) -> pd.DataFrame:
    """Both losses by kind of text, pages of CGP and dose, and whether each reading of the law held; nats."""
    return _frame(
        _but(one, "critic_ndcg", "embedding_ndcg")
        | {"chance": math.log(one.candidates)}
        | {f"{name}_held": held_or_not(getattr(one, name)) for name in ("ceiling", "guarantee")}
        for one in _texts_first(found)
    )


def bound_by_size(found: Findings) -> pd.DataFrame:
    """Both losses over the first n candidates, at dose 0 and at the highest dose of a critic; nats."""
    doses = sorted({one.dose for one in found.bounds if one.pages == "target"})
    columns = ("kind", "dose", "candidates", "chance", "generative", "contrastive")
    return _frame(
        dict(zip(columns, (kind, dose, size, math.log(size), *losses), strict=True))
        for dose in doses[:: max(len(doses) - 1, 1)]
        for kind in TEXTS
        for size, losses in sorted(losses_by_size(found.measurements, dose, kind).items())
    )


def critic(found: Findings) -> pd.DataFrame:
    """What the critic knows of a page's text, and retrieval by likelihood beside that by cosine after CL."""
    known = _level(_rows(found, quantity="critic text"), "nats_per_byte", "pages", "dose")
    columns = ("kind", "pages", "dose", "critic_ndcg", "embedding_ndcg")
    reached = _frame({name: getattr(one, name) for name in columns} for one in _texts_first(found))
    return reached if reached.empty else reached.merge(known, on=["pages", "dose"])


def ceilings(found: Findings) -> pd.DataFrame:
    """nDCG@10 of query -> image by dose and CL steps (0: before CL); the fit too, where it has a plateau."""
    rows = []
    for one in found.ceilings:
        level = {
            "dose": one.dose, "learning_rate": one.learning_rate, "plateau": one.plateau or _UNKNOWN,
        }  # fmt: skip
        for steps, point in one.curve.items():
            rows.append(level | {"kind": "measured", "steps": steps, PRIMARY_METRIC: point})
        if one.plateau is not None:
            before, height = one.curve[0].value, one.plateau.value
            for steps in np.linspace(0, max(one.curve), _FITTED_POINTS):
                reached = height - (height - before) * math.exp(-steps / one.time_constant)
                rows.append(level | {"kind": "fitted", "steps": steps, PRIMARY_METRIC: reached})
    return _frame(rows)


def plateau(found: Findings) -> pd.DataFrame:
    """The ceiling of every dose beside its held-out loss; `height` is the plateau, or highest measured."""
    heights = _frame(_but(one, "plateau", "curve") | {"height": one.height} for one in found.ceilings)
    losses = _language(found, "target", "nats_per_byte")
    return heights if heights.empty else heights.merge(losses, on="dose")


def learning_rates(found: Findings) -> pd.DataFrame:
    """Best nDCG@10 over the budgets on validation documents, by dose and learning rate."""
    return _frame(
        {"dose": dose, "learning_rate": rate, "validation": score, "chosen": rate == curve.learning_rate}
        for dose, curve in found.budgets.items()
        for rate, score in sorted(curve.validation.items())
    )


def controls(found: Findings) -> pd.DataFrame:
    """Paired differences in nDCG@10 at the highest dose, in groups; those of which `decides` are conditions.

    Each gain over dose 0; own pages minus each control; and the share of the own gain that a control may
    reproduce, minus what it does.
    """
    compared, measured = found.compared, found.controls
    images = {"target": compared.paired} | measured.gains
    texts = {"target": compared.text_control} | measured.text_gains
    ahead = {name: measured.at_top(name) for name in measured.against}
    ahead |= {"compute": measured.compute, "grounding": compared.beyond_text}
    groups = {("gain", IMAGE): images, ("gain", TEXT): texts, ("ahead", None): ahead}
    groups["unexplained", None] = measured.unexplained
    return _frame(
        {
            "group": group,
            "control": name,
            "direction": direction,
            "share": allowed_share(name, found.thresholds) if group == "unexplained" else None,
            "steps": found.measurements.equal_compute.steps if name == "compute" else None,
            "decides": group != "gain" or (direction, name) == (IMAGE, "target"),
            "difference": difference,
        }
        for (group, direction), differences in groups.items()
        for name, difference in differences.items()
    )


def pretraining_pages(found: Findings) -> pd.DataFrame:
    """nDCG@10 after the primary CL by pages of CGP and dose, searching images and texts.

    Dose 0 is one model, whatever comes after it. The equal-compute arm starts from it, too.
    """
    rows = []
    for direction in SEARCHES:
        searched = _rows(found, quantity=direction, metric=PRIMARY_METRIC, split="test", seed=None)
        primary = searched[searched["arm"] == found.thresholds.primary_arm].assign(steps=None)
        for pages in ("target", *found.controls.against):
            here = (primary["pages"] == pages) | ((primary["pages"] == "target") & (primary["dose"] == 0))
            rows.append(primary[here].sort_values("dose").assign(control=pages))
        rows.append(searched[searched["kind"] == "equal compute"].assign(control="compute"))
    table = pd.concat(rows).rename(columns={"quantity": "direction"})
    return _level(table, PRIMARY_METRIC, "control", "direction", "dose", "steps")


def baselines(found: Findings) -> pd.DataFrame:
    """nDCG@10 of query -> image of every model at dose 0 and at the highest dose; baselines have no dose."""
    own = _own(found).sort_values("kind", key=lambda kinds: kinds.map(_KINDS.index), kind="stable")
    ends = own[own["dose"].isin((0, found.measurements.top))]
    levels = _baselines(found).sort_values("arm", ascending=False)
    return _level(pd.concat([levels, ends]), PRIMARY_METRIC, "arm", "kind", "dose")


def adapters(found: Findings) -> pd.DataFrame:
    """LoRA rank and alpha at the highest dose: how far the weights moved, what they gained and lost."""
    rows, scores = [], _rows(found, quantity=IMAGE, metric=PRIMARY_METRIC, split="test")
    for cell in estimates.adapters(found.measurements):
        rank, alpha, moved = (
            found.measurements.number("refine", cell, "training", name)
            for name in ("lora_rank", "lora_alpha", "weight_change")
        )
        before, after = (
            found.measurements.values("generation", "target", "nats_per_byte", dose=cell.dose, arm=arm)
            for arm in (BEFORE_CL, cell.arm)
        )
        before, after = before[0].item(), after[0].item()
        (score,) = scores[(scores["arm"] == cell.arm.name) & (scores["seed"] == cell.seed)].itertuples()
        rows.append(
            {"arm": cell.arm.name, "rank": int(rank), "alpha": int(alpha)}
            | {"primary": cell.arm == found.measurements.primary, "weight_change": moved}
            | {PRIMARY_METRIC: estimates.estimate_of(score)}
            | {"nats_per_byte_before": before, "nats_per_byte_after": after, "drift": after / before}
        )
    return _frame(rows)


def other_tests(found: Findings) -> pd.DataFrame:
    """nDCG@10 of query -> image on each further test set, by dose, with its baselines."""
    tables = [pd.DataFrame()]
    for name in found.measurements.other_tests:
        test, rows = found.measurements.searched[name], _rows(found, quantity=IMAGE, split=name)
        levels = {kind: scores[PRIMARY_METRIC].mean() for kind, scores in test.baselines.items()}
        rows = _level(rows, PRIMARY_METRIC, "dose").assign(test=name, queries=test.queries, **levels)
        tables.append(rows.assign(corpus_size=test.corpus_size))
    return pd.concat(tables)


def _rows(found: Findings, **keys: Any) -> pd.DataFrame:
    """Estimates whose columns equal `keys`, None for empty."""
    table = found.estimates
    for name, key in keys.items():
        table = table[table[name].isna() if key is None else table[name] == key]
    return table


def _level(rows: pd.DataFrame, name: str, *keys: str) -> pd.DataFrame:
    """`keys`, and the estimates as columns `name`, ``NAME_low`` and ``NAME_high``."""
    ends = {"value": name, "low": f"{name}_low", "high": f"{name}_high"}
    return rows[[*keys, *ends]].rename(columns=ends)


def _frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table; of an estimate three columns."""
    flat = []
    for row in rows:
        flat.append({})
        for name, value in row.items():
            if isinstance(value, Estimate):
                flat[-1] |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
            else:
                flat[-1][name] = value
    return pd.DataFrame(flat, dtype=object)


def _but(one: object, *names: str) -> dict[str, Any]:
    """The fields of a dataclass but these."""
    return {name: value for name, value in vars(one).items() if name not in names}


def _own(found: Findings) -> pd.DataFrame:
    """nDCG@10 of the dose-response: before CL, the primary arm, the other arms; doses ascending."""
    rows = estimates.in_dose_response(_rows(found, quantity=IMAGE, metric=PRIMARY_METRIC))
    arms = dict.fromkeys((BEFORE_CL, found.measurements.primary, *found.measurements.arms))
    order = {arm.name: place for place, arm in enumerate(arms)}
    return rows.sort_values(["arm", "dose"], key=lambda keys: keys.map(order) if keys.name == "arm" else keys)


def _at_every_dose(found: Findings) -> pd.DataFrame:
    """Those of the arms that were run at every dose."""
    doses = len(found.measurements.doses)
    return _own(found).groupby("arm", sort=False).filter(lambda rows: len(rows) == doses)


def _baselines(found: Findings) -> pd.DataFrame:
    return _rows(found, kind=estimates.BASELINE, quantity=IMAGE, metric=PRIMARY_METRIC)


def _language(found: Findings, language: str, metric: str) -> pd.DataFrame:
    return _level(_rows(found, quantity=language, metric=metric), metric, "dose").sort_values("dose")


def _texts_first(found: Findings) -> list[BoundReading]:
    """Texts before queries, own pages first; doses stay in order."""
    return sorted(found.bounds, key=lambda one: (one.kind != "text", one.pages != "target", one.pages))
