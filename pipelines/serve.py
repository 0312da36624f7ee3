"""`python -m pipelines.serve OUTPUT FLOW`: serve deployment `full-pipeline`, a child process per run.

`lco up` starts it. FLOW: `module:name` of the flow, for instance `pipelines.flow:lco`.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path

from prefect.deployments.runner import EntrypointType

DEPLOYMENT = "full-pipeline"


def main(arguments: list[str]) -> None:
    """Serve until a signal comes.

    Two runs of one output folder would compute the same things twice: one at a time.
    """
    # Prefect's answer to a signal; it does stop, and the log would end with a warning.
    warnings.filterwarnings("ignore", message="coroutine 'Runner.astop' was never awaited")
    output, flow_name = arguments
    module, name = flow_name.split(":")
    flow = getattr(importlib.import_module(module), name)
    flow.serve(
        name=DEPLOYMENT,
        # The form shows where results go, and a person can choose another folder.
        parameters={"output": str(Path(output))},
        entrypoint_type=EntrypointType.MODULE_PATH,
        limit=1,
        print_starting_message=False,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
