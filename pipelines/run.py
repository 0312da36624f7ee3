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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Column, Table

from data_prep.errors import NoUsableDocuments
from infra.mlflow_client import MLflow
from infra.process import ProcessFailed
from infra.settings import Settings, SettingsError, without_password
from infra.store import StoreError
from pipelines.console import clock_time, current_reporter, printable, terminal_reporter
from pipelines.parameters import BadParameter, Run, only_run
from pipelines.results import format_table
from pipelines.servers import (
    Server,
    ServerFailed,
    answers,
    free_port,
    prefect_client_environment,
    prefect_environment,
    prefect_server,
    wait_healthy,
)

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
LOG_LINES_SHOWN = 25


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
    console.print(f"Output folder: {settings.output}", markup=False, highlight=False)
    with prefect_of_the_run(settings) as server:
        from pipelines import flow as flows  # slow; Prefect reads its settings now

        log_path = _quiet_libraries(settings.runs)
        console.print(f"Log of Prefect and MLflow: {log_path}", markup=False, highlight=False)
        _wait_for(server, settings, console)
        current_reporter.set(terminal_reporter(console))
        result = _call(getattr(flows, parameters.flow), parameters)
    _show(result, console, seconds=time.monotonic() - began)
    return 0


def exit_code(command: Callable[[], int]) -> int:
    """What a command returns; the errors that a person can act on become a message and an exit status.

    Others are bugs: a traceback.
    """
    try:
        return command()
    except (BadParameter, SettingsError, NoUsableDocuments) as error:
        return _fail(str(error), EXIT_BAD_INPUT)
    except ProcessFailed as error:
        return _fail(_short_failure(error), EXIT_FAILED)
    except (ServerFailed, StoreError) as error:
        return _fail(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted; what was committed is kept, run again to continue", EXIT_INTERRUPTED)


def _fail(message: str, code: int) -> int:
    text = "\n".join(printable(line) for line in message.split("\n"))  # may name a file
    print(f"lco: {text}", file=sys.stderr, flush=True)
    return code


def _short_failure(error: ProcessFailed) -> str:
    """The reason, the last lines of the log and where the rest is."""
    reason = str(error).splitlines()[0].split(" Its log is ")[0]
    tail = "\n".join(f"  {line}" for line in error.log_tail.splitlines()[-LOG_LINES_SHOWN:])
    return f"{reason}\n{tail}\nThe whole log: {error.log_path}"


@contextlib.contextmanager
def prefect_of_the_run(settings: Settings) -> Iterator[Server | None]:
    """A Prefect server for this run; None where PREFECT_API_URL names the user's.

    Not Prefect's ephemeral mode: that starts the same server, but prints its errors over the progress bars,
    gives up after 20 s (the first start takes longer here) and leaves it running when this process is
    killed. Must be entered before Prefect is imported: Prefect reads its settings then.
    """
    os.environ.update(prefect_environment(settings))
    given = os.environ.get("PREFECT_API_URL")
    if given:
        if not answers(f"{given.rstrip('/')}/health"):
            raise BadParameter(
                f"PREFECT_API_URL={without_password(given)} does not answer: "
                "start that server, or unset the variable"
            )
        yield None
        return
    port = free_port()
    ours = prefect_client_environment(settings, port)
    with prefect_server(settings, port=port, ui=False) as server:
        os.environ.update(ours)
        try:
            yield server
        finally:
            _send_what_waits()
            for name in ours:
                del os.environ[name]


def _send_what_waits() -> None:
    """Let Prefect send its queued logs and states while the server lives; else it retries for a minute."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)


def _call(flow: Callable[..., dict[str, Any]], parameters: Run) -> dict[str, Any]:
    """Run it; a SIGTERM, which Prefect turns into its own exception, counts as an interrupt."""
    from prefect.exceptions import TerminationSignal

    try:
        return flow(**TypeAdapter(type(parameters)).dump_python(parameters, mode="json"))
    except TerminationSignal as error:
        raise KeyboardInterrupt from error


def _quiet_libraries(folder: Path) -> Path:
    """Send what libraries log to a file; the screen belongs to the progress. After the import of Prefect."""
    # Else MLflow adds a handler for stderr when it is imported.
    os.environ["MLFLOW_CONFIGURE_LOGGING"] = "false"
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    return path


def _wait_for(server: Server | None, settings: Settings, console: Console) -> None:
    if server is None:
        return
    told = "starting a Prefect server for this run (the first time it takes half a minute)"
    if not console.is_terminal:
        console.print(told)
    with console.status(told) if console.is_terminal else contextlib.nullcontext():
        if settings.tracking_uri.startswith("sqlite:"):
            with contextlib.suppress(Exception):  # if it cannot be opened, the run's own attempt says why
                MLflow(settings)  # loads it, seconds, while the server starts
        wait_healthy([server])


def _show(result: dict[str, Any], console: Console, *, seconds: float) -> None:
    """The verdict with its reasons, the table, and where everything is."""
    # Paths are no markup, whatever brackets they hold.
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    say()
    say(f"Verdict: {result['verdict']}", style="bold")
    for reason in result["reasons"]:
        say(f"  - {reason}")
    say(f"Decision: {result['decision']}")
    titles, cells = format_table(result["table"])
    bm25, random = (f"{result['baselines'][name]:.3f}" for name in ("bm25", "random"))
    table = Table(
        *(Column(title, justify="right") for title in titles),
        title="Dose and response",
        title_justify="left",
        caption=f"nDCG@10 of BM25 on the text layer: {bm25}, of a random ranking: {random}",
        caption_justify="left",
    )
    for row in cells:
        table.add_row(*row)
    console.print(table)
    say(f"Report:  {result['report']}")
    say(f"MLflow:  {result['mlflow']}  ({result['mlflow_store']})")
    say(f"Logs:    {result['logs']}")
    say(f"Took {clock_time(seconds)}.")
