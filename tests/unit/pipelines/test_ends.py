"""What the pipeline came to is what `lco run` says, whatever Prefect's server makes of it."""

import contextlib
import logging
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.events.worker import EventsWorker
from prefect.exceptions import TerminationSignal
from prefect.logging.handlers import APILogWorker

from infra.journal import JOURNAL, JournalTail
from pipelines import flow
from pipelines import run as running
from pipelines.console import Reporter
from pipelines.parameters import Run
from pipelines.record import PARENT
from pipelines.run import Interrupted
from pipelines.servers import ServerFailed
from pipelines.up import stop_signals

ROOT = Path(__file__).parents[3]


class Refused(Exception):
    """What Prefect's client raises when its server is gone."""


def call(reporter: Reporter, *, result: Any = None, failure: BaseException | None = None) -> Any:
    """A flow that comes to this, and whose end Prefect cannot tell."""

    def flow(**_: Any) -> None:
        reporter.result, reporter.failure = result, failure
        raise Refused("connection refused")

    return running._call(flow, Run(), reporter, None)


def test_a_result_counts_though_prefect_could_not_be_told_and_one_line_says_so() -> None:
    lines: list[str] = []
    assert call(Reporter(write=lines.append), result={"verdict": "supported"}) == {"verdict": "supported"}
    [line] = lines
    assert "Prefect's server did not answer at the end (Refused)" in line and "The next start" in line


def test_a_failure_of_the_pipeline_is_raised_and_not_what_prefect_raises_on_top() -> None:
    failure = ZeroDivisionError("the failure")
    failure.__cause__ = OSError("its own cause")
    with pytest.raises(ZeroDivisionError) as raised:
        call(Reporter(), failure=failure)
    assert raised.value is failure
    assert str(failure.__cause__) == "its own cause" and failure.__context__ is None


def test_a_signal_that_prefect_cannot_tell_is_an_interrupt_all_the_same() -> None:
    with pytest.raises(Interrupted) as raised:
        call(Reporter(), failure=TerminationSignal(signal.SIGTERM))
    assert raised.value.number == signal.SIGTERM


def test_without_a_result_the_error_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://anna:secret@127.0.0.1:9/api")
    monkeypatch.setattr(running, "_prefect_answers", lambda server: True)
    with pytest.raises(Refused):
        call(Reporter())
    monkeypatch.setattr(running, "_prefect_answers", lambda server: False)
    gone = r"PREFECT_API_URL=http://127\.0\.0\.1:9/api no longer answers"
    with pytest.raises(ServerFailed, match=gone):  # the user's server
        call(Reporter())


@pytest.mark.parametrize("alive", [True, False])
def test_what_prefect_has_queued_is_sent_while_somebody_answers_and_else_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    drained: list[str] = []
    for worker in (EventsWorker, APILogWorker):
        monkeypatch.setattr(worker, "drain_all", lambda timeout, name=worker.__name__: drained.append(name))
    monkeypatch.setattr(running, "_prefect_answers", lambda server: alive)
    running._send_what_waits(None)
    assert drained == (["EventsWorker", "APILogWorker"] if alive else [])


def test_what_prefect_shows_is_best_effort(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(**_: Any) -> None:
        raise Refused("connection refused")

    monkeypatch.setattr(flow, "create_table_artifact", refuse)
    flow._show_in_prefect({"table": []}, "tiny")
    assert "Prefect's page lacks the table and the run card of this run: connection refused" in caplog.text


def test_nothing_of_the_logging_itself_reaches_the_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    root, internal = logging.getLogger(), logging.getLogger("prefect._internal")
    for name in ("handlers", "propagate", "level"):  # as they were, afterwards
        monkeypatch.setattr(root, name, getattr(root, name))
        monkeypatch.setattr(internal, name, getattr(internal, name))
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(logging, "raiseExceptions", True)
    monkeypatch.setenv("MLFLOW_CONFIGURE_LOGGING", "true")
    internal.handlers = [logging.StreamHandler()]
    path = running._quiet_libraries(tmp_path)
    internal.error("Service failed to process item")
    assert "Service failed to process item" in path.read_text()
    root.handlers[0].setStream(full := open("/dev/full", "w"))  # noqa: SIM115 - it cannot be closed well
    internal.error("and again")
    with contextlib.suppress(OSError):
        full.close()
    logging.captureWarnings(False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_up_stops_at_a_signal_and_when_its_terminal_is_closed(number: int) -> None:
    with stop_signals() as stop:
        signal.raise_signal(number)
        assert stop.wait(10)


def test_the_program_ends_with_its_command_whatever_a_library_would_still_wait_for() -> None:
    waiting = "import threading, time; threading.Thread(target=time.sleep, args=(300,)).start()"
    program = f"{waiting}; from pipelines import cli; cli.main = lambda: 3; cli.program()"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60).returncode == 3


def test_a_run_that_is_stopped_while_it_begins_has_its_end_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> list[str]:
        raise KeyboardInterrupt

    flow_run = SimpleNamespace(id=uuid.uuid4(), name="made up", deployment_id=None)
    monkeypatch.setattr(flow, "get_run_context", lambda: SimpleNamespace(flow_run=flow_run))
    monkeypatch.setattr(flow, "get_run_logger", logging.getLogger)
    monkeypatch.setattr(flow, "end_flow_runs", lambda *_, **__: None)
    monkeypatch.setattr(flow.confinement, "missing", stop)
    with pytest.raises(KeyboardInterrupt), flow.pipeline_run(Run(output=tmp_path)):
        pass
    [journal] = tmp_path.glob(f"runs/*/{JOURNAL}")
    ends = [
        (event["run"], event["status"]) for event in JournalTail(journal, 0) if event["event"] == "finish"
    ]
    assert ends == [(PARENT, "KILLED")]
