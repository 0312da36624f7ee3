"""The four figures of the report: dose-response, law, generation curves, geometry by layer.

Colours are from the Okabe-Ito palette, which colour-blind readers can tell apart; every series also has
its own marker. Doses are ordered colours from light to dark.
"""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from stages.law.evidence import BEFORE_CL, Evidence
from stages.law.statistics import Estimate
from stages.law.verdict import Verdict

INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
BLUE, VERMILLION, GREEN, PURPLE, AMBER = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
_ARM_COLOURS, _ARM_MARKERS = (BLUE, VERMILLION, PURPLE, AMBER), ("o", "s", "^", "v")
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


def draw_figures(verdict: Verdict, evidence: Evidence, retrieval: Sequence[dict]) -> dict[str, bytes]:
    """Return PNG bytes by name: dose_response, law, generation, geometry.

    ``retrieval`` are the contents of the retrieval.json files. Their geometry is empty where the corpus is
    smaller than a neighbourhood; then there is no such figure.
    """
    with matplotlib.rc_context(STYLE):
        figures = {
            "dose_response": dose_response(verdict, evidence),
            "law": law(verdict, evidence),
            "generation": generation(verdict),
        }
        if all(cell["geometry"] for cell in retrieval):
            figures["geometry"] = geometry(retrieval, verdict.thresholds.primary_arm, evidence.item)
        return {name: _png(figure) for name, figure in figures.items()}


def dose_response(verdict: Verdict, evidence: Evidence) -> Figure:
    """nDCG@10 of query -> page image against dose, per arm, with intervals and baselines."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    places = _places(evidence.doses)
    for offset, (arm, colour, marker) in enumerate(_arms(evidence, verdict.thresholds.primary_arm)):
        shift = 0.05 * (offset - 1)
        rows = [
            (place, row) for place, row in zip(places, verdict.table, strict=True) if arm in row["retrieval"]
        ]
        where = np.array([place for place, _ in rows]) + shift
        _error_line(
            axes, where, [row["retrieval"][arm]["ndcg@10"] for _, row in rows], colour, marker, _label(arm)
        )
    _baseline(axes, evidence, "bm25", GREEN, "BM25 on the text layer")
    _baseline(axes, evidence, "random", MUTED, "random ranking")
    _dose_axis(axes, evidence.doses)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"nDCG@10, query → {evidence.item} image")
    handles, labels = axes.get_legend_handles_labels()
    arms_first = sorted(range(len(labels)), key=lambda index: labels[index].startswith(("BM25", "random")))
    figure.legend(
        [handles[index] for index in arms_first],
        [labels[index] for index in arms_first],
        loc="outside upper left",
        ncols=3,
        columnspacing=1.4,
        handlelength=1.8,
        fontsize=9,
    )
    return figure


def law(verdict: Verdict, evidence: Evidence) -> Figure:
    """Generative quality (x, better to the right) against retrieval (y), one point per dose."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for arm, colour, marker in _arms(evidence, verdict.thresholds.primary_arm):
        rows = [row for row in verdict.table if arm in row["retrieval"]]
        x = [row["nats_per_byte"] for row in rows]
        y = [row["retrieval"][arm]["ndcg@10"] for row in rows]
        _error_line(axes, [point.value for point in x], y, colour, marker, _label(arm), across=x)
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.margins(x=0.08)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.14)
    _name_doses(axes, verdict.table)
    _plain_log_ticks(axes.xaxis)
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("held-out loss before CL, nats per byte (log scale)      worse  ←  reading  →  better")
    axes.set_ylabel(f"nDCG@10, query → {evidence.item} image")
    figure.legend(loc="outside upper left", ncols=3, columnspacing=1.4, handlelength=1.8, fontsize=9)
    return figure


def _name_doses(axes: Axes, table: Sequence[dict]) -> None:
    """A thin line and a name at each dose's loss; names of neighbours stand on two levels."""
    for number, row in enumerate(table):
        place = row["nats_per_byte"].value
        axes.axvline(place, color=GRID, linewidth=1, zorder=0)
        axes.annotate(
            f"dose {row['dose']:,}",
            (place, 1.0),
            (0, -3 if number % 2 == 0 else -15),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            ha="center",
            va="top",
            color=MUTED,
            fontsize=8.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )


def _plain_log_ticks(axis: Axis) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, written as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())


def generation(verdict: Verdict) -> Figure:
    """Held-out loss and character error rate by dose, target and base language."""
    figure = Figure(figsize=(9.4, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    doses = [row["dose"] for row in verdict.table]
    places = _places(doses)
    for prefix, colour, marker, label in (
        ("", BLUE, "o", "target language"),
        ("base_", AMBER, "s", "base language"),
    ):
        losses = [row[f"{prefix}nats_per_byte"] for row in verdict.table]
        _error_line(left, places, losses, colour, marker, label)
        errors = [row[f"{prefix}character_error_rate"] for row in verdict.table]
        _error_line(right, places, errors, colour, marker, label)
    left.set_yscale("log")
    _plain_log_ticks(left.yaxis)
    left.set_title("Held-out loss, nats per byte (log scale; lower is better)")
    right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    right.set_ylim(bottom=0)
    right.set_title("Character error rate of transcription (lower is better)")
    for axes in (left, right):
        _dose_axis(axes, doses)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=9)
    return figure


def geometry(retrieval: Sequence[dict], primary_arm: str, item: str = "page") -> Figure:
    """Anisotropy and image-text mutual-kNN by layer: every dose before CL, the highest also after CL."""
    cells = mean_geometry(retrieval)
    doses = sorted({dose for dose, arm in cells if arm == BEFORE_CL})
    figure = Figure(figsize=(10.4, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    measures = (
        ("anisotropy_image", f"Anisotropy of {item} images"),
        ("anisotropy_text", f"Anisotropy of {item} texts"),
        ("mutual_knn", "Image-text mutual-kNN"),
    )
    shades = matplotlib.colormaps["cividis_r"](np.linspace(0.12, 0.95, max(len(doses), 1)))
    for axes, (measure, title) in zip(panels, measures, strict=True):
        for dose, shade in zip(doses, shades, strict=True):
            _layer_line(
                axes, cells[dose, BEFORE_CL], measure, f"dose {dose:,}, before CL", color=shade, marker="o"
            )
        top = max(dose for dose, _ in cells)
        if (top, primary_arm) in cells:
            _layer_line(
                axes, cells[top, primary_arm], measure, f"dose {top:,}, after {primary_arm} CL",
                color=VERMILLION, linestyle="--", marker="s",
            )  # fmt: skip
        axes.set_title(title)
        axes.set_xlabel("layer")
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[2].axhline(
        retrieval[0]["chance_mutual_knn"], color=MUTED, linestyle=":", linewidth=1.3, label="chance"
    )
    panels[2].set_ylim(bottom=0)
    handles, labels = panels[2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, fontsize=9)
    return figure


def mean_geometry(retrieval: Sequence[dict]) -> dict[tuple[int, str], list[dict]]:
    """(dose, arm) -> one dict per layer, averaged over seeds; NaN, which is not drawn, where not measured."""
    grouped: dict[tuple[int, str], list[list[dict]]] = {}
    for cell in retrieval:
        grouped.setdefault((cell["dose"], cell["arm"] or BEFORE_CL), []).append(cell["geometry"])
    return {
        key: [
            {
                name: float(np.mean(np.array([layer[name] for layer in layers], dtype=float)))
                for name in layers[0]
            }
            for layers in zip(*runs, strict=True)
        ]
        for key, runs in grouped.items()
    }


def _layer_line(axes: Axes, layers: Sequence[dict], measure: str, label: str, **style: object) -> None:
    axes.plot(
        [layer["layer"] for layer in layers], [layer[measure] for layer in layers],
        label=label, linewidth=1.7, markersize=4.5, **style,
    )  # fmt: skip


def _arms(evidence: Evidence, primary: str) -> list[tuple[str, str, str]]:
    """(arm, colour, marker): before CL in grey, then the arms, the primary one in blue."""
    arms = sorted(evidence.arms, key=lambda arm: arm != primary)
    coloured = [(arm, _ARM_COLOURS[i % 4], _ARM_MARKERS[i % 4]) for i, arm in enumerate(arms)]
    return [(BEFORE_CL, MUTED, "D"), *coloured]


def _label(arm: str) -> str:
    return arm if arm == BEFORE_CL else f"after {arm} CL"


def _places(doses: Sequence[int]) -> np.ndarray:
    """Positions on a logarithmic dose axis, dose 0 one doubling before the smallest."""
    smallest = min((dose for dose in doses if dose > 0), default=1)
    return np.array([1 + np.log2(dose / smallest) if dose else 0.0 for dose in doses])


def _dose_axis(axes: Axes, doses: Sequence[int]) -> None:
    axes.set_xticks(_places(doses), [f"{dose:,}" for dose in doses], rotation=30 if len(doses) > 6 else 0)
    axes.set_xlabel("dose: examples seen in pretraining (log scale after 0)")
    # Two strokes through the axis: 0 has no place on a logarithm.
    axes.plot(
        [0.46, 0.54], [0, 0], transform=axes.get_xaxis_transform(), linestyle="none", clip_on=False,
        marker=[(-1, -2), (1, 2)], markersize=10, markeredgewidth=1.2, color=MUTED, zorder=5,
    )  # fmt: skip
    axes.grid(axis="x", visible=False)


def _error_line(
    axes: Axes,
    x: Sequence[float] | np.ndarray,
    y: Sequence[Estimate],
    colour: str,
    marker: str,
    label: str,
    across: Sequence[Estimate] | None = None,
) -> None:
    values = np.array([point.value for point in y])
    axes.errorbar(
        x, values, yerr=_bars(y), xerr=None if across is None else _bars(across), label=label, color=colour,
        marker=marker, markersize=6, linewidth=1.8, elinewidth=1.2, capsize=2.5,
    )  # fmt: skip


def _bars(points: Sequence[Estimate]) -> np.ndarray:
    return np.array([[max(p.value - p.low, 0), max(p.high - p.value, 0)] for p in points]).T


def _baseline(axes: Axes, evidence: Evidence, name: str, colour: str, label: str) -> None:
    level = float(evidence.baselines[name]["ndcg@10"].mean())
    axes.axhline(
        level,
        color=colour,
        linestyle="--" if name == "bm25" else ":",
        linewidth=1.5,
        label=f"{label} ({level:.2g})",
    )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # No date or version inside: the same evidence gives the same bytes.
    figure.savefig(buffer, format="png", dpi=_PIXELS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()
