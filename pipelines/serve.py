"""`python -m pipelines.serve OUTPUT`: serve the deployments, a child process per run. `lco up` starts it."""

import sys
import warnings

from prefect import serve
from prefect.deployments.runner import EntrypointType

from infra.settings import Settings
from pipelines.flow import lco, sweep
from pipelines.reconcile import reconcile


def main(output: str) -> None:
    """Serve until a signal comes. Two runs of one output folder would compute all twice: one at a time.

    The form shows where results go, and a person can choose another folder.
    """
    # Prefect's answer to a signal; it does stop, and the log would end with a warning.
    warnings.filterwarnings("ignore", message="coroutine 'Runner.astop' was never awaited")
    reconcile(Settings.from_environment(output=output))
    deployments = [
        flow.to_deployment(
            name=name, parameters={"output": output}, entrypoint_type=EntrypointType.MODULE_PATH
        )
        for flow, name in ((lco, "full-pipeline"), (sweep, "grsl"))
    ]
    serve(*deployments, limit=1, print_starting_message=False)


if __name__ == "__main__":
    main(sys.argv[1])
