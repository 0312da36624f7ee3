"""The tables behind the report's figures: rows of what was measured, with numbers and keys and no labels.

An `Estimate` ``x`` becomes three columns: ``x``, ``x_low`` and ``x_high``. Where page and verdict.json say a
number too, it is the same object. A table without rows is not in the report.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from stages.cells import BEFORE_CL, PRIMARY_METRIC, Cell
from stages.law.bound import BoundReading, critics, held_or_not
from stages.law.comparisons import allowed_share, leads
from stages.law.measurements import TEXTS, EvidenceError, Measurements
from stages.law.statistics import Estimate, mean_over_queries, ratio_of_sums
from stages.law.verdict import Findings

Row = dict[str, Any]
SEARCHES = IMAGE, TEXT = "query_to_image", "query_to_text"
GEOMETRY = ("anisotropy_image", "anisotropy_text", "mutual_knn", "cka")
_KINDS = ("none", "linear map", "refinement", "soup")
_UNKNOWN = Estimate(value=math.nan, low=math.nan, high=math.nan)
_FITTED_POINTS = 61


def frame(rows: Iterable[Row]) -> pd.DataFrame:
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


def dose_response(found: Findings) -> list[Row]:
    """nDCG@10 of query -> image by arm and dose; the baselines, which have no dose or interval, last."""
    levels = sorted(_baselines(found), key=lambda row: row["arm"])
    return _at_every_dose(found) + [row | {PRIMARY_METRIC: row[PRIMARY_METRIC].value} for row in levels]


def law(found: Findings) -> Iterator[Row]:
    """Held-out loss before CL and nDCG@10, by arm and dose; then what the lower doses predict."""
    rows = _at_every_dose(found)
    if found.prediction is not None:
        place = {"arm": found.thresholds.primary_arm, "kind": "prediction", "dose": found.measurements.top}
        rows.append(place | {PRIMARY_METRIC: found.prediction.predicted})
    return (row | _loss(found, row["dose"]) for row in rows)


def readings(found: Findings) -> Iterator[Row]:
    """nDCG@10 of each reading by dose, before CL and after the primary one."""
    kinds = {arm.name: arm.kind for arm in (BEFORE_CL, found.measurements.primary)}
    for one in found.readings:
        for dose, level in zip(one.doses, one.curve, strict=True):
            place = {"reading": one.reading, "arm": one.arm, "kind": kinds[one.arm], "dose": dose}
            yield place | {PRIMARY_METRIC: level}


def generation(found: Findings) -> Iterator[Row]:
    """Held-out loss and character error rate by language and dose."""
    for language, dose in product(("target", "base"), found.measurements.doses):
        errors = found.estimates[language, "character_error_rate", dose, BEFORE_CL.name]
        loss = {"dose": dose} | _loss(found, dose, language)
        yield loss | {"character_error_rate": errors, "language": language}


def geometry(found: Findings) -> list[Row]:
    """Geometry by layer of every dose, before CL and after the primary arm's; means over its seeds.

    Empty of a measure that does not exist: a layer of identical vectors. Without rows where the corpus is
    smaller than a neighbourhood, or every layer is of identical vectors.
    """
    rows, chance = [], found.measurements.test.chance_mutual_knn
    for arm, dose in product((BEFORE_CL, found.measurements.primary), found.measurements.doses):
        names = ("layer", *GEOMETRY)
        layers = {name: found.measurements.scores(dose, arm, "geometry", name) for name in names}
        if any(values is None or not values.size for values in layers.values()):
            return []
        means = pd.DataFrame({name: values.mean(axis=0) for name, values in layers.items()})
        place = {"arm": arm.name, "kind": arm.kind, "dose": dose, "seeds": len(layers["layer"])}
        rows += [row | place | {"chance_mutual_knn": chance} for row in means.to_dict("records")]
    return [] if all(math.isnan(row["mutual_knn"]) for row in rows) else rows


def bound(found: Findings) -> Iterator[Row]:
    """Both losses by kind of text, pages of CGP and dose, and whether each reading of the law held; nats."""
    for one in _texts_first(found):
        held = {f"{name}_held": held_or_not(getattr(one, name)) for name in ("ceiling", "guarantee")}
        yield _but(one, "critic_ndcg", "embedding_ndcg") | {"chance": math.log(one.candidates)} | held


def bound_by_size(found: Findings) -> Iterator[Row]:
    """Both mean losses over the first n candidates, at dose 0 and at the highest dose of a critic; nats."""
    measured = found.measurements
    doses = sorted({one.dose for one in found.bounds if one.pages == "target"})
    for dose, kind in product(doses[:: max(len(doses) - 1, 1)], TEXTS):
        metrics = measured.table[measured.table.quantity == f"critic {kind}"].metric.unique()
        for size in sorted(int(name.removeprefix("loss@")) for name in metrics if name.startswith("loss@")):
            generative = measured.values("critic", f"critic {kind}", f"loss@{size}", dose=dose)
            contrastive = measured.paired(dose, measured.primary, f"contrastive {kind}", f"loss@{size}")
            row = {"kind": kind, "dose": dose, "candidates": size, "chance": math.log(size)}
            yield row | {"generative": generative.item(), "contrastive": float(np.mean(contrastive))}


def critic(found: Findings) -> Iterator[Row]:
    """What the critic knows of a page's text, and retrieval by likelihood beside that by cosine after CL.

    Nats per byte: how much less the text surprises it beside the page than beside a blank one.
    """
    saved = {}
    for cell in critics(found.measurements):
        nats, blank, sizes = (
            found.measurements.values("critic", "critic text", name, dose=cell.dose, pages=cell.pages)[0]
            for name in ("nats", "nats_blank", "bytes")
        )
        saved[cell.pages, cell.dose] = ratio_of_sums(blank - nats, sizes, found.how)
    for one in _texts_first(found):
        names = ("kind", "pages", "dose", "critic_ndcg", "embedding_ndcg")
        reached = {name: getattr(one, name) for name in names}
        yield reached | {"nats_per_byte": saved[one.pages, one.dose]}


def ceilings(found: Findings) -> Iterator[Row]:
    """nDCG@10 of query -> image by dose and CL steps (0: before CL); the fit too, where it has a plateau."""
    for one in found.ceilings:
        level = {"dose": one.dose, "learning_rate": one.learning_rate, "plateau": one.plateau or _UNKNOWN}
        for steps, point in one.curve.items():
            yield level | {"kind": "measured", "steps": steps, PRIMARY_METRIC: point}
        if one.plateau is not None:
            before, height = one.curve[0].value, one.plateau.value
            for steps in np.linspace(0, max(one.curve), _FITTED_POINTS):
                reached = height - (height - before) * math.exp(-steps / one.time_constant)
                yield level | {"kind": "fitted", "steps": steps, PRIMARY_METRIC: reached}


def plateau(found: Findings) -> Iterator[Row]:
    """The ceiling of every dose beside its held-out loss; `height` is the plateau, or highest measured."""
    for one in found.ceilings:
        yield _but(one, "plateau", "curve") | {"height": one.height} | _loss(found, one.dose)


def learning_rates(found: Findings) -> Iterator[Row]:
    """Best nDCG@10 over the budgets on validation documents, by dose and learning rate."""
    for dose, curve in found.budgets.items():
        for rate, score in sorted(curve.validation.items()):
            chosen = rate == curve.learning_rate
            yield {"dose": dose, "learning_rate": rate, "validation": score, "chosen": chosen}


def controls(found: Findings) -> Iterator[Row]:
    """Paired differences in nDCG@10 at the highest dose, in groups; those of which `decides` are conditions.

    Each gain over dose 0; own pages minus each control; and the share of the own gain that a control may
    reproduce, minus what it does.
    """
    compared, measured = found.compared, found.controls
    groups = {
        ("gain", IMAGE): {"target": compared.paired} | measured.gains,
        ("gain", TEXT): {"target": compared.text_control} | measured.text_gains,
        ("ahead", None): leads(compared, measured),
        ("unexplained", None): measured.unexplained,
    }
    for (group, direction), differences in groups.items():
        for name, difference in differences.items():
            yield {
                "group": group,
                "control": name,
                "direction": direction,
                "share": allowed_share(name, found.thresholds) if group == "unexplained" else None,
                "steps": found.measurements.equal_compute.steps if name == "compute" else None,
                "decides": group != "gain" or (direction, name) == (IMAGE, "target"),
                "difference": difference,
            }


def pretraining_pages(found: Findings) -> Iterator[Row]:
    """nDCG@10 after the primary CL by pages of CGP and dose, searching images and texts.

    Dose 0 is one model, whatever comes after it. The equal-compute arm starts from it, too.
    """
    measured, equal = found.measurements, found.measurements.equal_compute
    columns = ("control", "direction", "dose", "steps", PRIMARY_METRIC)
    for direction in SEARCHES:
        own = {
            dose: found.estimates[direction, PRIMARY_METRIC, dose, measured.primary.name]
            for dose in measured.doses
        }
        points = [("target", direction, dose, None, one) for dose, one in own.items()]
        for pages, doses in found.controls.against.items():
            points.append((pages, direction, 0, None, own[0]))
            for dose in doses:
                scores = measured.paired(dose, measured.primary, direction, pages=pages)
                points.append((pages, direction, dose, None, _mean(found, scores)))
        more_cl = measured.paired(0, equal.arm, direction, steps=equal.steps)
        points.append(("compute", direction, 0, equal.steps, _mean(found, more_cl)))
        yield from (dict(zip(columns, point, strict=True)) for point in points)


def baselines(found: Findings) -> list[Row]:
    """nDCG@10 of query -> image of every model at dose 0 and at the highest dose; baselines have no dose."""
    ends = [row for row in _own(found) if row["dose"] in (0, found.measurements.top)]
    levels = sorted(_baselines(found), key=lambda row: row["arm"], reverse=True)
    return levels + sorted(ends, key=lambda row: _KINDS.index(row["kind"]))


def adapters(found: Findings) -> Iterator[Row]:
    """LoRA rank and alpha at the highest dose: how far the weights moved, what they gained and lost.

    Of all seeds only the first, as other adapters than the primary arm's have no other.
    """
    measured = found.measurements
    for cell in _adapters(measured):
        training = measured.contents["refine", cell]
        before, after = (
            measured.contents["generation", read]["corpora"]["target"]["nats_per_byte"]
            for read in (Cell(dose=cell.dose), cell)
        )
        yield (
            {"arm": cell.arm.name, "rank": training["lora_rank"], "alpha": training["lora_alpha"]}
            | {"primary": cell.arm == measured.primary, "weight_change": training["weight_change"]}
            | {PRIMARY_METRIC: _mean(found, measured.scores(cell.dose, cell.arm)[:1])}
            | {"nats_per_byte_before": before, "nats_per_byte_after": after, "drift": after / before}
        )


def other_tests(found: Findings) -> Iterator[Row]:
    """nDCG@10 of query -> image on each further test set, by dose, with its baselines."""
    measured = found.measurements
    for name in measured.other_tests:
        test = measured.searched[name]
        place = {"arm": measured.primary, "steps": measured.steps, "split": name}
        doses = {cell.dose for cell in measured.cells("retrieval", pages="target", **place)}
        if not doses:
            raise EvidenceError(
                f"test set {name!r} has no retrieval of {measured.primary_arm} CL after {measured.steps} "
                "steps."
            )
        levels = {kind: scores[PRIMARY_METRIC].mean() for kind, scores in test.baselines.items()}
        for dose in sorted(doses):
            scores = measured.paired(dose, measured.primary, split=name)
            reached = {"dose": dose, PRIMARY_METRIC: mean_over_queries(scores, found.how, test.documents)}
            size = {"queries": test.queries, **levels, "corpus_size": test.corpus_size}
            yield reached | {"test": name} | size


def _mean(found: Findings, scores: np.ndarray) -> Estimate:
    return mean_over_queries(scores, found.how, found.measurements.test.documents)


def _loss(found: Findings, dose: int, language: str = "target") -> Row:
    return {"nats_per_byte": found.estimates[language, "nats_per_byte", dose, BEFORE_CL.name]}


def _but(one: object, *names: str) -> Row:
    """The fields of a dataclass but these."""
    return {name: value for name, value in vars(one).items() if name not in names}


def _own(found: Findings) -> list[Row]:
    """nDCG@10 of the dose-response: before CL, the primary arm, the other arms; doses ascending."""
    arms = dict.fromkeys((BEFORE_CL, found.measurements.primary, *found.measurements.arms))
    return [
        {"arm": arm.name, "kind": arm.kind, "dose": dose, PRIMARY_METRIC: found.estimates[place]}
        for arm, dose in product(arms, found.measurements.doses)
        if (place := (IMAGE, PRIMARY_METRIC, dose, arm.name)) in found.estimates
    ]


def _at_every_dose(found: Findings) -> list[Row]:
    """Those of the arms that were run at every dose."""
    rows, doses = _own(found), len(found.measurements.doses)
    of_arm = Counter(row["arm"] for row in rows)
    return [row for row in rows if of_arm[row["arm"]] == doses]


def _baselines(found: Findings) -> list[Row]:
    return [
        {"arm": name, "kind": "baseline", "dose": None}
        | {PRIMARY_METRIC: _mean(found, scores[PRIMARY_METRIC][None])}
        for name, scores in found.measurements.test.baselines.items()
    ]


def _adapters(found: Measurements) -> list[Cell]:
    """Trainings of the primary arm and of other adapters, highest dose, first seed: by rank and alpha.

    Raises:
        EvidenceError: training, retrieval, or generation after one of them is missing.
    """
    trained = found.cells("refine", dose=found.top, pages="target", steps=found.steps)
    arms = {cell.arm for cell in trained if cell.arm == found.primary or cell.arm.kind == "adapter"}
    cells = [Cell(dose=found.top, arm=arm, seed=found.seeds[0], steps=found.steps) for arm in arms]
    for cell in cells:
        needed = {("refine", cell), ("generation", cell), ("retrieval", replace(cell, split="test"))}
        if not needed <= found.contents.keys():
            raise EvidenceError(
                f"{cell.arm.name} CL at dose {cell.dose}, seed {cell.seed}: needs training, retrieval, and "
                "generation before and after."
            )
    sizes = ("lora_rank", "lora_alpha")
    return sorted(cells, key=lambda cell: [found.contents["refine", cell][name] for name in sizes])


def _texts_first(found: Findings) -> list[BoundReading]:
    """Texts before queries, own pages first; doses stay in order."""
    return sorted(found.bounds, key=lambda one: (one.kind != "text", one.pages != "target", one.pages))
