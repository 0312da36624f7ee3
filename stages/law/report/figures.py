"""The figures of the report, each drawn from its table (stages/law/report/tables.py) alone."""

from collections.abc import Iterator, Mapping

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stages.law.report import figure_style as style
from stages.law.report import labels, tables
from stages.law.report.figure_style import level, line, panels, places, values
from stages.law.statistics import with_sign
from stages.law.verdict import Findings

_GENERATIVE, _CONTRASTIVE = {"color": style.BLUE, "marker": "o"}, {"color": style.VERMILLION, "marker": "s"}
_AFTER = {"color": style.PURPLE, "marker": "^"}
_LOOKS = (_GENERATIVE, _CONTRASTIVE, _AFTER, {"color": style.AMBER, "marker": "v"})
_READINGS = {
    "pooled": _GENERATIVE,
    "lexical": {"color": style.AMBER, "marker": "v"},
    "transcribed": _CONTRASTIVE,
    "trigrams": {"color": style.VERMILLION, "marker": "s", "linestyle": ":"},
    "fused": _AFTER,
    "fused equally": {"color": style.PURPLE, "marker": "^", "linestyle": ":"},
    "late interaction": {"color": style.MUTED, "marker": "D"},
}
_LEVELS = {"bm25": (style.GREEN, "--"), "random": (style.MUTED, ":")}
_CONTROLS = {
    "target": {"color": style.BLUE, "marker": "o", "linestyle": "-"},
    "shuffled": {"color": style.VERMILLION, "marker": "s", "linestyle": "--"},
    "unrelated": {"color": style.AMBER, "marker": "^", "linestyle": "-."},
    "compute": {"color": style.PURPLE, "marker": "D", "linestyle": ":"},
}
_PANELS_IN_A_ROW = 4
_EVERY_RUN = ("dose_response", "law", "readings", "generation", "geometry")


def dose_response(table: pd.DataFrame, item: str) -> Figure:
    """nDCG@10 of query -> page image against dose, per arm, with intervals and baselines."""
    figure, (axes,) = panels(1, 4.4, 7.2)
    lexical = table["kind"] == "baseline"
    for number, (name, rows) in enumerate(_arms(table[~lexical])):
        line(axes, places(rows["dose"]) + 0.05 * (number - 1), rows, "ndcg@10", label=name, **_look(number))
    for arm, score in table.loc[lexical, ["arm", "ndcg@10"]].itertuples(index=False):
        colour, dashes = _LEVELS[arm]
        level(axes, score, f"{labels.BASELINES[arm]} ({score:.2g})", color=colour, linestyle=dashes)
    style.dose_axis(axes, table.loc[~lexical, "dose"].unique())
    axes.set(ylim=(0, None), ylabel=f"nDCG@10, query → {item} image")
    return style.legend_above(figure, axes, last=tuple(labels.BASELINES.values()))


def law(table: pd.DataFrame, item: str) -> Figure:
    """Generative quality (x, better to the right) against retrieval (y), one point per dose."""
    figure, (axes,) = panels(1, 4.4, 7.2)
    predicted = table["kind"] == "prediction"
    for number, (name, rows) in enumerate(_arms(table)):
        look, losses = _look(number), values(rows, "nats_per_byte")
        if predicted[rows.index].all():
            look, losses = {"color": style.GREEN, "marker": "X"}, losses * 0.97  # beside the measured
        line(axes, losses, rows, "ndcg@10", across="nats_per_byte", label=name, **look)
    style.reading_axis(axes)
    # What is predicted from few doses may be anything: its interval is cut, and told in words.
    highest = values(table[~predicted], "ndcg@10_high").max() * 1.3 or None  # or all is 0
    axes.set(ylim=(0, highest), ylabel=f"nDCG@10, query → {item} image")
    style.legend_above(figure, axes)
    style.name_doses(axes, table)
    return figure


def readings(table: pd.DataFrame, item: str) -> Figure:
    """nDCG@10 by dose of each reading: before CL and after it, side by side."""
    arms = _groups(table, "arm")
    figure, panel = panels(len(arms), 4.6, 5.0 * len(arms), sharey=True)
    for axes, (arm, of_arm) in zip(panel, arms, strict=True):
        for reading, rows in _groups(of_arm, "reading"):
            look = _READINGS[reading] | {"label": labels.READINGS[reading]}
            line(axes, places(rows["dose"]), rows, "ndcg@10", **look)
        style.dose_axis(axes, of_arm["dose"].unique())
        axes.set(ylim=(0, None), title=labels.arm_label(arm, of_arm["kind"].iloc[0]), ylabel="nDCG@10")
    return style.legend_above(figure, panel[0], columns=2)


def generation(table: pd.DataFrame, item: str) -> Figure:
    """Held-out loss and character error rate by dose, target and base language."""
    figure, (left, right) = panels(2, 3.7, 9.4)
    looks = (_GENERATIVE, {"color": style.AMBER, "marker": "s"})
    for (name, rows), look in zip(_groups(table, "language"), looks, strict=True):
        for axes, column in ((left, "nats_per_byte"), (right, "character_error_rate")):
            line(axes, places(rows["dose"]), rows, column, label=labels.LANGUAGES[name], **look)
    for axes in (left, right):
        style.dose_axis(axes, rows["dose"])
    left.set(yscale="log", title="Held-out loss, nats per byte (log scale; lower is better)")
    style.plain_log_ticks(left.yaxis)
    right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    right.set(ylim=(0, None), title="Character error rate of transcription (lower is better)")
    return style.legend_above(figure, left)


def geometry(table: pd.DataFrame, item: str) -> Figure:
    """Anisotropy of both modalities and their agreement by layer: every dose before CL, two also after."""
    titles = (f"Anisotropy of {item} images", f"Anisotropy of {item} texts")
    titles += ("Image and text: mutual-kNN", "Image and text: CKA")
    untouched = table["kind"] == "none"
    before, after = _groups(table[untouched], "dose"), _groups(table[~untouched], "dose")
    looks = [{"color": shade, "marker": "o"} for shade in style.shades(len(before))]
    looks += (_AFTER, _CONTRASTIVE)
    drawn = [*before, *after[:: max(len(after) - 1, 1)]]
    figure, panel = panels(4, 6.4, columns=2)
    for axes, measure, title in zip(panel, tables.GEOMETRY, titles, strict=True):
        for (dose, rows), look in zip(drawn, looks, strict=False):
            ((arm, kind),) = rows[["arm", "kind"]].drop_duplicates().itertuples(index=False)
            look = look | {"linestyle": "-" if kind == "none" else "--", "linewidth": 1.7, "markersize": 4.5}
            name = f"dose {dose:,}, {labels.arm_label(arm, kind)}"
            axes.plot(values(rows, "layer"), values(rows, measure), label=name, **look)
        axes.set(title=title, xlabel="layer")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if measure == "mutual_knn":
            level(axes, table["chance_mutual_knn"].iloc[0], "chance", linewidth=1.3)
            axes.set_ylim(bottom=0)
            style.legend_above(figure, axes, columns=4, last=("chance",))
    return figure


def bound(table: pd.DataFrame, item: str) -> Figure:
    """L_gen(N) and L_cl(N) by dose, for texts and for queries, with the guarantee and chance."""
    kinds = _groups(table[table["pages"] == "target"], "kind")
    figure, panel = panels(len(kinds), 4.2)
    for axes, (kind, rows) in zip(panel, kinds, strict=True):
        where, first = places(rows["dose"]), rows.iloc[0]
        line(axes, where, rows, "generative", label="critic before CL: L_gen", **_GENERATIVE)
        line(axes, where + 0.06, rows, "contrastive", label="embeddings after CL: L_cl", **_CONTRASTIVE)
        promised = values(rows, "generative") + values(rows, "slack")
        look = {"color": style.BLUE, "linestyle": "--", "linewidth": 1.2}
        axes.plot(where, promised, label="guarantee: L_gen + slack", **look)
        level(axes, first["chance"], "chance: log N", linewidth=1.4)
        style.dose_axis(axes, rows["dose"])
        _loss_axis(axes, f"The right {item} of N = {first['candidates']}, given {labels.GIVEN[kind]}")
    return style.legend_above(figure, axes, columns=4)


def bound_by_size(table: pd.DataFrame, item: str) -> Figure:
    """Both losses over the first n candidates: the highest dose dark, dose 0 light."""
    kinds = _groups(table, "kind")
    losses = {"generative": ("L_gen", _GENERATIVE), "contrastive": ("L_cl", _CONTRASTIVE)}
    figure, panel = panels(len(kinds), 3.8)
    for axes, (kind, of_kind) in zip(panel, kinds, strict=True):
        for (dose, rows), alpha in zip(reversed(_groups(of_kind, "dose")), (1.0, 0.45), strict=False):
            sizes, look = values(rows, "candidates"), {"markersize": 5, "alpha": alpha, "linewidth": 1.8}
            for column, (name, colours) in losses.items():
                axes.plot(sizes, values(rows, column), label=f"{name}, dose {dose:,}", **look, **colours)
        chance = {"color": style.MUTED, "linestyle": ":", "linewidth": 1.4, "label": "chance: log n"}
        axes.plot(sizes, values(rows, "chance"), **chance)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("number of candidates n (log scale)")
        _loss_axis(axes, f"The right {item} of n, given {labels.GIVEN[kind]}")
    return style.legend_above(figure, axes, columns=5, last=("chance",))


def critic(table: pd.DataFrame, item: str) -> Figure:
    """Information of images about texts by dose and pages of CGP; retrieval by likelihood and by cosine."""
    own = _groups(table[table["pages"] == "target"], "kind")
    doses = own[0][1]["dose"]
    figure, (left, *others) = panels(1 + len(own), 3.9)
    for number, (pages, rows) in enumerate(_groups(table[table["kind"] == "text"], "pages")):
        where = places(rows["dose"], doses) + 0.12 * number
        line(left, where, rows, "nats_per_byte", label=labels.PAGES[pages], **_CONTROLS[pages])
    left.set_title("Information about the text, nats/byte")
    left.legend(fontsize=8.5, loc="best")
    for axes, (kind, rows) in zip(others, own, strict=True):
        where = places(rows["dose"])
        line(axes, where, rows, "critic_ndcg", label="critic, before CL", **_GENERATIVE)
        line(axes, where + 0.06, rows, "embedding_ndcg", label="embeddings, after CL", **_CONTRASTIVE)
        axes.set_title(f"nDCG@10 given {labels.GIVEN[kind]}")
    for axes in (left, *others):
        style.dose_axis(axes, doses)
        bottom, top = axes.get_ylim()
        axes.set(xlabel="dose", ylim=(min(0, bottom), 1.04 * top))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=9)
    return figure


def ceilings(table: pd.DataFrame, item: str) -> Figure:
    """One panel per dose: measured budgets, the fitted curve and its plateau with interval."""
    doses = _groups(table, "dose")
    columns = min(_PANELS_IN_A_ROW, len(doses))
    height = 0.7 + 2.3 * -(-len(doses) // columns)
    figure, panel = panels(len(doses), height, columns=columns, sharex=True, sharey=True)
    for axes, (dose, rows) in zip(panel, doses, strict=True):
        measured, fitted = (rows[rows["kind"] == kind] for kind in ("measured", "fitted"))
        look = {"color": style.BLUE, "linestyle": "none", "markersize": 5}
        line(axes, values(measured, "steps"), measured, "ndcg@10", **look)
        axes.set_title(f"dose {dose:,}" + (": no plateau" if fitted.empty else ""))
        if not fitted.empty:
            axes.plot(values(fitted, "steps"), values(fitted, "ndcg@10"), color=style.BLUE, linewidth=1.3)
            low, height, high = fitted[["plateau_low", "plateau", "plateau_high"]].iloc[0]
            axes.axhspan(low, high, color=style.VERMILLION, alpha=0.14, linewidth=0)
            level(axes, height, None, color=style.VERMILLION, linewidth=1.3, linestyle="--")
            axes.annotate(
                f"{height:.3f}", (1, high), (0, 2), xycoords=axes.get_yaxis_transform(), fontsize=8.5,
                textcoords="offset points", ha="right", color=style.VERMILLION,
            )  # fmt: skip
    figure.supxlabel("CL steps (0: before CL)", fontsize=10, color=style.INK)
    figure.supylabel(f"nDCG@10, query → {item} image", fontsize=10, color=style.INK)
    return figure


def plateau(table: pd.DataFrame, item: str) -> Figure:
    """The ceiling of every dose against its held-out loss; hollow where the budgets show no plateau."""
    figure, (axes,) = panels(1, 4.4, 7.2)
    losses = values(table, "nats_per_byte")
    axes.plot(losses, values(table, "height"), color=style.GRID, linewidth=1.5, zorder=0)
    seen = table["determined"].astype(bool)
    for face, label, rows in (
        (style.VERMILLION, "fitted plateau", table[seen]),
        ("white", "highest measured", table[~seen]),
    ):
        look = {"markerfacecolor": face, "linestyle": "none", "label": label} | _CONTRASTIVE
        if not rows.empty:
            line(axes, values(rows, "nats_per_byte"), rows, "height", across="nats_per_byte", **look)
    style.reading_axis(axes)
    bottom, top = axes.get_ylim()
    margin = top - bottom
    axes.set(
        ylim=(max(0, bottom - 0.1 * margin), top + 0.25 * margin),
        ylabel=f"ceiling of nDCG@10, query → {item} image",
    )
    axes.legend(loc="lower right", fontsize=9)
    style.name_doses(axes, table)
    return figure


def controls(table: pd.DataFrame, item: str) -> Figure:
    """Forest plot of paired differences in nDCG@10: what each pretraining gained, what controls leave."""
    figure, (axes,) = panels(1, 0.9 + 0.28 * (len(table) + 5), 7.2)
    ticks: list[tuple[float, str, str]] = []
    for number, (group, rows) in enumerate(_groups(table, "group")):
        place = rows.index[0] + 1.5 * number  # a heading, its rows, half a row between groups
        ticks.append((place, labels.GROUPS[group].capitalize(), "bold"))
        for row in rows.itertuples():
            place += 1
            ticks.append((place, labels.comparison_label(row._asdict()), "normal"))
            colour = style.BLUE if row.decides else style.MUTED
            look = {"color": colour, "elinewidth": 1.8, "capsize": 3}
            line(axes, [place], rows.loc[[row.Index]], "difference", sideways=True, **look)
            axes.annotate(
                with_sign(row.difference), (row.difference_high, place), (7, 0), va="center", fontsize=8.5,
                textcoords="offset points", color=colour,
            )  # fmt: skip
    axes.axvline(0, color=style.INK, linewidth=1)
    where, names, weights = zip(*ticks, strict=True)
    style.name_rows(axes, where, names)
    for label, weight in zip(axes.get_yticklabels(), weights, strict=True):
        label.set_weight(weight)
    axes.set_ylim(ticks[-1][0] + 0.7, -0.7)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.2)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("difference in nDCG@10, paired by query and seed")
    return figure


def pretraining_pages(table: pd.DataFrame, item: str) -> Figure:
    """nDCG@10 by dose for own, shuffled and unrelated pages, searching images and searching texts."""
    directions, doses = _groups(table, "direction"), sorted(table["dose"].unique())
    figure, panel = panels(len(directions), 4.0)
    shifts = {"compute": -0.25} | {name: 0.08 * number for number, name in enumerate(labels.PAGES)}
    for axes, (direction, of_direction) in zip(panel, directions, strict=True):
        for control, rows in _groups(of_direction, "control"):
            where, name = places(rows["dose"], doses) + shifts[control], labels.control_label(rows.iloc[0])
            line(axes, where, rows, "ndcg@10", label=name, **_CONTROLS[control])
        style.dose_axis(axes, doses)
        axes.set(ylim=(0, None), ylabel="nDCG@10", title=f"Query → {item} {labels.SEARCHED[direction]}")
    return style.legend_above(figure, axes, columns=4)


def baselines(table: pd.DataFrame, item: str) -> Figure:
    """Every model at dose 0 (hollow) and at the highest dose (filled); models without a dose in green."""
    names = list(dict(_arms(table)))
    figure, (axes,) = panels(1, 1.0 + 0.42 * len(names), 7.2)
    for dose, rows in table.groupby("dose", sort=False, dropna=False):
        where = [names.index(labels.arm_label(*arm)) for arm in rows[["arm", "kind"]].itertuples(index=False)]
        look = {"color": style.GREEN if pd.isna(dose) else style.BLUE, "linestyle": "none"}
        look |= {"markersize": 6.5, "elinewidth": 1.5, "capsize": 3}
        look |= {"markerfacecolor": "white"} if dose == 0 else {}
        label = "no pretraining, no CL" if pd.isna(dose) else f"dose {int(dose):,}"
        line(axes, where, rows, "ndcg@10", sideways=True, label=label, **look)
    style.name_rows(axes, range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlim=(0, None), xlabel=f"nDCG@10, query → {item} image")
    return style.legend_above(figure, axes)


def figure_tables(findings: Findings) -> dict[str, pd.DataFrame]:
    """Every table that has rows, by name."""
    names = _EVERY_RUN if findings.controls is None else FIGURES
    made = {name: tables.frame(FIGURES[name][0](findings)) for name in names}
    return {name: table for name, table in made.items() if not table.empty}


def draw_figures(data: Mapping[str, pd.DataFrame], item: str = "page") -> dict[str, bytes]:
    """PNG bytes of every table that is drawn, by name; ``item`` is what a sample is called."""
    drawn = {name: draw for name, (_, draw) in FIGURES.items() if name in data and draw is not None}
    with matplotlib.rc_context(style.STYLE):
        return {name: style.png(draw(data[name], item)) for name, draw in drawn.items()}


def _groups(table: pd.DataFrame, column: str) -> list[tuple[object, pd.DataFrame]]:
    """(value, its rows), in the order in which the values first come."""
    return list(table.groupby(column, sort=False))


def _arms(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(label of an arm, its rows), in order."""
    for arm, rows in table.groupby(["arm", "kind"], sort=False):
        yield labels.arm_label(*arm), rows


def _look(number: int) -> dict[str, str]:
    """Colour and marker of a series: grey before CL, the primary arm in blue."""
    return _LOOKS[(number - 1) % len(_LOOKS)] if number else {"color": style.MUTED, "marker": "D"}


def _loss_axis(axes: Axes, title: str) -> None:
    # A critic that is sure has a loss of nearly 0.
    axes.set(title=title, ylim=(-0.03 * axes.get_ylim()[1], None), ylabel="loss, nats (lower is better)")


FIGURES = {
    "dose_response": (tables.dose_response, dose_response),
    "law": (tables.law, law),
    "readings": (tables.readings, readings),
    "generation": (tables.generation, generation),
    "geometry": (tables.geometry, geometry),
    "bound": (tables.bound, bound),
    "bound_by_size": (tables.bound_by_size, bound_by_size),
    "critic": (tables.critic, critic),
    "ceilings": (tables.ceilings, ceilings),
    "plateau": (tables.plateau, plateau),
    "learning_rates": (tables.learning_rates, None),
    "controls": (tables.controls, controls),
    "pretraining_pages": (tables.pretraining_pages, pretraining_pages),
    "baselines": (tables.baselines, baselines),
    "adapters": (tables.adapters, None),
    "other_tests": (tables.other_tests, None),
}
"""Name -> its table from the findings, and how this is drawn; None where it is only a table."""
