"""One-sentence findings above the report's sections, from the rows that the sections show."""

from collections.abc import Mapping, Sequence

from stages.law.evidence import BEFORE_CL
from stages.law.figure_style import Row, estimate, series

_HARD, _HARD_TIMES_RANDOM = 0.1, 3  # nDCG@10 below either is called hard


def ceilings_in_words(rows: Sequence[Row]) -> tuple[str, ...]:
    """How many doses show a plateau, and where the first and the last of these stand."""
    determined = [row for row in rows if row["determined"]]
    said = [f"{len(determined)} of {len(rows)} doses show a plateau within the measured CL steps."]
    if len(determined) > 1:
        first, last = determined[0], determined[-1]
        said.append(
            f"From dose {first['dose']:,} to {last['dose']:,} the plateau goes from "
            f"{estimate(first, 'height').plain()} to {estimate(last, 'height').plain()}."
        )
    elif not determined:
        said.append("The data do not determine the ceiling: the highest measured scores stand in its place.")
    return tuple(said)


def other_tests_in_words(rows: Sequence[Row]) -> tuple[str, ...]:
    """The highest dose on each further test set, against dose 0 and a random ranking."""
    said = []
    for name, of_test in series(rows, "test").items():
        first, last = of_test[0], of_test[-1]
        times = last["ndcg@10"] / last["random"]
        hard = " Hard for this model." if times < _HARD_TIMES_RANDOM or last["ndcg@10"] < _HARD else ""
        said.append(
            f"{name}: nDCG@10 {estimate(last, 'ndcg@10').plain()} at dose {last['dose']:,}, {times:.2g} "
            f"times a random ranking; {estimate(first, 'ndcg@10').plain()} at dose {first['dose']:,}.{hard}"
        )
    return tuple(said)


def geometry_in_words(rows: Sequence[Row], item: str) -> tuple[str, ...]:
    """What the geometry figure shows of the last layer before CL, and which layers it leaves out."""
    before = [row for row in rows if row["series"] == BEFORE_CL]
    by_dose = list(series(before, "dose").values())
    if not by_dose:
        return ()
    first, last = by_dose[0][-1], by_dose[-1][-1]
    said = []
    if None not in (first["mutual_knn"], last["mutual_knn"]):
        said.append(
            f"In the last layer before CL, from dose {first['dose']:,} to {last['dose']:,}, the share of "
            f"common neighbours goes from {first['mutual_knn']:.3f} to {last['mutual_knn']:.3f} (chance "
            f"{first['chance_mutual_knn']:.3f}), the anisotropy of {item} images from "
            f"{first['anisotropy_image']:.2f} to {last['anisotropy_image']:.2f}."
        )
    empty = [f"{row['layer']:g}" for row in by_dose[0] if row["mutual_knn"] is None]
    if empty:
        said.append(
            f"Layer {', '.join(empty)} is left out: all its vectors are identical (one special token's "
            "embedding), so they have no nearest neighbours."
        )
    return tuple(said)


def words_of(data: Mapping[str, Sequence[Row]], item: str) -> dict[str, tuple[str, ...]]:
    """Section -> its findings, for the sections whose rows are there."""
    sections = {
        "plateau": ceilings_in_words,
        "other_tests": other_tests_in_words,
        "geometry": lambda rows: geometry_in_words(rows, item),
    }
    return {name: say(data[name]) for name, say in sections.items() if name in data}
