"""The figures of the report, and the rows they are drawn from.

Here those that every run has; stages/law/laboratory_figures.py has those of a sweep.
"""

from collections.abc import Callable, Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.law import laboratory_data, laboratory_figures
from stages.law.evidence import BEFORE_CL, Evidence
from stages.law.figure_data import (
    BASELINES,
    PREDICTED,
    dose_response_rows,
    generation_rows,
    geometry_rows,
    law_rows,
)
from stages.law.figure_style import (
    AMBER,
    BLUE,
    GREEN,
    MUTED,
    PURPLE,
    STYLE,
    VERMILLION,
    Row,
    dose_axis,
    error_line,
    legend_above,
    name_doses,
    places,
    plain_log_ticks,
    png,
    reading_axis,
    series,
    shades,
    values,
)
from stages.law.laboratory import Laboratory
from stages.law.verdict import Verdict

_LOOKS = ((BLUE, "o"), (VERMILLION, "s"), (PURPLE, "^"), (AMBER, "v"))
_BASELINE_LOOKS = dict(zip(BASELINES.values(), ((GREEN, "--"), (MUTED, ":")), strict=True))


def figure_data(
    verdict: Verdict,
    evidence: Evidence,
    retrieval: Sequence[dict],
    laboratory: Laboratory | None = None,
) -> dict[str, list[Row]]:
    """Name -> rows of everything that the report draws, and of a sweep's tables.

    Rows of one name have the same keys, in the same order. ``retrieval`` are the contents of the
    retrieval.json files of the evidence. Names without rows are left out.
    """
    rows = {
        "dose_response": dose_response_rows(verdict, evidence),
        "law": law_rows(verdict, evidence),
        "generation": generation_rows(verdict),
        "geometry": geometry_rows(retrieval, verdict.thresholds.primary_arm),
    }
    if laboratory is not None:
        rows |= laboratory_data.laboratory_rows(verdict, evidence, laboratory)
    return {name: found for name, found in rows.items() if found}


def draw_figures(data: Mapping[str, Sequence[Row]], item: str = "page") -> dict[str, bytes]:
    """Return PNG bytes by name, drawn from `figure_data`; ``item`` is what a sample is called."""
    figures: dict[str, Callable[[Sequence[Row], str], Figure]] = {
        "dose_response": dose_response,
        "law": law,
        "generation": generation,
        "geometry": geometry,
        **laboratory_figures.FIGURES,
    }
    with matplotlib.rc_context(STYLE):
        return {name: png(draw(data[name], item)) for name, draw in figures.items() if name in data}


def dose_response(rows: Sequence[Row], item: str) -> Figure:
    """nDCG@10 of query -> page image against dose, per arm, with intervals and baselines."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    measured = series([row for row in rows if row["dose"] is not None])
    for offset, (name, of_arm) in enumerate(measured.items()):
        where = places([row["dose"] for row in of_arm]) + 0.05 * (offset - 1)
        colour, marker = _look(offset)
        error_line(axes, where, of_arm, "ndcg@10", color=colour, marker=marker, label=name)
    for row in rows[sum(map(len, measured.values())) :]:
        colour, line = _BASELINE_LOOKS[row["series"]]
        label = f"{row['series']} ({row['ndcg@10']:.2g})"
        axes.axhline(row["ndcg@10"], color=colour, linestyle=line, linewidth=1.5, label=label)
    dose_axis(axes, [row["dose"] for row in measured[BEFORE_CL]])
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"nDCG@10, query → {item} image")
    legend_above(figure, axes, last=tuple(BASELINES.values()))
    return figure


def law(rows: Sequence[Row], item: str) -> Figure:
    """Generative quality (x, better to the right) against retrieval (y), one point per dose."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for number, (name, of_arm) in enumerate(series(rows).items()):
        colour, marker = (GREEN, "X") if name == PREDICTED else _look(number)
        losses = values(of_arm, "nats_per_byte") * (0.97 if name == PREDICTED else 1)  # beside the measured
        error_line(
            axes, losses, of_arm, "ndcg@10", across="nats_per_byte", color=colour, marker=marker, label=name
        )
    reading_axis(axes)
    # What is predicted from few doses may be anything: its interval is cut, and told in words.
    highest = max(row["ndcg@10_high"] for row in rows if row["series"] != PREDICTED)
    axes.set_ylim(0, highest * 1.3 or None)  # or all is 0
    axes.set_ylabel(f"nDCG@10, query → {item} image")
    legend_above(figure, axes)
    name_doses(axes, {row["dose"]: row["nats_per_byte"] for row in rows})
    return figure


def generation(rows: Sequence[Row], item: str) -> Figure:
    """Held-out loss and character error rate by dose, target and base language."""
    figure = Figure(figsize=(9.4, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    languages = series(rows)
    for (name, of_language), colour, marker in zip(languages.items(), (BLUE, AMBER), ("o", "s"), strict=True):
        where = places([row["dose"] for row in of_language])
        for axes, column in ((left, "nats_per_byte"), (right, "character_error_rate")):
            error_line(axes, where, of_language, column, color=colour, marker=marker, label=name)
    left.set_yscale("log")
    plain_log_ticks(left.yaxis)
    left.set_title("Held-out loss, nats per byte (log scale; lower is better)")
    right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    right.set_ylim(bottom=0)
    right.set_title("Character error rate of transcription (lower is better)")
    for axes in (left, right):
        dose_axis(axes, [row["dose"] for row in rows if row["series"] == rows[0]["series"]])
    legend_above(figure, left)
    return figure


def geometry(rows: Sequence[Row], item: str) -> Figure:
    """Anisotropy of both modalities and their agreement by layer: every dose before CL, two also after."""
    titles = {
        "anisotropy_image": f"Anisotropy of {item} images",
        "anisotropy_text": f"Anisotropy of {item} texts",
        "mutual_knn": "Image and text: mutual-kNN",
        "cka": "Image and text: CKA",
    }
    figure = Figure(figsize=(10.4, 6.4), layout="constrained")
    for axes, (measure, title) in zip(figure.subplots(2, 2).flat, titles.items(), strict=True):
        _by_layer(axes, rows, measure)
        axes.set_title(title)
        axes.set_xlabel("layer")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if measure == "mutual_knn":
            axes.axhline(
                rows[0]["chance_mutual_knn"], color=MUTED, linestyle=":", linewidth=1.3, label="chance"
            )
            axes.set_ylim(bottom=0)
            legend_above(figure, axes, columns=4, last=("chance",))
    return figure


def _by_layer(axes: Axes, rows: Sequence[Row], measure: str) -> None:
    before = [row for row in rows if row["series"] == BEFORE_CL]
    by_dose = series(before, "dose")
    for (dose, of_dose), shade in zip(by_dose.items(), shades(len(by_dose)), strict=True):
        _layer_line(axes, of_dose, measure, f"dose {int(dose):,}, {BEFORE_CL}", color=shade, marker="o")
    after = series([row for row in rows if row["series"] != BEFORE_CL], "dose")
    ends = list(after)[:: max(len(after) - 1, 1)]
    looks = ((PURPLE, "^"), (VERMILLION, "s"))
    for dose, (colour, marker) in zip(ends, looks, strict=False):
        name = f"dose {int(dose):,}, {after[dose][0]['series']}"
        _layer_line(axes, after[dose], measure, name, color=colour, linestyle="--", marker=marker)


def _layer_line(axes: Axes, rows: Sequence[Row], measure: str, label: str, **style: object) -> None:
    axes.plot(
        [row["layer"] for row in rows], values(rows, measure), label=label, linewidth=1.7, markersize=4.5,
        **style,
    )  # fmt: skip


def _look(number: int) -> tuple[str, str]:
    """Colour and marker of a series: grey before CL, the primary arm in blue."""
    return (MUTED, "D") if number == 0 else _LOOKS[(number - 1) % len(_LOOKS)]
