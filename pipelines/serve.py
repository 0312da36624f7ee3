"""`python -m pipelines.serve READY`: the deployments, a child process per run. `lco up` starts it."""

import asyncio
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.runner import Runner
from prefect.settings import get_current_settings
from prefect.settings.profiles import load_profiles, save_profiles
from prefect.states import Crashed

from infra.settings import Settings
from pipelines.flow import lco, sweep
from pipelines.reconcile import reconcile

PROFILE = "lco"
DEPLOYMENTS = {"full-pipeline": lco, "grsl": sweep}
A_PERSONS = {
    "schedules",
    "paused",
    "tags",
    "description",
    "parameters",
    "concurrency_limit",
    "concurrency_options",
}
"""What a person sets on a deployment, on Prefect's page or with its command line."""


def main(ready: Path) -> None:
    """Serve until a signal comes. Two runs of one output folder would compute all twice: one at a time.

    `ready` is made when the server knows the deployments.
    """
    # Prefect's answer to a signal; it does stop, and the log would end with a warning.
    warnings.filterwarnings("ignore", message="coroutine 'Runner.astop' was never awaited")
    reconcile(Settings.from_environment())
    _end_what_earlier_servers_left()
    _write_profile()
    # No pause at the end: a person's own pause could not be told from it at the next start.
    runner = Runner(pause_on_shutdown=False, limit=1)
    for name, flow in DEPLOYMENTS.items():
        runner.add_deployment(_deployment(flow, name))
    ready.touch()
    asyncio.run(runner.start())


def _deployment(flow: Flow, name: str) -> RunnerDeployment:
    """Of one that the server knows, only what the code says is brought up to date."""
    deployment = flow.to_deployment(name=name, entrypoint_type=EntrypointType.MODULE_PATH)
    # Prefect updates the fields that are set, to nothing too.
    deployment.model_fields_set.difference_update(A_PERSONS)
    return deployment


def _end_what_earlier_servers_left() -> None:
    """The database is that of this output folder, which has one `lco up` at a time: a run that an earlier one
    began has ended with it. What a schedule has planned for the time in which nobody served is not made up
    for: a month of nightly retraining would begin at once."""
    began = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    for run in _flow_runs(began):
        end = Crashed(message="`lco up`, which had started it, ended before it.")
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, end, force=True)
    for run in _flow_runs([StateType.SCHEDULED], before=datetime.now(UTC)):
        if run.auto_scheduled:
            with get_client(sync_client=True) as client:
                client.delete_flow_run(run.id)


def _flow_runs(states: list[StateType], *, before: datetime | None = None) -> list[FlowRun]:
    """All runs of our deployments in these states, expected to start `before`."""
    runs: list[FlowRun] = []
    chosen = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=before),
    )
    ours = DeploymentFilter(name=DeploymentFilterName(any_=list(DEPLOYMENTS)))
    with get_client(sync_client=True) as client:
        while more := client.read_flow_runs(flow_run_filter=chosen, deployment_filter=ours, offset=len(runs)):
            runs += more
    return runs


def _write_profile() -> None:
    """Let `prefect` with our PREFECT_HOME find the server and be let in, with no secret to type or export."""
    api = get_current_settings().api
    profiles = load_profiles()
    ours = {"PREFECT_API_URL": api.url, "PREFECT_API_AUTH_STRING": api.auth_string.get_secret_value()}
    is_new = PROFILE not in profiles
    profiles.update_profile(PROFILE, ours)
    if is_new:  # later a person may have chosen another
        profiles.set_active(PROFILE)
    save_profiles(profiles)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
