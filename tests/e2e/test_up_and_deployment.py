"""`lco up` with real servers, a run started as a person starts it, and what MLflow then holds."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from infra.credential import Credential
from pipelines.servers import free_port
from stages.recipes import get_recipe
from tests.e2e.conftest import LCO, ChildrenWatch, check_private, lco, lco_environment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

RECIPE = "smoke"
REFINE_STEPS = get_recipe(RECIPE).refine.steps
DOSES = [0, 32]  # not those of the recipe


def tags_of(run: dict) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


@dataclass(frozen=True, kw_only=True)
class System:
    """A running `lco up`."""

    process: psutil.Process
    output: Path
    prefect: str
    mlflow: str

    @property
    def credential(self) -> Credential:
        return Credential(*(self.output / "credential").read_text().strip().split(":"))

    def request(self, url: str, body: dict | None = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | self.credential.header
        asked = urllib.request.Request(url, data=data, headers=headers)
        with urllib.request.urlopen(asked, timeout=30) as response:
            return json.load(response)

    def command(self, *arguments: str) -> subprocess.CompletedProcess:
        """A command of Prefect's, with the one variable that `lco up` says to export."""
        environment = lco_environment() | {"PREFECT_HOME": str(self.output / "prefect")}
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


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    output = tmp_path_factory.mktemp("up") / "output"
    ports = [str(free_port()), str(free_port())]
    options = ["--output", str(output), "--prefect-port", ports[0], "--mlflow-port", ports[1]]
    process = subprocess.Popen(
        [*LCO, "up", *options], env=lco_environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = ""
    while "Ctrl-C stops everything" not in told:
        line = process.stdout.readline()
        assert line, f"lco up ended with {process.wait()}"
        told += line
    top = psutil.Process(process.pid)
    family = top.children(recursive=True)
    prefect, mlflow = (f"http://127.0.0.1:{port}" for port in ports)
    system = System(process=top, output=output, prefect=prefect, mlflow=mlflow)
    assert system.credential.password not in told, "it may be a log"
    yield system
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert [member for member in family if member.is_running()] == [], "lco up left processes behind"


def start_run(system: System, documents: Path) -> subprocess.CompletedProcess:
    parameters = {"recipe": RECIPE, "documents": str(documents), "doses": json.dumps(DOSES), "seeds": "[0]"}
    arguments = [text for name, value in parameters.items() for text in ("--param", f"{name}={value}")]
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
    deployment = system.request(f"{system.prefect}/api/deployments/name/lco/full-pipeline")
    form = deployment["parameter_openapi_schema"]["properties"]
    assert set(form) == {"recipe", "documents", "doses", "seeds", "output"}
    assert all(field["description"] for field in form.values())
    assert {"type": "integer"} in [option.get("items") for option in form["doses"]["anyOf"]]
    sweep = system.request(f"{system.prefect}/api/deployments/name/sweep/grsl")
    assert set(sweep["parameter_openapi_schema"]["properties"]) == {*form, "other_documents"}
    assert system.request(f"{system.prefect}/ui-settings")["api_url"] == f"{system.prefect}/api"


def test_a_second_run_reuses_everything(system: System, few_documents: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (system.output / "store").rglob("manifest.json")}
    assert start_run(system, few_documents).returncode == 0
    assert {
        path: path.stat().st_mtime_ns for path in (system.output / "store").rglob("manifest.json")
    } == before
    newest = max((system.output / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime)
    assert not list(newest.glob("*/job.json")), "a stage was started again"
    parents = [run for run in system.runs() if "mlflow.parentRunId" not in tags_of(run)]
    children = [run for run in system.runs() if "mlflow.parentRunId" in tags_of(run)]
    assert len(parents) == 2 and {tags_of(run)["mlflow.parentRunId"] for run in children} == {
        parents[-1]["info"]["run_id"]  # the oldest: the second run computed nothing
    }


def test_a_bad_parameter_fails_the_run_with_its_reason(system: System) -> None:
    result = start_run(system, Path("/no/such/folder"))
    assert result.returncode != 0
    assert "/no/such/folder does not exist" in (system.output / "logs" / "deployments.log").read_text()


def test_a_second_lco_up_on_taken_ports_says_so(system: System, tmp_path: Path) -> None:
    taken = system.prefect.rsplit(":", 1)[1]
    result = lco("up", "--output", tmp_path, "--prefect-port", taken, timeout=60)
    assert result.returncode == 2
    assert "for the Prefect server is taken" in result.stderr
