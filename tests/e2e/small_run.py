"""`python -m tests.e2e.small_run ARGUMENTS`: `lco ARGUMENTS` with real servers and processes, but made-up
documents and stages; seconds."""

from unittest import mock

from pipelines import cli
from tests.unit.pipelines.fake_documents import prepare_documents
from tests.unit.pipelines.fake_stages import FAKE_STAGES

if __name__ == "__main__":
    with (
        mock.patch("pipelines.runner.STAGES", FAKE_STAGES),
        mock.patch("pipelines.stage_table.STAGES", FAKE_STAGES),  # read when pipelines.flow is imported
        mock.patch("pipelines.sweep_cells.base_model_digest", lambda recipe: "made up"),
        mock.patch("data_prep.prepare.prepare_documents", prepare_documents),
        mock.patch("pipelines.needs.require_enough_to_run"),  # read when pipelines.flow is imported
        mock.patch("pipelines.needs.require_enough_to_sweep"),
    ):
        cli.program()
