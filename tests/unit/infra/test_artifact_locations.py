"""An output folder that was moved or copied keeps its artifacts, and gets those of its next runs."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.artifact_locations import _local_path, _moved, repair_artifact_locations
from infra.journal import JOURNAL, Journal
from infra.mlflow_client import MLflow
from infra.mlflow_shipper import ShippedJournal, Shipper, ship_pending
from infra.settings import Settings, SettingsError, database_address, database_path
from tests.unit.infra.databases import execute

NAMES = ["plain", "a b%20c", "a%b", "a?b%3Fc#d", "trắng ü"]


def a_run(settings: Settings, name: str = "1") -> str:
    """MLflow's id of a whole run with an artifact."""
    folder = settings.runs / name
    folder.mkdir(parents=True)
    record(settings, Journal(folder / JOURNAL))
    with Shipper(settings, folder / JOURNAL) as shipper:
        pass
    assert shipper.failure is None and shipper.sent
    return shipper.run_id("run")


def record(settings: Settings, journal: Journal) -> None:
    (figure := settings.output / "curve.txt").write_text("figure")
    output = settings.output / "store" / "law" / "f"
    output.mkdir(parents=True, exist_ok=True)
    journal.start("run", "lco tiny", tags={"logs": journal.path.parent, "documents": "/somewhere/else"})
    journal.tags("run", {"output": output, "report": output / "report.html"})
    journal.artifact("run", figure, "figures")
    journal.finish("run")


def artifacts(settings: Settings, run: str) -> list[str]:
    return [file.path for file in MLflow(settings)._client.list_artifacts(run, "figures")]


def stored(settings: Settings) -> list[str]:
    """Every place of the database, in its own words."""
    path = settings.output / "mlflow.db"
    tables = ("artifact_location FROM experiments", "artifact_uri FROM runs")
    return [row[0] for table in tables for row in execute(path, f"SELECT {table}")]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_may_get_any_other(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, after = Settings(output=tmp_path / "before" / name), Settings(output=tmp_path / f"after {name}")
    run = a_run(before)
    assert artifacts(before, run) == ["figures/curve.txt"]
    before.output.rename(after.output)
    again = a_run(after, "2")
    assert artifacts(after, run) == artifacts(after, again) == ["figures/curve.txt"]
    assert {_local_path(one).is_relative_to(after.output) for one in stored(after)} == {True}
    assert list((tmp_path / "before").iterdir()) == []  # nothing made it anew, under no name
    assert {one.name for one in tmp_path.iterdir()} == {"before", after.output.name}


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_the_address_of_a_database_leads_to_its_path(name):
    path = Path("/data") / name / "mlflow.db"
    assert database_path(database_address(path)) == path


def test_sqlalchemy_reads_the_address_so(tmp_path):
    from sqlalchemy import make_url

    for name in NAMES:
        path = tmp_path / name / "mlflow.db"
        assert make_url(database_address(path)).database == str(path)


def test_tags_that_name_a_place_follow_and_others_stay(tmp_path):
    before, after = Settings(output=tmp_path / "out1"), Settings(output=tmp_path / "out2")
    run = a_run(before)
    before.output.rename(after.output)
    tags = MLflow(after)._client.get_run(run).data.tags
    places = {"logs": "runs/1", "output": "store/law/f", "report": "store/law/f/report.html"}
    assert {name: tags[name] for name in places} == {
        name: str(after.output / place) for name, place in places.items()
    }
    assert tags["documents"] == "/somewhere/else"


def test_a_copy_keeps_to_itself(tmp_path):
    first, second = Settings(output=tmp_path / "out1"), Settings(output=tmp_path / "out2")
    run = a_run(first)
    shutil.copytree(first.output, second.output)
    a_run(second, "2")
    assert len(list(first.artifact_root.iterdir())) == 1 and len(list(second.artifact_root.iterdir())) == 2
    shutil.rmtree(first.output)
    assert artifacts(second, run) == ["figures/curve.txt"]


def test_a_folder_may_move_into_itself_and_out_again(tmp_path):
    outer, inner = Settings(output=tmp_path / "out"), Settings(output=tmp_path / "out" / "out")
    run = a_run(outer)
    outer.output.rename(tmp_path / "moving")
    outer.output.mkdir()
    (tmp_path / "moving").rename(inner.output)
    assert artifacts(inner, run) == ["figures/curve.txt"]
    inner.output.rename(tmp_path / "moving")
    outer.output.rmdir()
    (tmp_path / "moving").rename(outer.output)
    assert artifacts(outer, run) == ["figures/curve.txt"]
    assert not (outer.output / "out").exists()


def test_a_folder_moves_whose_default_experiment_lies_elsewhere_as_earlier_versions_had_it(tmp_path):
    before, after = Settings(output=tmp_path / "out1"), Settings(output=tmp_path / "out2")
    run, elsewhere = a_run(before), str(tmp_path / "mlruns" / "0")
    change = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0"
    execute(before.output / "mlflow.db", change, elsewhere)
    before.output.rename(after.output)
    assert artifacts(after, run) == ["figures/curve.txt"]
    assert stored(after)[:2] == [elsewhere, after.artifact_root.as_uri()]


def test_the_default_experiment_of_a_folder_without_runs_follows(tmp_path):
    before, after = Settings(output=tmp_path / "out1"), Settings(output=tmp_path / "out2")
    MLflow(before)
    before.output.rename(after.output)
    repair_artifact_locations(after)
    root = after.artifact_root.as_uri()
    assert stored(after) == [f"{root}/0", root]


def test_what_points_elsewhere_on_purpose_stays(tmp_path):
    before, after = Settings(output=tmp_path / "out1"), Settings(output=tmp_path / "out2")
    run, path = a_run(before), before.output / "mlflow.db"
    chosen = [
        "s3://bucket/mlflow-artifacts",
        (tmp_path / "big" / "mlflow-artifacts").as_uri(),
        f"{tmp_path}/out10/mlflow-artifacts",  # no folder in out1
        "mlflow-artifacts:/1",
    ]
    for number, location in enumerate(chosen):
        add = "INSERT INTO experiments (name, artifact_location, lifecycle_stage) VALUES (?, ?, 'active')"
        execute(path, add, str(number), location)
    before.output.rename(after.output)
    repair_artifact_locations(after)
    assert [one for one in stored(after) if "out2" not in one] == chosen
    assert artifacts(after, run) == ["figures/curve.txt"]


def test_what_a_run_with_another_output_folder_has_put_there_stays(tmp_path):
    owner, guest = Settings(output=tmp_path / "out1"), Settings(output=tmp_path / "out2", experiment="other")
    a_run(owner)
    run = a_run(guest.model_copy(update={"tracking_uri": owner.tracking_uri}), "2")
    assert artifacts(owner, run) == ["figures/curve.txt"]
    assert guest.artifact_root.as_uri() in stored(owner)


def test_a_database_outside_the_output_folder_is_not_changed(tmp_path):
    shared = database_address(tmp_path / "shared" / "mlflow.db")
    before = Settings(output=tmp_path / "out1", tracking_uri=shared)
    a_run(before)
    content = (tmp_path / "shared" / "mlflow.db").read_bytes()
    repair_artifact_locations(Settings(output=tmp_path / "out2", tracking_uri=shared))
    assert (tmp_path / "shared" / "mlflow.db").read_bytes() == content


def test_an_experiment_whose_folder_is_gone_is_refused_and_made_nowhere(tmp_path):
    shared = database_address(tmp_path / "shared" / "mlflow.db")
    a_run(Settings(output=tmp_path / "out1", tracking_uri=shared))
    (tmp_path / "out1").rename(tmp_path / "out2")
    moved = Settings(output=tmp_path / "out2", tracking_uri=shared)
    with pytest.raises(SettingsError) as raised:
        MLflow(moved)
    old = tmp_path / "out1"
    assert str(raised.value) == (
        f"MLflow experiment 'lco' keeps its files in {old}/mlflow-artifacts, and {old} is not there: "
        "bring that folder back, or set LCO_EXPERIMENT to another name"
    )
    MLflow(moved.model_copy(update={"experiment": "new"}))
    assert not old.exists()


def test_a_journal_that_waits_is_sent_from_the_folder_where_it_is_now(tmp_path):
    before, after = Settings(output=tmp_path / "out1"), Settings(output=tmp_path / "out2")
    a_run(before)
    waiting = before.runs / "2" / JOURNAL
    waiting.parent.mkdir()
    record(before, Journal(waiting))
    before.output.rename(after.output)
    ship_pending(after.runs, MLflow(after))
    assert not before.output.exists()
    run = ShippedJournal(after.runs / "2" / JOURNAL).runs["run"]
    assert artifacts(after, run) == ["figures/curve.txt"]


@pytest.mark.parametrize("value", [None, "", "s3://a/out1/x", "models:/m/1", "relative/out1", "/elsewhere"])
def test_a_value_that_is_no_place_of_the_folder_stays(value):
    assert _moved(value, [Path("/out1")], Path("/out2")) is None
