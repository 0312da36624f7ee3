"""What a run leaves in its journal, and so in MLflow."""

import pytest

from pipelines.results import dose_table, format_table, values
from pipelines.runner import run_stage
from pipelines.stage_table import Work
from pipelines.sweep_cells import base_model, pretrain_work
from stages.cells import Cell
from stages.recipes import ARMS
from tests.unit.pipelines.conftest import Workplace
from tests.unit.pipelines.fake_stages import FAKE_STAGES


def metrics(workplace: Workplace, cell: str, run: int = 0) -> dict[str, list[tuple[int, float]]]:
    """Every metric of a run of the journal: its steps and values."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in [*workplace.events("progress", run), *workplace.events("metrics", run)]:
        for name, value in event["metrics"].items() if event["run"] == cell else ():
            found.setdefault(name, []).append((event["step"], value))
    return found


def test_every_computed_cell_has_a_child_run_with_its_metrics_and_end(workplace: Workplace) -> None:
    workplace.run()
    parent, *children = workplace.events("start")
    assert parent["run"] == "run" and {child["parent"] for child in children} == {"run"}
    names = {child["name"] for child in children}
    assert {"d32 - retrieval", "d0 s0 text-only 30 steps - refine", "law"} < names
    assert {"prepare target documents", "prepare base documents"} < names
    refined = [child for child in children if child["tags"]["stage"] == "refine"]
    assert {(child["tags"]["dose"], child["tags"]["arm"]) for child in refined} == {
        (dose, arm) for dose in ("0", "32") for arm in ("text-only", "multimodal-20")
    }
    for child in refined:
        assert float(child["params"]["refine.loss.temperature"]) == 0.05
        found = metrics(workplace, child["run"])
        assert [step for step, _ in found.pop("loss/made_up")] == [1, 2, 3]
        assert set(found) == {"resources/tokens_per_second", "summary/flops", "summary/padding_share"}
        [inputs] = [event["inputs"] for event in workplace.events("inputs") if event["run"] == child["run"]]
        assert [one["name"] for one in inputs] == ["target train", "target train queries", "model"]
    ends = {event["run"]: event["status"] for event in workplace.events("finish")}
    assert ends == {child["run"]: "FINISHED" for child in (parent, *children)}


@pytest.mark.parametrize("stage", FAKE_STAGES)
def test_no_stage_is_silent(workplace: Workplace, stage: str) -> None:
    run = workplace.new_run()
    work = Work(cell=Cell(dose=32, arm=ARMS["text-only"], seed=0, steps=30, split="test"))
    [output] = run_stage(run, stage, inputs={}, work=[work])
    found = metrics(workplace, output.path.name)
    assert set(found) > {"loss/made_up"}
    if stage == "critic":
        assert found["query/L_gen/2"] == [(0, 0.5)] and found["text/ndcg@10"] == [(0, 0.3)]


def test_a_reused_output_is_an_input_and_no_run(workplace: Workplace) -> None:
    outputs = workplace.run()
    workplace.run()
    assert [event["run"] for event in workplace.events("start", 1)] == ["run"]
    linked = {event["inputs"][0]["context"]: event["inputs"] for event in workplace.events("inputs", 1)}
    assert {stage: len(linked[stage]) for stage in outputs} == {s: len(made) for s, made in outputs.items()}
    digests = {one["name"]: one["digest"] for one in linked["retrieval"]}
    assert digests["d0 s0 text-only 30 steps - retrieval"] in {one.digest for one in outputs["retrieval"]}
    assert {one["name"] for one in linked["train"]} <= {"target train", "base train"}


def test_the_parent_says_what_was_found_and_what_the_trainings_cost(workplace: Workplace) -> None:
    workplace.run()
    workplace.run()
    rates = {f"training/{stage} tokens_per_second": [(0, 100.0)] for stage in ("pretrain", "refine")}
    shares = {f"training/{stage} padding_share": [(0, 0.25)] for stage in ("pretrain", "refine")}
    for number, cost in enumerate((rates | shares, shares)):  # rates of what was computed only
        [tags] = [event["tags"] for event in workplace.events("tags", number) if event["run"] == "run"]
        assert tags["mlflow.note.content"].startswith("**inconclusive** run the real stages")
        assert tags["report"].endswith("report.html") and "/store/law/" in tags["report"]
        assert metrics(workplace, "run", number) == cost
        attached = [event["path"].rsplit("/", 1)[1] for event in workplace.events("artifact", number)]
        assert attached == ["report.html", "verdict.json", "figures"]


def test_the_run_of_a_failed_cell_ends_failed(workplace: Workplace) -> None:
    run = workplace.new_run()
    with pytest.raises(SystemExit):
        run_stage(run, "pretrain", inputs={}, work=pretrain_work(base_model(run.recipe), [0, 666]))
    run.record.close("FAILED")
    names = {event["run"]: event["name"] for event in workplace.events("start")}
    ends = {names[event["run"]]: event["status"] for event in workplace.events("finish")}
    assert ends == {"d0 - pretrain": "FINISHED", "d666 - pretrain": "FAILED", "test": "FAILED"}


def test_the_table_and_the_curve_by_dose(workplace: Workplace) -> None:
    [law] = workplace.run(workplace.recipe(doses=(0, 32, 6400)))["law"]
    rows = dose_table(law.json("verdict.json"))
    assert [row["dose"] for row in rows] == [0, 32, 6400]
    assert values(rows)[1]["target nats per byte"] == 1 / 33
    titles, cells = format_table(rows)
    assert titles[0] == "dose" and cells[2][0] == "6,400" and cells[1][-1] == "0.282"
    assert format_table(rows, intervals=True)[1][1][-1] == "0.282 [0.262, 0.302]"
    workplace.new_run().record.dose_response(rows)
    curve = metrics(workplace, "run", 1)["dose/nDCG@10 text-only"]
    assert [step for step, _ in curve] == [0, 32, 6400] and curve[1][1] == pytest.approx(0.282)
