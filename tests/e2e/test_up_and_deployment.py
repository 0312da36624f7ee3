"""`lco up` with real servers, a run started as a person starts it, and what MLflow then holds."""

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from infra.credential import Credential
from pipelines.servers import free_port
from stages.recipes import get_recipe
from tests.e2e.conftest import LCO, ChildrenWatch, check_private, friendly_environment, lco, person, start_lco
from tests.unit.infra.conftest import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

RECIPE = "smoke"
REFINE_STEPS = get_recipe(RECIPE).refine.steps
DOSES = [0, 32]  # not those of the recipe


def tags_of(run: dict) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


@dataclass(kw_only=True)
class System:
    """`lco up` on one output folder, started and stopped."""

    output: Path
    ports: tuple[int, int]

    def start(self) -> None:
        prefect, mlflow = map(str, self.ports)
        options = ["--output", self.output, "--prefect-port", prefect, "--mlflow-port", mlflow]
        self.command_line = start_lco([*LCO, "up", *options], stdout=subprocess.PIPE)
        assert self.command_line.stdout is not None
        told = ""
        while "Ctrl-C stops everything" not in told:
            line = self.command_line.stdout.readline()
            assert line, f"lco up ended with {self.command_line.wait()}"
            told += line
        self.process = psutil.Process(self.command_line.pid)
        assert self.credential.password not in told, "it may be a log"

    def stop(self) -> None:
        family = self.process.children(recursive=True)
        self.command_line.send_signal(signal.SIGINT)
        assert self.command_line.wait(timeout=90) == 0
        assert [member for member in family if member.is_running()] == [], "lco up left processes behind"

    @property
    def prefect(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    @property
    def credential(self) -> Credential:
        return Credential(*(self.output / "credential").read_text().strip().split(":"))

    def request(self, url: str, body: dict | list | None = None, method: str | None = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | self.credential.header
        asked = urllib.request.Request(url, data=data, headers=headers, method=method)
        for tries_left in reversed(range(5)):
            try:
                with urllib.request.urlopen(asked, timeout=30) as response:
                    return json.loads(response.read() or b"null")
            except urllib.error.HTTPError as error:
                # Prefect's database is locked for a moment; its own client asks again, too.
                if error.code != 503 or not tries_left:
                    raise
                time.sleep(1)
        raise AssertionError("unreachable")

    def command(self, *arguments: str) -> subprocess.CompletedProcess:
        """A command of Prefect's, with the one variable that `lco up` says to export."""
        environment = friendly_environment() | {"PREFECT_HOME": str(self.output / "prefect")}
        command = [sys.executable, "-m", "prefect", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=840)

    def runs(self) -> list[dict]:
        """All runs of the experiment, as MLflow's REST API returns them."""
        api = f"{self.mlflow}/api/2.0/mlflow"
        experiment = self.request(f"{api}/experiments/get-by-name?experiment_name=lco")["experiment"]
        wanted = {"experiment_ids": [experiment["experiment_id"]], "max_results": 1000}
        return self.request(f"{api}/runs/search", wanted)["runs"]

    def history(self, run: str, metric: str) -> list[tuple[int, float]]:
        metric = urllib.request.quote(metric)
        url = f"{self.mlflow}/api/2.0/mlflow/metrics/get-history?run_id={run}&metric_key={metric}"
        return [(int(point["step"]), float(point["value"])) for point in self.request(url)["metrics"]]

    def read(self, database: str, question: str) -> list:
        """The first column; the servers may be gone."""
        with closing(sqlite3.connect(self.output / database)) as connection:
            return [row[0] for row in connection.execute(question)]

    def states(self, which: str = "1", *, table: str = "flow_run") -> list[str]:
        """What Prefect's database says of runs that have begun, oldest first."""
        begun = f"select state_type from {table} where state_type != 'SCHEDULED' and {which} order by created"
        return self.read("prefect/prefect.db", begun)

    def missed(self) -> int:
        """How many runs a schedule has planned for an earlier time."""
        planned = "from flow_run where state_type = 'SCHEDULED' and auto_scheduled"
        earlier = f"select count(*) {planned} and expected_start_time < datetime('now', '-30 minutes')"
        return self.read("prefect/prefect.db", earlier)[0]

    def mlflow_states(self) -> set[str]:
        return set(self.read("mlflow.db", "select status from runs"))

    def manifests(self) -> dict[Path, int]:
        """What is committed, and when it was."""
        return {path: path.stat().st_mtime_ns for path in self.output.glob("store/**/manifest.json")}

    def deployment(self) -> dict:
        return self.request(f"{self.prefect}/api/deployments/name/lco/full-pipeline")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    before = person().files()
    system = System(output=tmp_path_factory.mktemp("up") / "output", ports=(free_port(), free_port()))
    system.start()
    yield system
    system.stop()
    assert person().files() == before, "something was written where the person's own files are"
    assert list(person().temporary.iterdir()) == [], "temporary files are left"


def parameters(documents: Path, doses: list[int] = DOSES) -> dict:
    return {"recipe": RECIPE, "documents": str(documents), "doses": doses, "seeds": [0]}


def start_run(system: System, documents: Path) -> subprocess.CompletedProcess:
    given = parameters(documents) | {"doses": json.dumps(DOSES), "seeds": "[0]"}
    arguments = [text for name, value in given.items() for text in ("--param", f"{name}={value}")]
    return system.command("deployment", "run", "lco/full-pipeline", "--watch", *arguments)


def test_a_deployment_run_completes_and_mlflow_holds_its_tree(system: System, few_documents: Path) -> None:
    with ChildrenWatch(system.process.pid) as watch:
        result = start_run(system, few_documents)
    log = (system.output / "logs" / "deployments.log").read_text()[-4000:]
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{log}"
    assert "finished successfully in 'Completed'" in " ".join(result.stdout.split())
    assert (system.output / "report.html").stat().st_size > 0
    for program in ("prefect_app", "uvicorn", "pipelines.serve", "infra.preloaded"):
        assert any(program in name for name in watch.seen), program
    guarded = {int(address.rsplit(":", 1)[1]) for address in (system.prefect, system.mlflow)}
    [other] = watch.ports.keys() - guarded
    assert "pipelines.serve" in watch.ports[other]  # where Prefect's runner tells a run that it is cancelled
    for guess in (b"guess\n", b"0" * 32 + b"\n", b"GET / HTTP/1.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", other), timeout=30) as line:
            line.sendall(guess)
            assert line.recv(100) == b"", "it answers only who knows the token of a run"
    password = system.credential.password
    assert watch.leaks == set() and not any(password in name for name in watch.seen)
    check_private(system.output)
    known = {system.output / "credential", system.output / "prefect" / "profiles.toml"}
    files = [path for path in system.output.rglob("*") if path.is_file()]
    assert {path for path in files if password.encode() in path.read_bytes()} == known

    runs = {run["info"]["run_id"]: run for run in system.runs()}
    tags = {run: tags_of(runs[run]) for run in runs}
    [parent] = [run for run in runs if "mlflow.parentRunId" not in tags[run]]
    assert {run["info"]["status"] for run in runs.values()} == {"FINISHED"}
    assert tags[parent]["prefect.deployment"] != "none"
    assert tags[parent]["verdict"] in ("supported", "not supported", "inconclusive")

    arms = len(get_recipe(RECIPE).refine.arms)
    children = [tags[run]["stage"] for run in runs if run != parent]
    assert {stage: children.count(stage) for stage in children} == {
        "prepare": 2,
        "pretrain": len(DOSES),
        "transcription": len(DOSES),
        "generation": len(DOSES),
        "refine": len(DOSES) * arms,
        "retrieval": len(DOSES) * (arms + 1),
        "law": 1,
    }
    for run in runs:
        if tags[run].get("stage") == "refine":
            assert [step for step, _ in system.history(run, "loss/contrastive")] == [REFINE_STEPS]
    datasets = {dataset["dataset"]["name"] for dataset in runs[parent]["inputs"]["dataset_inputs"]}
    assert {"target train", "target test", "base train"} <= datasets


def test_the_dose_response_curve_stands_on_the_parent(system: System) -> None:
    [parent] = [run for run in system.runs() if "mlflow.parentRunId" not in tags_of(run)]
    run = parent["info"]["run_id"]
    for metric in ("dose/target nats per byte", "dose/nDCG_at_10 before CL", "dose/nDCG_at_10 text-only"):
        assert [step for step, _ in system.history(run, metric)] == DOSES, metric


def test_the_form_of_the_deployment_is_typed(system: System) -> None:
    deployment = system.deployment()
    form = deployment["parameter_openapi_schema"]["properties"]
    assert set(form) == {"recipe", "documents", "doses", "seeds", "output"}
    assert all(field["description"] for field in form.values())
    assert {"type": "integer"} in [option.get("items") for option in form["doses"]["anyOf"]]
    sweep = system.request(f"{system.prefect}/api/deployments/name/sweep/grsl")
    assert set(sweep["parameter_openapi_schema"]["properties"]) == {*form, "other_documents"}
    assert system.request(f"{system.prefect}/ui-settings")["api_url"] == f"{system.prefect}/api"


def test_a_bad_parameter_fails_the_run_with_its_reason(system: System) -> None:
    result = start_run(system, Path("/no/such/folder"))
    assert result.returncode != 0
    assert "/no/such/folder does not exist" in (system.output / "logs" / "deployments.log").read_text()


def test_a_second_lco_up_on_taken_ports_says_so(system: System, tmp_path: Path) -> None:
    taken = system.prefect.rsplit(":", 1)[1]
    result = lco("up", "--output", tmp_path, "--prefect-port", taken, timeout=60)
    assert result.returncode == 2
    assert "for the Prefect server is taken" in result.stderr


def test_a_second_lco_up_on_the_same_folder_is_refused_and_locks_nobody_out(system: System) -> None:
    before = system.credential
    ports = ["--prefect-port", str(free_port()), "--mlflow-port", str(free_port())]
    result = lco("up", "--output", system.output, *ports, timeout=60)
    assert result.returncode == 2
    [told] = result.stderr.splitlines()
    assert told.startswith(
        f"lco: another `lco up` serves {system.output} ({system.prefect}, {system.mlflow})"
    )
    assert system.credential == before


def test_a_schedule_leads_to_runs_beside_a_run_of_the_command_line_and_all_reuse_everything(
    system: System, few_documents: Path
) -> None:
    """Prefect 3.8 made none. One folder has one run at a time: they wait for each other."""
    told, before, earlier = len(system.states()), system.manifests(), set(system.output.glob("runs/*/"))
    every_minute = {"schedule": {"cron": "* * * * *"}, "parameters": parameters(few_documents)}
    schedules = f"{system.prefect}/api/deployments/{system.deployment()['id']}/schedules"
    system.request(schedules, [every_minute])
    options = ["--recipe", RECIPE, "--documents", few_documents, "--output", system.output]
    options += ["--doses", *map(str, DOSES), "--seeds", "0"]
    # The schedule's run may be there already: at a terminal one is told so.
    assert wait_until(lambda: lco("run", *options).returncode == 0, 300)
    assert wait_until(lambda: "COMPLETED" in system.states("auto_scheduled"), 200), system.states()
    assert set(system.states()[told:]) <= {"COMPLETED", "RUNNING", "PENDING"}
    assert system.manifests() == before
    later = set(system.output.glob("runs/*/")) - earlier
    assert later and not [job for run in later for job in run.glob("*/job.json")], "a stage was started again"
    parents = [run for run in system.runs() if "mlflow.parentRunId" not in tags_of(run)]
    children = [tags_of(run) for run in system.runs() if "mlflow.parentRunId" in tags_of(run)]
    # Of the oldest: the others computed nothing.
    assert {tags["mlflow.parentRunId"] for tags in children} == {parents[-1]["info"]["run_id"]}


def test_what_a_person_set_stays_and_no_state_lies_when_lco_up_is_stopped_in_the_middle_of_a_run(
    system: System, few_documents: Path
) -> None:
    deployment = system.deployment()
    address = f"{system.prefect}/api/deployments/{deployment['id']}"
    mine = {"tags": ["mine"], "parameters": {"recipe": RECIPE}, "description": "mine"}
    system.request(address, mine | {"concurrency_limit": 1}, method="PATCH")
    sweep = system.request(f"{system.prefect}/api/deployments/name/sweep/grsl")
    system.request(f"{system.prefect}/api/deployments/{sweep['id']}", {"paused": True}, method="PATCH")
    profiles = system.output / "prefect" / "profiles.toml"
    profiles.write_text(f'{profiles.read_text()}PREFECT_LOGGING_LEVEL = "WARNING"\n')
    asked = parameters(few_documents, [0, 3200])
    system.request(f"{address}/create_flow_run", {"parameters": asked, "state": {"type": "SCHEDULED"}})
    assert wait_until(lambda: "RUNNING" in system.mlflow_states(), 120)
    an_hour = [str(datetime.now(UTC) - timedelta(hours=hours)) for hours in (2, 1)]
    system.request(f"{address}/schedule", dict(zip(("start_time", "end_time"), an_hour, strict=True)))
    system.stop()
    begun = system.states()
    assert set(begun) == {"COMPLETED", "FAILED", "CANCELLED"}
    assert set(system.states("1", table="task_run")) <= {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
    assert system.mlflow_states() == {"FINISHED", "KILLED"}
    assert system.missed() > 50

    system.start()
    kept = system.deployment()
    assert {name: kept[name] for name in mine} == mine
    assert kept["global_concurrency_limit"]["limit"] == 1 and not kept["paused"]
    assert system.request(f"{system.prefect}/api/deployments/name/sweep/grsl")["paused"]
    [schedule] = kept["schedules"]
    assert schedule["schedule"]["cron"] == "* * * * *" and schedule["active"]
    assert 'PREFECT_LOGGING_LEVEL = "WARNING"' in profiles.read_text()
    assert system.missed() == 0
    assert system.states()[: len(begun)] == begun and len(system.states()) - len(begun) < 2
