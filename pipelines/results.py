"""What a run found, as people see it: the table by dose, and the run card of the Prefect page."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.cells import BEFORE_CL

DoseRow = dict[str, Any]
"""{"dose": int, "target nats per byte": {"value", "low", "high"}, ..., "nDCG@10 <arm>": {...}}"""


def dose_table(finding: Mapping[str, Any]) -> list[DoseRow]:
    """One row per dose from verdict.json: generative quality, and nDCG@10 before CL and per arm."""
    return [
        {
            "dose": row["dose"],
            "target nats per byte": row["nats_per_byte"],
            "base nats per byte": row["base_nats_per_byte"],
            "character error rate": row["character_error_rate"],
            **{f"nDCG@10 {arm}": scores["ndcg@10"] for arm, scores in row["retrieval"].items()},
        }
        for row in finding["table"]
    ]


def reading_table(finding: Mapping[str, Any]) -> list[DoseRow]:
    """One row per dose: nDCG@10 of every way to search, before CL and after; empty where there is one."""
    readings = finding.get("readings", [])
    doses = readings[0]["doses"] if readings else []
    return [
        {"dose": dose, **{_reading_title(one): one["curve"][place] for one in readings}}
        for place, dose in enumerate(doses)
    ]


def _reading_title(one: Mapping[str, Any]) -> str:
    return one["reading"] if one["arm"] == BEFORE_CL.name else f"{one['reading']} {one['arm']}"


def values(rows: Sequence[DoseRow]) -> list[dict[str, float]]:
    """The rows without intervals."""
    return [{name: one if name == "dose" else one["value"] for name, one in row.items()} for row in rows]


def format_table(rows: Sequence[DoseRow], *, intervals: bool = False) -> tuple[list[str], list[list[str]]]:
    """Column titles and cells as text, for any printer: what every dose has, others are in the report."""
    titles = [title for title in rows[0] if all(title in row for row in rows)]
    return titles, [[_format(row[title], intervals) for title in titles] for row in rows]


def format_by_row(rows: Sequence[DoseRow]) -> tuple[list[str], list[list[str]]]:
    """The same, a row for each column and a column for each dose: for many columns."""
    titles, cells = format_table(rows)
    first, *others = zip(titles, *cells, strict=True)
    return list(first), [list(one) for one in others]


def _format(value: Any, intervals: bool) -> str:
    if not isinstance(value, Mapping):
        return f"{value:,}"
    text = f"{value['value']:.3f}"
    return f"{text} [{value['low']:.3f}, {value['high']:.3f}]" if intervals else text


def run_card(result: Mapping[str, Any], recipe: str) -> str:
    """The result in Markdown."""
    titles, cells = format_table(result["table"], intervals=True)
    table = [titles, ["---"] * len(titles), *cells]
    baselines = result["baselines"]
    readings = []
    if result["readings"]:
        titles, cells = format_by_row(result["readings"])
        readings = [
            "\nnDCG@10 of every way to search, before CL and after it:\n",
            *_markdown([titles, ["---"] * len(titles), *cells]),
        ]
    lines = [
        f"# Verdict: {result['verdict']}",
        *(f"- {reason}" for reason in result["reasons"]),
        f"\n**Decision.** {result['decision']} {result['search_with']}\n",
        *_markdown(table),
        f"\nnDCG@10 of BM25 on the text layer: {baselines['bm25']:.3f}, of a random ranking: "
        f"{baselines['random']:.3f}. Brackets: bootstrap intervals.",
        *readings,
    ]
    if result["training"]:
        cost = (f"{name.replace('_', ' ')} {value:.4g}" for name, value in result["training"].items())
        lines.append(f"\nTraining: {', '.join(cost)}.")
    lines.append(f"\nRecipe `{recipe}`. Report: `{result['kept_report']}`. Logs: `{result['logs']}`.")
    page, run = result["mlflow"], result["mlflow_run"]
    if page:
        link = f": [run {run}]({page})" if page.startswith("http") else f" run `{run}`: `{page}`"
        lines.append(f"\nMLflow{link}.")
    lines += [f"\nMLflow {line}" for line in result["not_recorded"]]
    return "\n".join(lines)


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in rows]
