"""What a run leaves in the tracker."""

import json

import pytest

from pipelines.results import dose_table, format_table
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
        assert [p["step"] for p in points if p["key"] == "loss"] == [1, 2, 3]
    ends = {event["run"]: event["status"] for event in of_kind(log, "finish_run")}
    assert ends == {child["run"]: "FINISHED" for child in started}


def test_a_reused_cell_is_recorded_as_reused(workplace: Workplace) -> None:
    workplace.run()
    workplace.run()
    started = [e for e in of_kind(events(workplace, 1), "start_run") if e["tags"].get("stage") == "retrieval"]
    assert len(started) == 6
    assert {child["tags"]["reused"] for child in started} == {"true"}


def test_the_run_of_a_failed_cell_ends_failed(workplace: Workplace) -> None:
    run = workplace.new_run(workplace.recipe())
    with pytest.raises(SystemExit):
        run_stage(run, "pretrain", inputs={}, cells=[Cell(key={"dose": dose}) for dose in (0, 666)])
    run.record.close("FAILED")
    log = events(workplace)
    names = {event["run"]: event["name"] for event in of_kind(log, "start_run")}
    ends = {names[event["run"]]: event["status"] for event in of_kind(log, "finish_run")}
    assert ends == {"pretrain, dose 0": "FINISHED", "test": "FAILED"}


def test_the_dose_table_averages_seeds_and_keeps_arms_apart(workplace: Workplace) -> None:
    outputs = workplace.run(workplace.recipe(doses=(0, 32, 64), seeds=(0, 1)))
    rows = dose_table(outputs["generation"], outputs["retrieval"])
    assert [row["dose"] for row in rows] == [0, 32, 64]
    assert rows[1]["nDCG@10 before CL"] == pytest.approx(0.232)
    assert rows[1]["nDCG@10 text-only"] == pytest.approx(0.282)
    titles, cells = format_table(rows)
    assert titles[0] == "dose" and cells[2][0] == "64"
