"""The figures of a sweep: bound, critic, ceilings, controls, baselines. Each is drawn from its rows alone."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stages.law.ceiling_figures import ceilings, plateau
from stages.law.figure_data import PAGES
from stages.law.figure_style import (
    AMBER,
    BLUE,
    GREEN,
    INK,
    MUTED,
    PURPLE,
    VERMILLION,
    Row,
    bars,
    dose_axis,
    error_line,
    legend_above,
    places,
    series,
    values,
)
from stages.law.statistics import with_sign

_OWN = PAGES["target"]
_PAGE_LOOKS = dict(
    zip(PAGES.values(), ((BLUE, "o", "-"), (VERMILLION, "s", "--"), (AMBER, "^", "-.")), strict=True)
)
_GIVEN = {"text": "its own text", "query": "a query"}


def bound(rows: Sequence[Row], item: str) -> Figure:
    """L_gen(N) and L_cl(N) by dose, for texts and for queries, with the guarantee and chance."""
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    own = series([row for row in rows if row["pages"] == _OWN], "kind")
    for axes, (kind, of_kind) in zip(
        figure.subplots(1, len(own), squeeze=False)[0], own.items(), strict=True
    ):
        doses = [row["dose"] for row in of_kind]
        where = places(doses)
        error_line(
            axes, where, of_kind, "generative", color=BLUE, marker="o", label="critic before CL: L_gen"
        )
        error_line(
            axes, where + 0.06, of_kind, "contrastive", color=VERMILLION, marker="s",
            label="embeddings after CL: L_cl",
        )  # fmt: skip
        promised = values(of_kind, "generative") + values(of_kind, "slack")
        axes.plot(
            where, promised, color=BLUE, linestyle="--", linewidth=1.2, label="guarantee: L_gen + slack"
        )
        axes.axhline(of_kind[0]["chance"], color=MUTED, linestyle=":", linewidth=1.4, label="chance: log N")
        dose_axis(axes, doses)
        axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])  # a critic that is sure has a loss of nearly 0
        axes.set_ylabel("loss, nats (lower is better)")
        axes.set_title(f"The right {item} of N = {of_kind[0]['candidates']}, given {_GIVEN[kind]}")
    legend_above(figure, axes, columns=4)
    return figure


def bound_by_size(rows: Sequence[Row], item: str) -> Figure:
    """Both losses over the first n candidates: the highest dose dark, dose 0 light."""
    figure = Figure(figsize=(10.4, 3.8), layout="constrained")
    kinds = series(rows, "kind")
    for axes, (kind, of_kind) in zip(
        figure.subplots(1, len(kinds), squeeze=False)[0], kinds.items(), strict=True
    ):
        by_dose = series(of_kind, "dose")
        for (dose, of_dose), alpha in zip(reversed(by_dose.items()), (1.0, 0.45), strict=False):
            sizes = values(of_dose, "candidates")
            for column, colour, marker in (("generative", BLUE, "o"), ("contrastive", VERMILLION, "s")):
                name = "L_gen" if column == "generative" else "L_cl"
                axes.plot(
                    sizes, values(of_dose, column), color=colour, marker=marker, markersize=5, alpha=alpha,
                    linewidth=1.8, label=f"{name}, dose {int(dose):,}",
                )  # fmt: skip
        axes.plot(
            sizes, values(of_dose, "chance"), color=MUTED, linestyle=":", linewidth=1.4, label="chance: log n"
        )
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
        axes.minorticks_off()
        axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])
        axes.set_xlabel("number of candidates n (log scale)")
        axes.set_ylabel("loss, nats (lower is better)")
        axes.set_title(f"The right {item} of n, given {_GIVEN[kind]}")
    legend_above(figure, axes, columns=5, last=("chance",))
    return figure


def critic(rows: Sequence[Row], item: str) -> Figure:
    """Information of images about texts by dose and pages of CGP; retrieval by likelihood and by cosine."""
    figure = Figure(figsize=(10.4, 3.9), layout="constrained")
    own = series([row for row in rows if row["pages"] == _OWN], "kind")
    left, *others = figure.subplots(1, 1 + len(own))
    doses = [row["dose"] for row in own["text"]]
    for number, (pages, of_pages) in enumerate(
        series([r for r in rows if r["kind"] == "text"], "pages").items()
    ):
        colour, marker, line = _PAGE_LOOKS[pages]
        where = places_among([row["dose"] for row in of_pages], doses) + 0.12 * number
        error_line(
            left, where, of_pages, "nats_per_byte", color=colour, marker=marker, linestyle=line, label=pages
        )
    left.set_title("Information about the text, nats/byte")
    left.legend(fontsize=8.5, loc="best")
    for axes, (kind, of_kind) in zip(others, own.items(), strict=True):
        for shift, column, colour, marker, label in (
            (0, "critic_ndcg@10", BLUE, "o", "critic, before CL"),
            (0.06, "embedding_ndcg@10", VERMILLION, "s", "embeddings, after CL"),
        ):
            where = places(doses) + shift
            error_line(axes, where, of_kind, column, color=colour, marker=marker, label=label)
        axes.set_title(f"nDCG@10 given {_GIVEN[kind]}")
    for axes in (left, *others):
        dose_axis(axes, doses)
        axes.set_xlabel("dose")
        bottom, top = axes.get_ylim()
        axes.set_ylim(min(0, bottom), 1.04 * top)
    handles, labels = others[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=9)
    return figure


def controls(rows: Sequence[Row], item: str) -> Figure:
    """Forest plot of paired differences in nDCG@10: what each pretraining gained, what controls leave."""
    figure = Figure(figsize=(7.2, 0.9 + 0.28 * (len(rows) + 5)), layout="constrained")
    axes = figure.subplots()
    ticks: list[tuple[float, str, str]] = []
    place = 0.0
    for group, of_group in series(rows, "group").items():
        ticks.append((place, group[0].upper() + group[1:], "bold"))
        for row in of_group:
            place += 1
            ticks.append((place, row["comparison"], "normal"))
            _forest_line(axes, place, row)
        place += 1.5
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks([place for place, _, _ in ticks], [name for _, name, _ in ticks], color=INK)
    for label, (_, _, weight) in zip(axes.get_yticklabels(), ticks, strict=True):
        label.set_weight(weight)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(ticks[-1][0] + 0.7, -0.7)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.2)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("difference in nDCG@10, paired by query and seed")
    return figure


def _forest_line(axes: Axes, place: float, row: Row) -> None:
    colour = BLUE if row["decides"] else MUTED
    axes.errorbar(
        row["difference"], place, xerr=bars([row], "difference"), color=colour, marker="o", markersize=6,
        elinewidth=1.8, capsize=3,
    )  # fmt: skip
    text = with_sign(row["difference"])
    axes.annotate(
        text, (row["difference_high"], place), (7, 0), textcoords="offset points", va="center", fontsize=8.5,
        color=colour,
    )  # fmt: skip


def pretraining_pages(rows: Sequence[Row], item: str) -> Figure:
    """nDCG@10 by dose for own, shuffled and unrelated pages, searching images and searching texts."""
    figure = Figure(figsize=(10.4, 4.0), layout="constrained")
    panels = figure.subplots(1, 2)
    doses = sorted({row["dose"] for row in rows})
    for axes, (searched, of_direction) in zip(panels, series(rows, "searched").items(), strict=True):
        for name, of_series in series(of_direction).items():
            colour, marker, line = _PAGE_LOOKS.get(name, (PURPLE, "D", ":"))  # or equal compute, at dose 0
            shift = list(_PAGE_LOOKS).index(name) * 0.08 if name in _PAGE_LOOKS else -0.25
            where = places_among([row["dose"] for row in of_series], doses) + shift
            error_line(
                axes, where, of_series, "ndcg@10", color=colour, marker=marker, linestyle=line, label=name
            )
        dose_axis(axes, doses)
        axes.set_ylim(bottom=0)
        axes.set_title(f"Query → {item} {searched}")
        axes.set_ylabel("nDCG@10")
    legend_above(figure, axes, columns=4)
    return figure


def baselines(rows: Sequence[Row], item: str) -> Figure:
    """Every model at dose 0 (hollow) and at the highest dose (filled); models without a dose in green."""
    models = series(rows, "model")
    figure = Figure(figsize=(7.2, 1.0 + 0.42 * len(models)), layout="constrained")
    axes = figure.subplots()
    for place, of_model in enumerate(models.values()):
        for row in of_model:
            colour = GREEN if row["dose"] is None else BLUE
            axes.errorbar(
                row["ndcg@10"], place, xerr=bars([row], "ndcg@10"), color=colour, marker="o", markersize=6.5,
                markerfacecolor="white" if row["dose"] == 0 else colour, elinewidth=1.5, capsize=3,
            )  # fmt: skip
    for dose in dict.fromkeys(row["dose"] for row in rows):
        colour = GREEN if dose is None else BLUE
        axes.plot(
            [], [], linestyle="none", marker="o", color=colour, label=_dose(dose),
            markerfacecolor="white" if dose == 0 else colour,
        )  # fmt: skip
    axes.set_yticks(range(len(models)), list(models), color=INK)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"nDCG@10, query → {item} image")
    legend_above(figure, axes)
    return figure


def _dose(dose: int | None) -> str:
    return "no pretraining, no CL" if dose is None else f"dose {dose:,}"


def places_among(doses: Sequence[int], all_doses: Sequence[int]) -> np.ndarray:
    """Positions of some of a figure's doses on its dose axis."""
    found = dict(zip(all_doses, places(all_doses), strict=True))
    return np.array([found[dose] for dose in doses])


FIGURES = {
    "bound": bound,
    "bound_by_size": bound_by_size,
    "critic": critic,
    "ceilings": ceilings,
    "plateau": plateau,
    "controls": controls,
    "pretraining_pages": pretraining_pages,
    "baselines": baselines,
}
"""Name -> how it is drawn, from its rows and what a sample is called."""
