"""Earlier runs get their end in Prefect: those that a journal names, and no other."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.schemas.objects import StateType

from infra.journal import JOURNAL, Journal
from infra.settings import Settings
from pipelines import reconcile as reconciling
from pipelines.owner import only_run
from pipelines.reconcile import FLOW_RUN_TAG, end_flow_runs, reconcile
from pipelines.record import PARENT


class Server:
    """A Prefect server's runs, as far as we ask for them."""

    def __init__(self) -> None:
        self.flows: dict[uuid.UUID, StateType] = {}
        self.tasks: dict[uuid.UUID, tuple[uuid.UUID, StateType]] = {}
        self.messages: list[str] = []

    def flow(self, state: StateType = StateType.RUNNING, *tasks: StateType) -> uuid.UUID:
        self.flows[flow := uuid.uuid4()] = state
        self.tasks |= {uuid.uuid4(): (flow, task) for task in tasks}
        return flow

    def read_flow_runs(self, *, flow_run_filter: Any) -> list[SimpleNamespace]:
        ids, states = flow_run_filter.id.any_, flow_run_filter.state.type.any_
        found = {one: state for one, state in self.flows.items() if one in ids and state in states}
        return [SimpleNamespace(id=one, name="made up", state_type=state) for one, state in found.items()]

    def read_task_runs(self, *, flow_run_filter: Any, task_run_filter: Any) -> list[SimpleNamespace]:
        ids, states = flow_run_filter.id.any_, task_run_filter.state.type.any_
        found = [one for one, (flow, state) in self.tasks.items() if flow in ids and state in states]
        return [SimpleNamespace(id=one, flow_run_id=self.tasks[one][0]) for one in found]

    def set_flow_run_state(self, flow: uuid.UUID, state: Any, *, force: bool) -> None:
        assert force
        self.flows[flow] = state.type
        self.messages.append(state.message)

    def set_task_run_state(self, task: uuid.UUID, state: Any, *, force: bool) -> None:
        assert force
        self.tasks[task] = (self.tasks[task][0], state.type)

    def tasks_of(self, flow: uuid.UUID) -> list[StateType]:
        return [state for of, state in self.tasks.values() if of == flow]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()

    @contextmanager
    def client(*, sync_client: bool) -> Iterator[Server]:
        yield server

    monkeypatch.setattr(reconciling, "get_client", client)
    return server


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(output=tmp_path)


def journal(settings: Settings, flow: uuid.UUID | str, name: str = "1") -> Journal:
    folder = settings.runs / name
    folder.mkdir(parents=True)
    journal = Journal(folder / JOURNAL)
    journal.start(PARENT, "lco tiny", tags={FLOW_RUN_TAG: flow})
    journal.start("cell", "dose 0", parent=PARENT)
    journal.finish("cell", "FINISHED")  # an end, but not the run's
    return journal


RUNNING, COMPLETED, CRASHED = StateType.RUNNING, StateType.COMPLETED, StateType.CRASHED


@pytest.mark.parametrize(
    ("told", "flow_end", "task_end"),
    [
        (None, CRASHED, CRASHED),
        ("KILLED", CRASHED, CRASHED),
        ("FAILED", StateType.FAILED, CRASHED),
        ("FINISHED", COMPLETED, COMPLETED),
    ],
)
def test_a_run_that_seems_to_go_on_gets_the_end_that_its_journal_tells(
    server, settings, told, flow_end, task_end
) -> None:
    flow = server.flow(RUNNING, COMPLETED, RUNNING, StateType.PENDING)
    run = journal(settings, flow)
    if told:
        run.finish(PARENT, told)
    end_flow_runs(settings.runs)
    assert server.flows == {flow: flow_end}
    assert server.tasks_of(flow) == [COMPLETED, task_end, task_end]
    [message] = server.messages
    assert ("without a word" in message) == (told is None)


@pytest.mark.parametrize(("told", "end"), [("FINISHED", COMPLETED), ("KILLED", StateType.CANCELLED)])
def test_a_run_that_prefect_cancelled_after_it_had_finished_has_finished(server, settings, told, end) -> None:
    """Its runner, which was stopped, found the process alive."""
    flow = server.flow(StateType.CANCELLED)
    journal(settings, flow).finish(PARENT, told)
    end_flow_runs(settings.runs)
    assert server.flows[flow] == end


def test_no_other_run_of_the_server_is_touched(server, settings) -> None:
    ours, others = server.flow(RUNNING), server.flow(RUNNING, RUNNING)
    journal(settings, ours)
    end_flow_runs(settings.runs)
    assert server.flows == {ours: CRASHED, others: RUNNING} and server.tasks_of(others) == [RUNNING]


@pytest.mark.parametrize("state", [COMPLETED, StateType.CANCELLED, StateType.SCHEDULED, StateType.PENDING])
def test_a_run_that_has_its_end_or_is_asked_for_again_keeps_its_state(server, settings, state) -> None:
    flow = server.flow(state, RUNNING)
    journal(settings, flow)
    end_flow_runs(settings.runs)
    assert server.flows == {flow: state} and server.tasks_of(flow) == [CRASHED]


def test_a_flow_run_that_runs_again_is_left_alone_and_its_newest_journal_counts(server, settings) -> None:
    flow = server.flow(RUNNING, RUNNING)
    journal(settings, flow, "1").finish(PARENT, "FAILED")
    journal(settings, flow, "2").finish(PARENT, "FINISHED")
    end_flow_runs(settings.runs, besides=flow)
    assert server.flows == {flow: RUNNING} and server.tasks_of(flow) == [RUNNING]
    end_flow_runs(settings.runs)
    assert server.flows == {flow: COMPLETED}


@pytest.mark.chaos
@pytest.mark.parametrize(
    "content", [b"", b'{"event": "sta', b'{"event": "tags", "run": "run"}\n', b"[1]\n", b"\xff\n"]
)
def test_a_journal_without_its_beginning_hinders_no_other(server, settings, content) -> None:
    flow = server.flow(RUNNING)
    journal(settings, flow)
    (settings.runs / "0").mkdir()
    (settings.runs / "0" / JOURNAL).write_bytes(content)
    journal(settings, "no id", "2")
    end_flow_runs(settings.runs)
    assert server.flows == {flow: CRASHED}


@pytest.mark.chaos
def test_a_server_that_does_not_answer_costs_a_warning_and_the_next_start_tries_again(
    server, settings, monkeypatch, caplog
) -> None:
    flow = server.flow(RUNNING)
    journal(settings, flow)
    with monkeypatch.context() as patch:
        patch.setattr(server, "read_task_runs", lambda **_: 1 / 0)
        end_flow_runs(settings.runs)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Prefect cannot be told how earlier runs ended" in caplog.text
    end_flow_runs(settings.runs)
    assert server.flows == {flow: CRASHED}


def test_where_a_run_holds_the_folder_nothing_is_touched(server, settings, monkeypatch) -> None:
    told: list[Path] = []
    monkeypatch.setattr(reconciling, "MLflow", lambda settings: None)
    monkeypatch.setattr(reconciling, "ship_pending", lambda runs, mlflow: told.append(runs))
    flow = server.flow(RUNNING)
    journal(settings, flow)
    with only_run(settings.output):
        reconcile(settings)
    assert server.flows == {flow: RUNNING} and not told
    reconcile(settings)
    assert server.flows == {flow: CRASHED} and told == [settings.runs]


def test_mlflow_is_not_loaded_where_it_knows_everything(server, settings, monkeypatch) -> None:
    monkeypatch.setattr(reconciling, "MLflow", lambda settings: pytest.fail("it was loaded"))
    reconcile(settings)
    path = journal(settings, server.flow(COMPLETED)).path
    path.with_name(f"{JOURNAL}.shipped").write_text(f'{{"offset": {path.stat().st_size}}}')
    reconcile(settings)
