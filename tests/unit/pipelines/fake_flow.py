"""The flow `lco` over made-up stages and documents, for servers started by hand: `lco up` without minutes
of work.

python -m tests.unit.pipelines.fake_flow OUTPUT PREFECT_PORT MLFLOW_PORT
"""

import sys
from pathlib import Path

from prefect import flow

from infra.settings import Settings
from pipelines import flow as real
from pipelines import sweep_cells
from pipelines.parameters import RecipeName, check_parameters
from pipelines.run import exit_status
from tests.unit.pipelines.fake_documents import prepare_documents
from tests.unit.pipelines.fake_stages import FAKE_STAGES


@flow(name="lco", persist_result=False)
def lco(
    recipe: RecipeName = "tiny",
    documents: str | None = None,
    doses: list[int] | None = None,
    seeds: list[int] | None = None,
    output: str | None = None,
) -> dict:
    """Made up."""
    sweep_cells.base_model_digest = lambda recipe: "made up"  # made-up stages start from no model
    parameters = check_parameters(recipe=recipe, documents=documents, doses=doses, seeds=seeds, output=output)
    return real.run_pipeline("lco", parameters, stages=FAKE_STAGES, prepare=prepare_documents)


if __name__ == "__main__":
    from pipelines.up import up

    with exit_status() as status:
        status.code = up(
            Settings.from_environment(output=Path(sys.argv[1])),
            prefect_port=int(sys.argv[2]),
            mlflow_port=int(sys.argv[3]),
            deployments=["tests.unit.pipelines.fake_flow:lco=full-pipeline"],
        )
    sys.exit(status.code)
