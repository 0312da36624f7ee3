"""What a run leaves in the tracker."""

import json

import pytest

from pipelines.console import LineReporter, LoggedReporter
from pipelines.results import dose_table, format_table, read_json, values
from pipelines.stage_definition import Cell
from pipelines.stage_runner import run_stage
from tests.unit.pipelines.conftest import Workplace


def events(workplace: Workplace, number: int = 0) -> list[dict]:
    path = workplace.root / f"tracking-{number}" / "events.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def of_kind(events: list[dict], kind: str) -> list[dict]:
    return [event for event in events if event["event"] == kind]


def test_every_cell_has_a_child_run_with_its_metrics_and_end(workplace: Workplace) -> None:
    workplace.run()
    log = events(workplace)
    started = of_kind(log, "start_run")
    parent = started[0]["run"]
    assert all(child["parent"] == parent for child in started[1:])
    refined = [child for child in started if child["tags"].get("stage") == "refine"]
    assert {(child["tags"]["dose"], child["tags"]["arm"]) for child in refined} == {
        (dose, arm) for dose in ("0", "32") for arm in ("text-only", "multimodal-20")
    }
    for child in refined:
        assert float(child["params"]["refine.temperature"]) == workplace.recipe().refine.temperature
        points = [p for e in of_kind(log, "log_points") if e["run"] == child["run"] for p in e["points"]]
        assert [p["step"] for p in points if p["key"] == "loss/loss"] == [1, 2, 3]
        assert {p["key"] for p in points} == {
            "loss/loss",
            "resources/tokens_per_second",
            "summary/flops",
            "summary/padding_share",
            "summary/loss_made_up",
        }
    ends = {event["run"]: event["status"] for event in of_kind(log, "finish_run")}
    assert ends == {child["run"]: "FINISHED" for child in started}


def test_a_reused_cell_is_recorded_as_reused(workplace: Workplace) -> None:
    workplace.run()
    workplace.run()
    started = [e for e in of_kind(events(workplace, 1), "start_run") if e["tags"].get("stage") == "retrieval"]
    assert len(started) == 6
    assert {child["tags"]["reused"] for child in started} == {"true"}
    assert {"d32 - retrieval", "d0 s0 text-only 30 steps - retrieval"} < {child["name"] for child in started}
    for child in started:  # its only other requests are its metrics and its end
        log = [event for event in events(workplace, 1) if event["run"] == child["run"]]
        assert [event["event"] for event in log] == ["start_run", "log_points", "finish_run"]
        assert log[0]["tags"]["output"] and log[0]["tags"]["content_digest"]


def test_the_parent_says_what_was_found_and_what_the_trainings_cost(workplace: Workplace) -> None:
    workplace.run()
    workplace.run()
    for number in (0, 1):
        log = events(workplace, number)
        parent = log[0]["run"]
        [tags] = [event["tags"] for event in of_kind(log, "set_tags") if event["run"] == parent]
        assert tags["mlflow.note.content"].startswith("**inconclusive** run the real stages")
        assert tags["report"].endswith("report.html") and "/store/law/" in tags["report"]
        points = [p for e in of_kind(log, "log_points") if e["run"] == parent for p in e["points"]]
        cost = {p["key"]: p["value"] for p in points if p["key"].startswith("training/")}
        rates = {f"training/{stage} tokens_per_second": 100.0 for stage in ("pretrain", "refine")}
        shares = {f"training/{stage} padding_share": 0.25 for stage in ("pretrain", "refine")}
        assert cost == (shares if number else rates | shares)  # rates of what was computed only


def test_the_run_of_a_failed_cell_ends_failed(workplace: Workplace) -> None:
    run = workplace.new_run(workplace.recipe())
    with pytest.raises(SystemExit):
        run_stage(run, "pretrain", inputs={}, cells=[Cell(key={"dose": dose}) for dose in (0, 666)])
    run.record.close("FAILED")
    log = events(workplace)
    names = {event["run"]: event["name"] for event in of_kind(log, "start_run")}
    ends = {names[event["run"]]: event["status"] for event in of_kind(log, "finish_run")}
    assert ends == {"d0 - pretrain": "FINISHED", "test": "FAILED"}


def test_the_table_by_dose_with_and_without_intervals(workplace: Workplace) -> None:
    [law] = workplace.run(workplace.recipe(doses=(0, 32, 6400)))["law"]
    rows = dose_table(read_json(law["path"], "verdict.json"))
    assert [row["dose"] for row in rows] == [0, 32, 6400]
    assert values(rows, digits=2)[1]["target nats per byte"] == 0.03
    titles, cells = format_table(rows)
    assert titles[0] == "dose" and cells[2][0] == "6,400" and cells[1][-1] == "0.282"
    assert format_table(rows, intervals=True)[1][1][-1] == "0.282 [0.262, 0.302]"


def test_stages_log_their_summaries_beside_the_terminal() -> None:
    shown, logged = [], []
    terminal = LineReporter(shown.append, interval=60)
    reporter = LoggedReporter(terminal, logged.append)
    reporter.stage_started("refine", cells=1, reused=0)
    reporter.progress(label="seed 0", step=1, total=2)
    reporter.stage_finished("refine: done")
    reporter.note("a.pdf: empty")
    assert shown == ["refine: 1 to do", "refine: done", "a.pdf: empty"]
    assert logged == ["refine: done", "a.pdf: empty"]
