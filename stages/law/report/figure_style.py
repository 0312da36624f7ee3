"""How every figure of the report looks, and the few marks that they share.

Figures are drawn from tables in which each measured number ``x`` has its interval beside it, as ``x_low`` and
``x_high`` (empty where there is none). Colours are from the Okabe-Ito palette, which colour-blind readers can
tell apart; every series also has its own marker. Doses are ordered colours from light to dark.
"""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
BLUE, VERMILLION, GREEN, PURPLE, AMBER = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
_PIXELS_PER_INCH = 170

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "text.parse_math": False,  # names come from recipes and must not be read as formulas
}


def panels(
    count: int, height: float, width: float = 10.4, columns: int | None = None, **shared: bool
) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches with `count` panels, side by side or in so many columns."""
    figure = Figure(figsize=(width, height), layout="constrained")
    columns = columns or count
    axes = list(figure.subplots(-(-count // columns), columns, squeeze=False, **shared).flat)
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]


def line(
    axes: Axes,
    where: Sequence[float] | np.ndarray,
    table: pd.DataFrame,
    column: str,
    *,
    across: str | None = None,
    sideways: bool = False,
    **style: object,
) -> None:
    """A line through ``column`` and its intervals, upwards over x or sideways over y, at ``where``.

    ``across``: a column whose intervals lie along x.
    """
    look = {"marker": "o", "markersize": 6, "linewidth": 1.8, "elinewidth": 1.2, "capsize": 2.5} | style
    if sideways:
        axes.errorbar(values(table, column), where, xerr=bars(table, column), **look)
    else:
        beside = None if across is None else bars(table, across)
        axes.errorbar(where, values(table, column), yerr=bars(table, column), xerr=beside, **look)


def level(axes: Axes, value: float, label: str | None, **style: object) -> None:
    """A line across at one value."""
    axes.axhline(value, label=label, **({"color": MUTED, "linestyle": ":", "linewidth": 1.5} | style))


def values(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column ``[rows]``; NaN, which is not drawn, where nothing was measured."""
    return table[column].to_numpy(dtype=float, na_value=np.nan)


def bars(table: pd.DataFrame, column: str) -> np.ndarray:
    """Lengths of the error bars ``[2, rows]``, below and above."""
    low, middle, high = (values(table, column + end) for end in ("_low", "", "_high"))
    return np.nan_to_num(np.stack([middle - low, high - middle])).clip(min=0)


def shades(count: int) -> np.ndarray:
    """``count`` ordered colours ``[count, 4]``, light for the lowest dose, dark for the highest."""
    return matplotlib.colormaps["cividis_r"](np.linspace(0.12, 0.95, max(count, 1)))


def places(doses: Sequence[int], among: Sequence[int] | None = None) -> np.ndarray:
    """Positions of doses on a logarithmic axis of the doses `among`; 0 one doubling before the smallest."""
    smallest = min((dose for dose in (doses if among is None else among) if dose > 0), default=1)
    return np.array([1 + np.log2(dose / smallest) if dose else 0.0 for dose in doses])


def dose_axis(axes: Axes, doses: Sequence[int]) -> None:
    """Name the doses under ``axes`` whose marks stand at their `places`."""
    crowded = len(doses) > 6
    axes.set_xticks(
        places(doses),
        [f"{dose:,}" for dose in doses],
        rotation=45 if crowded else 0,
        fontsize=9 if crowded else None,
        ha="right" if crowded else "center",
        rotation_mode="anchor",
    )
    axes.set_xlabel("dose: examples seen in pretraining (log scale after 0)")
    # Two strokes through the axis: 0 has no place on a logarithm.
    axes.plot(
        [0.46, 0.54], [0, 0], transform=axes.get_xaxis_transform(), linestyle="none", clip_on=False,
        marker=[(-1, -2), (1, 2)], markersize=10, markeredgewidth=1.2, color=MUTED, zorder=5,
    )  # fmt: skip
    axes.grid(axis="x", visible=False)


def reading_axis(axes: Axes) -> None:
    """The x axis of held-out loss: logarithmic, better reading to the right."""
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.margins(x=0.08)
    plain_log_ticks(axes.xaxis)
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("held-out loss before CL, nats per byte (log scale)      worse  ←  reading  →  better")


def name_doses(axes: Axes, table: pd.DataFrame) -> None:
    """A thin line and a name at each dose's loss; a name stands on the first level where it has room."""
    width = axes.get_window_extent().width
    ends = [-np.inf] * 4
    for dose, loss in dict(zip(table["dose"], table["nats_per_byte"], strict=True)).items():
        axes.axvline(loss, color=GRID, linewidth=1, zorder=0)
        name = f"dose {dose:,}"
        half = 0.5 * len(name) * 8.5 * 0.62 * axes.figure.dpi / 72
        place = axes.transAxes.inverted().transform(axes.transData.transform((loss, 0)))[0] * width
        level = next((n for n, end in enumerate(ends) if place - half > end), len(ends) - 1)
        ends[level] = place + half
        axes.annotate(
            name, (loss, 1.0), (0, -3 - 12 * level), xycoords=axes.get_xaxis_transform(),
            textcoords="offset points", ha="center", va="top", color=MUTED, fontsize=8.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip


def name_rows(axes: Axes, where: Sequence[float], names: Sequence[str]) -> None:
    """Names at the left of a chart whose rows run downwards from the top."""
    axes.set_yticks(where, names, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def plain_log_ticks(axis: Axis) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, written as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def legend_above(figure: Figure, axes: Axes, columns: int = 3, last: tuple[str, ...] = ()) -> Figure:
    """One legend over the figure from the entries of ``axes``; names that start with ``last`` come last."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda index: labels[index].startswith(last) if last else False)
    figure.legend(
        [handles[index] for index in order], [labels[index] for index in order], loc="outside upper left",
        ncols=columns, columnspacing=1.4, handlelength=1.8, fontsize=9,
    )  # fmt: skip
    return figure


def png(figure: Figure) -> bytes:
    """The figure as PNG; no date or version inside: the same evidence gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_PIXELS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()
