"""`python -m pipelines.serve OUTPUT FLOW=NAME ...`: serve deployments, a child process per run.

`lco up` starts it. FLOW: `module:name` of a flow, for instance `pipelines.flow:lco=full-pipeline`.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path

from prefect import serve
from prefect.deployments.runner import EntrypointType, RunnerDeployment


def main(arguments: list[str]) -> None:
    """Serve until a signal comes.

    Two runs of one output folder would compute the same things twice: one at a time.
    """
    # Prefect's answer to a signal; it does stop, and the log would end with a warning.
    warnings.filterwarnings("ignore", message="coroutine 'Runner.astop' was never awaited")
    output, *deployments = arguments
    serve(*(deployment(text, output) for text in deployments), limit=1, print_starting_message=False)


def deployment(text: str, output: str) -> RunnerDeployment:
    """The deployment that `module:flow=name` describes."""
    place, name = text.split("=")
    module, flow = place.split(":")
    return getattr(importlib.import_module(module), flow).to_deployment(
        name=name,
        # The form shows where results go, and a person can choose another folder.
        parameters={"output": str(Path(output))},
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
