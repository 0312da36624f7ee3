"""`python -m pipelines.serve READY`: the deployments, a child process per run. `lco up` starts it."""

import asyncio
import sys
import warnings
from pathlib import Path

from prefect import Flow
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.runner import Runner
from prefect.settings import get_current_settings
from prefect.settings.profiles import load_profiles, save_profiles

from infra.settings import Settings
from pipelines.flow import lco, sweep
from pipelines.reconcile import end_runs_of_earlier_servers, reconcile

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
PAST_A_STOP = A_PERSONS - {"paused", "parameters"}
"""What was a person's in versions that paused deployments at each stop and wrote their parameters."""


def main(ready: Path) -> None:
    """Serve until a signal comes. Two runs of one output folder would compute all twice: one at a time.

    `ready` is made when the server knows the deployments.
    """
    # Prefect's answer to a signal; it does stop, and the log would end with a warning.
    warnings.filterwarnings("ignore", message="coroutine 'Runner.astop' was never awaited")
    settings = Settings.from_environment()
    reconcile(settings)
    end_runs_of_earlier_servers(list(DEPLOYMENTS))
    _write_profile()
    # No pause at the end: a person's own pause could not be told from it at the next start.
    runner = Runner(pause_on_shutdown=False, limit=1)
    theirs = settings.prefect_home / "deployments-are-the-persons"
    for name, flow in DEPLOYMENTS.items():
        runner.add_deployment(_deployment(flow, name, kept=A_PERSONS if theirs.exists() else PAST_A_STOP))
    theirs.touch()
    ready.touch()
    asyncio.run(runner.start())
    reconcile(settings)  # while the servers are there


def _deployment(flow: Flow, name: str, *, kept: set[str]) -> RunnerDeployment:
    """Of one that the server knows, all but what is `kept` is brought up to date."""
    deployment = flow.to_deployment(name=name, entrypoint_type=EntrypointType.MODULE_PATH)
    # Prefect updates the fields that are set, to nothing too.
    deployment.model_fields_set.difference_update(kept)
    return deployment


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
