"""`lco run`: the whole pipeline in this process, with no server of the user's.

Prefect gets a server of its own for the time of the run (unless PREFECT_API_URL names one), MLflow writes
straight into SQLite. The server starts first: while it does, the slow imports happen here.
"""

import contextlib
import functools
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Column, Table

from data_prep.errors import NoUsableDocuments
from infra.credential import Credential, NotPrivate
from infra.databases import check_prefect_database
from infra.mlflow_client import MLflow
from infra.process import ProcessFailed, handled
from infra.settings import Settings, SettingsError, without_password
from infra.store import StoreError
from pipelines.causes import (
    RunLog,
    has_advice,
    in_short,
    in_words,
    keep_traceback,
    log_file,
    root_cause,
    short_failure,
)
from pipelines.console import (
    Reporter,
    clock_time,
    current_reporter,
    print_table,
    printable,
    terminal_reporter,
)
from pipelines.owner import only_run
from pipelines.parameters import BadParameter, Run
from pipelines.prefect_settings import our_prefect, prefect_client_environment, users_prefect, users_server
from pipelines.results import format_by_row, format_table
from pipelines.runner import OutputMissing
from pipelines.servers import Server, ServerFailed, free_port, prefect_server, wait_healthy
from stages.train.divergence import DivergenceError

logger = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
BAD_INPUT = (BadParameter, SettingsError, NotPrivate, NoUsableDocuments)
KNOWN = (*BAD_INPUT, ProcessFailed, ServerFailed, StoreError, OutputMissing, DivergenceError)
"""Errors whose message is for people."""


class Interrupted(KeyboardInterrupt):
    """A signal asks the command to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def run(given: Run) -> int:
    """Run a flow of pipelines/flow.py and print what it found; return the exit status 0.

    Raises BadParameter, and what a flow raises.
    """
    console, began = Console(), time.monotonic()
    parameters = given.checked()
    settings = Settings.from_environment(output=parameters.output)
    settings.make_private()
    with only_run(settings.output):
        pass  # refused now, not by the flow after a second server has opened the first one's database
    settings.runs.mkdir(parents=True, exist_ok=True)
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)  # paths stay whole
    say(f"Output folder: {settings.output}" + (f", and {settings.bucket}" if settings.bucket else ""))
    with handled((signal.SIGTERM, signal.SIGHUP), _interrupt), prefect_of_the_run(settings) as server:
        from pipelines import flow as flows  # slow; Prefect reads its settings now

        log_path = _quiet_libraries(settings.runs)
        say(f"Log of Prefect and MLflow: {log_path}")
        _wait_for(server, settings, console)
        reporter = terminal_reporter(console)
        current_reporter.set(reporter)
        try:
            result = _call(getattr(flows, parameters.flow), parameters, reporter, server)
        finally:
            _send_what_waits(server)
    _show(result, console, seconds=time.monotonic() - began)
    return 0


def _interrupt(number: int, _: object) -> None:
    raise Interrupted(number)


def exit_code(command: Callable[[], int]) -> int:
    """What a command returns; an error becomes a message that names its cause, and an exit status."""
    try:
        return command()
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
        return _fail("interrupted; what was committed is kept, run again to continue", 128 + number)
    except Exception as error:  # noqa: BLE001 - the last place that can say in one line what happened
        return _explain(error)


def _explain(error: Exception) -> int:
    cause = root_cause(error, KNOWN)
    if isinstance(cause, BAD_INPUT):
        return _fail(str(cause), EXIT_BAD_INPUT)
    if isinstance(cause, ProcessFailed):
        return _fail(short_failure(cause), EXIT_FAILED)
    if isinstance(cause, KNOWN):
        return _fail(str(cause), EXIT_FAILED)
    lines = [in_words(cause, error)]
    if log_file() or not has_advice(cause):
        lines.append(keep_traceback(error))
    return _fail("\n".join(lines), EXIT_FAILED)


def _fail(message: str, code: int) -> int:
    text = "\n".join(printable(line) for line in message.split("\n"))  # may name a file
    print(f"lco: {text}", file=sys.stderr, flush=True)
    return code


@contextlib.contextmanager
def prefect_of_the_run(settings: Settings) -> Iterator[Server | None]:
    """A Prefect server for this run; None where PREFECT_API_URL names the user's.

    Not Prefect's ephemeral mode: that starts the same server, but prints its errors over the progress bars,
    gives up after 20 s (the first start takes longer here) and leaves it running when this process is
    killed. Must be entered before Prefect is imported: Prefect reads its settings then. Raises BadParameter,
    and SettingsError.
    """
    address = users_server()
    if address:
        with users_prefect(settings):
            _require_users_server(address)
            yield None
        return
    check_prefect_database(settings)
    port, credential = free_port(), Credential.new()
    client = prefect_client_environment(credential, port)
    with prefect_server(settings, credential, port=port, ui=False) as server, our_prefect(settings, client):
        yield server


def _send_what_waits(server: Server | None) -> None:
    """Let Prefect send its queued logs and states while a server is there: nobody waits for them later."""
    if not _prefect_answers(server):
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)


def _call(
    flow: Callable[..., dict[str, Any]], parameters: Run, reporter: Reporter, server: Server | None
) -> dict[str, Any]:
    """Run it. What the pipeline itself came to counts, not what Prefect raises where its server is gone."""
    from prefect.exceptions import TerminationSignal

    try:
        return flow(**TypeAdapter(type(parameters)).dump_python(parameters, mode="json"))
    except Exception as error:  # noqa: BLE001 - Prefect's client may raise anything
        raised = error
    if isinstance(reporter.failure, TerminationSignal):
        raise Interrupted(reporter.failure.signal)
    if reporter.failure is not None:
        raise reporter.failure
    if reporter.result is None:
        _require_answer(server)  # its end explains what Prefect's client raises
        raise raised
    logger.error("Prefect could not end its run", exc_info=raised)
    reporter.note(
        f"Prefect's server did not answer at the end ({type(raised).__name__}): its page shows this run "
        "as running, without its last tasks and its result. The next start on this output folder ends it."
    )
    return reporter.result


def _require_users_server(address: str) -> None:
    """Raises BadParameter where the user's Prefect server cannot be used, reached as `prefect` reaches it."""
    from httpx import HTTPStatusError

    shown = f"PREFECT_API_URL={without_password(address)}"
    try:
        from prefect.client.orchestration import get_client
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()  # a notebook may have imported it before
        with get_client(sync_client=True) as client:
            client.read_flow_runs(limit=1)
    except HTTPStatusError as error:
        code = error.response.status_code
        if code not in (401, 403):
            raise BadParameter(
                f"{shown} answers {code}: give the address of a Prefect API, which ends with /api, "
                "or unset the variable"
            ) from error
        raise BadParameter(
            f"{shown} does not let us in ({code}): set PREFECT_API_AUTH_STRING or PREFECT_API_KEY to what it "
            "asks for, or unset the variable"
        ) from error
    except Exception as error:
        raise BadParameter(
            f"{shown} does not answer ({in_short(error)}): start that server, or unset the variable"
        ) from error


def _require_answer(server: Server | None) -> None:
    """Raises ServerFailed where the Prefect server, ours or the user's (None), is gone."""
    if server is not None:
        server.check_running()
    elif not _prefect_answers(server):
        address = without_password(os.environ["PREFECT_API_URL"])
        raise ServerFailed(f"PREFECT_API_URL={address} no longer answers: start that server and run again")


def _prefect_answers(server: Server | None) -> bool:
    """Whether the Prefect server, ours or the user's (None), is there."""
    if server is not None:
        return server.ready()
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.api_healthcheck() is None


def _quiet_libraries(folder: Path) -> Path:
    """Send what libraries log to a file; the screen belongs to the progress. After the import of Prefect."""
    # Else MLflow adds a handler for stderr when it is imported.
    os.environ["MLFLOW_CONFIGURE_LOGGING"] = "false"
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    handler = RunLog(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # on a full disk each line of the log would be a traceback on the screen
    internal = logging.getLogger("prefect._internal")  # has a handler for stderr: what a dead server misses
    internal.handlers[:], internal.propagate = [], True
    return path


def _wait_for(server: Server | None, settings: Settings, console: Console) -> None:
    if server is None:
        return
    told = "starting a Prefect server for this run (the first time it takes half a minute)"
    if not console.is_terminal:
        console.print(told)
    with console.status(told) if console.is_terminal else contextlib.nullcontext():
        if settings.tracks_here:
            with contextlib.suppress(Exception):  # if it cannot be opened, the run's own attempt says why
                MLflow(settings)  # loads it, seconds, while the server starts
        wait_healthy([server])


def _table(titles: Sequence[str], cells: Sequence[Sequence[str]], title: str, caption: str) -> Table:
    columns = (Column(name, justify="right") for name in titles)
    table = Table(*columns, title=title, title_justify="left", caption=caption, caption_justify="left")
    for row in cells:
        table.add_row(*row)
    return table


def _show(result: dict[str, Any], console: Console, *, seconds: float) -> None:
    """The verdict with its reasons, the table, and where everything is."""
    # Paths are no markup, whatever brackets they hold.
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    say()
    say(f"Verdict: {result['verdict']}", style="bold")
    for reason in result["reasons"]:
        say(f"  - {reason}")
    say(f"Decision: {result['decision']}")
    if result["search_with"]:
        say(f"Search: {result['search_with']}")
    bm25, random = (f"{result['baselines'][name]:.3f}" for name in ("bm25", "random"))
    levels = f"nDCG@10 of BM25 on the text layer: {bm25}, of a random ranking: {random}"
    print_table(console, _table(*format_table(result["table"]), "Dose and response", levels))
    if result["readings"]:
        meaning = "nDCG@10 before CL, and after it"
        print_table(console, _table(*format_by_row(result["readings"]), "Every way to search", meaning))
    say(f"Report:  {result['report']}")
    if result["mlflow"]:
        say(f"MLflow:  {result['mlflow']}  ({result['mlflow_store']})")
    for line in result["not_recorded"]:
        say(f"MLflow:  {printable(line)}")
    say(f"Logs:    {result['logs']}")
    say(f"Took {clock_time(seconds)}.")
