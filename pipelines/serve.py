"""`python -m pipelines.serve OUTPUT READY`: the deployments, a child process per run. `lco up` starts it."""

import asyncio
import sys
import warnings
from pathlib import Path

from prefect.deployments.runner import EntrypointType
from prefect.runner import Runner
from prefect.settings import get_current_settings
from prefect.settings.profiles import Profile, load_profiles, save_profiles

from infra.settings import Settings
from pipelines.flow import lco, sweep
from pipelines.reconcile import reconcile

PROFILE = "lco"


def main(output: str, ready: Path) -> None:
    """Serve until a signal comes. Two runs of one output folder would compute all twice: one at a time.

    The form shows where results go, and a person can choose another folder. `ready` is made when the server
    knows the deployments.
    """
    # Prefect's answer to a signal; it does stop, and the log would end with a warning.
    warnings.filterwarnings("ignore", message="coroutine 'Runner.astop' was never awaited")
    reconcile(Settings.from_environment(output=output))
    _write_profile()
    runner = Runner(pause_on_shutdown=True, limit=1)
    for flow, name in ((lco, "full-pipeline"), (sweep, "grsl")):
        runner.add_deployment(
            flow.to_deployment(
                name=name, parameters={"output": output}, entrypoint_type=EntrypointType.MODULE_PATH
            )
        )
    ready.touch()
    asyncio.run(runner.start())


def _write_profile() -> None:
    """Let `prefect` with our PREFECT_HOME find the server and be let in, with no secret to type or export."""
    api = get_current_settings().api
    profiles = load_profiles()
    settings = {"PREFECT_API_URL": api.url, "PREFECT_API_AUTH_STRING": api.auth_string.get_secret_value()}
    if PROFILE in profiles:
        profiles.remove_profile(PROFILE)
    profiles.add_profile(Profile(name=PROFILE, settings=settings))
    profiles.set_active(PROFILE)
    save_profiles(profiles)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
