"""Earlier runs of an output folder get their true end where their own process could not tell it.

A run that was killed says nothing, and one whose Prefect server is gone is not heard: both would be RUNNING
for ever. Whoever holds the folder (pipelines.owner.only_run) knows that every earlier run in it has
ended, and its journal says how. Only flow runs that a journal names are touched: a server may have others.
A server that cannot be reached costs a warning; the next start tries again.
"""

import contextlib
import logging
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Completed, Crashed, Failed

from infra.journal import JOURNAL, JournalTail
from infra.mlflow_client import MLflow
from infra.mlflow_shipper import ship_pending, something_waits
from infra.settings import Settings
from pipelines.owner import only_run
from pipelines.parameters import BadParameter
from pipelines.record import PARENT

logger = logging.getLogger(__name__)

FLOW_RUN_TAG = "prefect.flow_run_id"
ENDS = {"FINISHED": Completed, "FAILED": Failed, "KILLED": Crashed}
# Not Scheduled, not Pending: somebody has asked for the same run again.
SEEMS_TO_RUN = [StateType.RUNNING, StateType.CANCELLING]
# Prefect's runner, when it is stopped, cancels a run that has finished and whose process has not ended yet.
MAY_HAVE_FINISHED = [StateType.CANCELLED]
OPEN_TASK = [StateType.PENDING, StateType.RUNNING]


def reconcile(settings: Settings) -> None:
    """Tell Prefect and MLflow how earlier runs ended, unless a run holds the folder: that one does it."""
    with contextlib.suppress(BadParameter), only_run(settings.output):
        end_flow_runs(settings.runs)
        try:
            if something_waits(settings.runs):
                ship_pending(settings.runs, MLflow(settings))
        except Exception as error:  # noqa: BLE001 - whatever MLflow raises
            logger.warning("MLflow cannot be told how earlier runs ended (%s); the next start tries.", error)


def end_flow_runs(runs: Path, *, besides: UUID | None = None) -> None:
    """Give the flow runs of the journals below `runs`, which must all have ended, their end in Prefect.

    `besides`: a flow run that goes on; Prefect runs one again under the same id.
    """
    journals = {_flow_run(path): path for path in sorted(runs.glob(f"*/{JOURNAL}"))}  # the newest of each
    journals = {known: path for known, path in journals.items() if known not in (None, besides)}
    if not journals:
        return
    try:
        with get_client(sync_client=True) as client:
            _end(client, journals)
    except Exception as error:  # noqa: BLE001 - whatever Prefect raises, the run goes on
        logger.warning("Prefect cannot be told how earlier runs ended (%s); the next start tries.", error)


def end_runs_of_earlier_servers(deployments: list[str]) -> None:
    """Of the server of an output folder, which has one `lco up` at a time: a run of these deployments that an
    earlier one began has ended with it. What a schedule has planned for the time in which nobody served is
    not made up for: a month of nightly retraining would begin at once."""
    with get_client(sync_client=True) as client:
        for run in _runs_of(client, deployments, [StateType.PENDING, *SEEMS_TO_RUN]):
            end = Crashed(message="`lco up`, which had started it, ended before it.")
            client.set_flow_run_state(run.id, end, force=True)
        for run in _runs_of(client, deployments, [StateType.SCHEDULED], before=datetime.now(UTC)):
            if run.auto_scheduled:
                client.delete_flow_run(run.id)


def _runs_of(
    client: SyncPrefectClient,
    deployments: list[str],
    states: list[StateType],
    *,
    before: datetime | None = None,
) -> list[FlowRun]:
    """All runs in these states, expected to start `before`, but those of workers, which live on."""
    chosen = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=before),
    )
    ours = DeploymentFilter(name=DeploymentFilterName(any_=deployments))
    runs: list[FlowRun] = []
    while more := client.read_flow_runs(flow_run_filter=chosen, deployment_filter=ours, offset=len(runs)):
        runs += more
    return [run for run in runs if run.work_pool_name is None]


def _end(client: SyncPrefectClient, journals: dict[UUID, Path]) -> None:
    ours = FlowRunFilterId(any_=list(journals))
    asked = FlowRunFilterState(type=FlowRunFilterStateType(any_=SEEMS_TO_RUN + MAY_HAVE_FINISHED))
    tasks = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=ours),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=OPEN_TASK))),
    )
    for task in tasks:
        client.set_task_run_state(task.id, _end_of_task(journals[task.flow_run_id]), force=True)
    for flow_run in client.read_flow_runs(flow_run_filter=FlowRunFilter(id=ours, state=asked)):
        end = _true_end(journals[flow_run.id])
        if flow_run.state_type in MAY_HAVE_FINISHED and not end.is_completed():
            continue
        client.set_flow_run_state(flow_run.id, end, force=True)
        logger.info("Prefect's run %s has its end now: see %s", flow_run.name, journals[flow_run.id])


def _flow_run(journal: Path) -> UUID | None:
    """Prefect's id, from the first event; None where it was lost, or another version wrote it."""
    try:
        first = next(iter(JournalTail(journal, 0)))
        return UUID(first["tags"][FLOW_RUN_TAG])
    except (StopIteration, KeyError, TypeError, ValueError):
        return None


def _end_of_task(journal: Path) -> State:
    """Of a run that finished, every task did; else what it came to is not known."""
    end = _true_end(journal)
    return end if end.is_completed() else Crashed(message=f"Its run ended: {end.message}")


def _true_end(journal: Path) -> State:
    """What the journal says last of its run, which has ended."""
    told = [
        event["status"]
        for event in JournalTail(journal, 0)
        if event["event"] == "finish" and event["run"] == PARENT
    ]
    if not told:
        return Crashed(message="Its process ended without a word (killed, or the machine stopped).")
    return ENDS[told[-1]](message=f"It ended {told[-1]}; Prefect could not be told then.")
