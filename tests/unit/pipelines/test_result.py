"""What a person sees of a result: no number is cut on any screen, and nothing points to what is not there."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Column, Table

from infra.journal import JOURNAL, Journal
from infra.mlflow_shipper import Shipper
from infra.settings import Settings
from pipelines.console import print_table
from pipelines.plan import Plan, plan
from pipelines.record import RunRecord
from pipelines.results import run_card
from pipelines.run import _show
from stages.recipes import get_recipe

DOSES = (0, 4_800, 19_200, 1_234_567_890)
ARMS = ("before CL", "text-only", "multimodal-20")
SWEEP_ARMS = (*ARMS, "clip-style", "full", "soup", "whitening", "linear projection", "rank 4", "rank 64")


def result(arms: tuple[str, ...] = ARMS, **changes: Any) -> dict[str, Any]:
    def estimate(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    table = [
        {
            "dose": dose,
            "target nats per byte": estimate(3.926),
            **{f"nDCG@10 {arm}": estimate(0.31 + number / 100) for number, arm in enumerate(arms)},
        }
        for dose in DOSES
    ]
    return {
        "verdict": "supported",
        "reasons": ["it rises"],
        "decision": "train more",
        "search_with": "",
        "table": table,
        "readings": [],
        "baselines": {"bm25": 0.969, "random": 0.008},
        "training": {},
        "report": "/o/report.html",
        "kept_report": "/o/store/law/f/report.html",
        "mlflow": "lco up --output /o",
        "mlflow_store": "sqlite:////o/mlflow.db",
        "mlflow_run": "4f3a",
        "not_recorded": [],
        "logs": "/o/runs/1",
    } | changes


def shown(width: int, *, terminal: bool = True, **parts: Any) -> str:
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=terminal, color_system=None)
    _show(result(**parts), console, seconds=75)
    return screen.getvalue()


def numbers(text: str) -> list[str]:
    return re.findall(r"[\d,]*\d\.?\d*", text)


@pytest.mark.parametrize("width", [10, 20, 40, 80, 120, 300])
@pytest.mark.parametrize("arms", [ARMS, SWEEP_ARMS])
def test_no_number_of_a_result_is_cut_on_any_screen(width: int, arms: tuple[str, ...]) -> None:
    screen = shown(width, arms=arms)
    assert "…" not in screen
    if width > 10:  # there, a dose is longer than a line
        assert {f"{dose:,}" for dose in DOSES} <= set(numbers(screen))
    assert screen.count("3.926") == len(DOSES) and screen.count("0.310") == len(DOSES)
    table = screen[screen.index("Dose") : screen.index("Report:")]
    assert max(map(len, table.splitlines())) <= width


def test_a_narrow_screen_shows_each_dose_as_a_record() -> None:
    lines = shown(40).splitlines()
    begin = lines.index("dose 4,800")
    assert lines[begin : begin + 5] == [
        "dose 4,800",
        "  target nats per byte: 3.926",
        "  nDCG@10 before CL: 0.310",
        "  nDCG@10 text-only: 0.320",
        "  nDCG@10 multimodal-20: 0.330",
    ]


def test_a_screen_of_usual_width_has_the_table_with_its_titles_in_several_lines() -> None:
    screen = shown(80)
    [row] = [line for line in screen.splitlines() if line.startswith("│         4,800 ")]
    assert numbers(row) == ["4,800", "3.926", "0.310", "0.320", "0.330"]


@pytest.mark.parametrize("width", [20, 80])
def test_a_file_or_pipe_gets_the_whole_table_in_lines_as_long_as_it_needs(width: int) -> None:
    text = shown(width, terminal=False, arms=SWEEP_ARMS)
    [titles] = [line for line in text.splitlines() if line.startswith("┃")]
    assert all(f"nDCG@10 {arm}" in titles for arm in SWEEP_ARMS)
    [row] = [line for line in text.splitlines() if line.split("│")[1:2] == ["         4,800 "]]
    assert len(numbers(row)) == 2 + len(SWEEP_ARMS)


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_no_number_of_a_plan_is_cut(width: int) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, color_system=None)
    plan(Plan(recipe="paper-3b", gpus=8), console=console)
    assert "…" not in screen.getvalue()
    assert screen.getvalue().count("3,754,622,976") == 2  # trained by one stage, frozen in the other


@given(
    width=st.integers(20, 200),
    rows=st.lists(st.lists(st.integers(0, 10**12), min_size=4, max_size=4), min_size=1, max_size=4),
)
def test_any_table_on_any_screen_shows_every_number(width: int, rows: list[list[int]]) -> None:
    table = Table(*(Column(title, justify="right") for title in ("dose", "the first", "b", "a longer title")))
    for row in rows:
        table.add_row(*(f"{value:,}" for value in row))
    screen = io.StringIO()
    print_table(Console(file=screen, width=width, force_terminal=True, color_system=None), table)
    found = numbers(screen.getvalue())
    assert found == [f"{value:,}" for row in rows for value in row]


# --- what MLflow has of it ---------------------------------------------------------


def test_the_screen_and_the_card_lead_to_mlflow_where_it_has_the_run() -> None:
    assert "MLflow:  lco up --output /o  (sqlite:////o/mlflow.db)" in shown(80)
    assert "MLflow run `4f3a`: `lco up --output /o`." in run_card(result(), "tiny")
    page = "http://127.0.0.1:5000/#/experiments/1/runs/4f3a"
    assert f"MLflow: [run 4f3a]({page})." in run_card(result(mlflow=page), "tiny")


def test_the_screen_and_the_card_say_what_is_not_recorded_and_lead_nowhere_else() -> None:
    line = "does not have this run: it is down. What is missing waits in /o/runs/1/journal.jsonl; and so on."
    nowhere = {"mlflow": None, "mlflow_run": None, "not_recorded": [line]}
    screen, card = shown(40, **nowhere), run_card(result(**nowhere), "tiny")
    assert f"\nMLflow:  {line}\n" in screen  # whole, however narrow: a path in it can be copied
    assert f"\nMLflow {line}" in card
    for text in (screen, card):
        assert "lco up" not in text and "mlflow.db" not in text and "None" not in text and "4f3a" not in text


@pytest.mark.parametrize("address", ["http://anna:secret@127.0.0.1:1", None])
def test_a_record_tells_where_its_run_is_or_that_it_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = Settings(output=tmp_path, **({"tracking_uri": address} if address else {}))
    journal = Journal(settings.runs / "1" / JOURNAL)
    journal.path.parent.mkdir(parents=True)
    shipper = Shipper(settings, journal.path)
    record = RunRecord(journal, recipe=get_recipe("tiny"), name="lco", tags={}, shipper=shipper)
    with shipper:
        record.close("FINISHED")
    found = record.tracking(settings)
    if address:
        assert (found["mlflow"], found["mlflow_run"]) == (None, None)
        [line] = found["not_recorded"]
        assert line.startswith("does not have this run: LCO_TRACKING_URI=http://127.0.0.1:1 does not answer")
        assert found["mlflow_store"] == "http://127.0.0.1:1" and "secret" not in str(found)
    else:
        assert found["mlflow"].endswith(f"lco up --output {tmp_path}") and found["not_recorded"] == []
        assert re.fullmatch(r"[0-9a-f]{32}", found["mlflow_run"])
