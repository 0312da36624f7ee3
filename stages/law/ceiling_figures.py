"""The ceilings: retrieval by CL budget with the fitted plateau, and the plateau by generative quality."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.law.figure_style import (
    BLUE,
    GRID,
    INK,
    VERMILLION,
    Row,
    error_line,
    name_doses,
    reading_axis,
    series,
    values,
)

_COLUMNS = 4


def ceilings(rows: Sequence[Row], item: str) -> Figure:
    """One panel per dose: measured budgets, the fitted curve and its plateau with interval."""
    by_dose = series(rows, "dose")
    columns = min(_COLUMNS, len(by_dose))
    lines = -(-len(by_dose) // columns)
    figure = Figure(figsize=(10.4, 0.7 + 2.3 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (dose, of_dose) in zip(panels.flat, by_dose.items(), strict=False):
        determined = _budgets(axes, of_dose)
        axes.set_title(f"dose {int(dose):,}{'' if determined else ': no plateau'}")
    for axes in panels.flat[len(by_dose) :]:
        axes.remove()
    figure.supxlabel("CL steps (0: before CL)", fontsize=10, color=INK)
    figure.supylabel(f"nDCG@10, query → {item} image", fontsize=10, color=INK)
    return figure


def _budgets(axes: Axes, rows: Sequence[Row]) -> bool:
    """Draw one dose; whether it has a plateau."""
    kinds = series(rows, "kind")
    measured = kinds["measured"]
    error_line(
        axes, values(measured, "steps"), measured, "ndcg@10", color=BLUE, marker="o", linestyle="none",
        markersize=5,
    )  # fmt: skip
    if "fitted" not in kinds:
        return False
    fitted = kinds["fitted"]
    axes.plot(values(fitted, "steps"), values(fitted, "ndcg@10"), color=BLUE, linewidth=1.3)
    level = fitted[0]
    axes.axhspan(level["plateau_low"], level["plateau_high"], color=VERMILLION, alpha=0.14, linewidth=0)
    axes.axhline(level["plateau"], color=VERMILLION, linewidth=1.3, linestyle="--")
    axes.annotate(
        f"{level['plateau']:.3f}", (1, level["plateau_high"]), (0, 2), xycoords=axes.get_yaxis_transform(),
        textcoords="offset points", ha="right", color=VERMILLION, fontsize=8.5,
    )  # fmt: skip
    return True


def plateau(rows: Sequence[Row], item: str) -> Figure:
    """The ceiling of every dose against its held-out loss; hollow where the budgets show no plateau."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(values(rows, "nats_per_byte"), values(rows, "height"), color=GRID, linewidth=1.5, zorder=0)
    for determined, face, label in (
        (True, VERMILLION, "fitted plateau"),
        (False, "white", "highest measured"),
    ):
        found = [row for row in rows if row["determined"] is determined]
        if found:
            error_line(
                axes, values(found, "nats_per_byte"), found, "height", across="nats_per_byte",
                color=VERMILLION, markerfacecolor=face, marker="s", linestyle="none", label=label,
            )  # fmt: skip
    reading_axis(axes)
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(0, bottom - 0.1 * (top - bottom)), top + 0.25 * (top - bottom))
    axes.set_ylabel(f"ceiling of nDCG@10, query → {item} image")
    axes.legend(loc="lower right", fontsize=9)
    name_doses(axes, {row["dose"]: row["nats_per_byte"] for row in rows})
    return figure
