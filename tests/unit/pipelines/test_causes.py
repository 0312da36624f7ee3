"""Whatever ends a command: its cause is on the screen in one line, the traceback in the run's log."""

import errno
import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import NoUsableDocuments
from infra.process import ProcessFailed
from infra.store import StoreError
from pipelines.causes import RunLog
from pipelines.parameters import BadParameter
from pipelines.run import Interrupted, exit_code


class PrefectSays(Exception):
    """What a library raises on top."""


@pytest.fixture
def run_log(tmp_path: Path) -> Iterator[Path]:
    handler = RunLog(tmp_path / "run.log", delay=True)
    logging.getLogger().addHandler(handler)
    yield tmp_path / "run.log"
    logging.getLogger().removeHandler(handler)
    handler.close()


def raising(*errors: BaseException, explicit: bool = False) -> Callable[[], int]:
    """A command in which the first error leads to the next, and so on."""

    def command() -> int:
        first, *rest = errors
        try:
            raise first
        except BaseException as before:
            if rest and explicit:
                raise rest[0] from before
            if rest:
                raising(*rest)()
            raise

    return command


@pytest.mark.chaos
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("explicit", [True, False])
def test_a_disk_that_fails_is_named_under_all_that_was_raised_on_top(
    run_log, capsys, number, explicit
) -> None:
    cause = OSError(number, "as the system says it", "/output/store/x")
    command = raising(cause, PrefectSays("Crash detected!"), explicit=explicit)
    assert exit_code(command) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("lco: ") and ": /output/store/x: " in first and "Prefect" not in first
    assert second == f"The whole traceback: {run_log}"
    assert "Crash detected!" in run_log.read_text()


def test_a_full_disk_says_what_to_do(run_log, capsys) -> None:
    assert exit_code(raising(OSError(errno.ENOSPC, "No space left on device", "/output/x"))) == 1
    assert capsys.readouterr().err.startswith(
        "lco: no space left on device: /output/x: free space and run again\n"
    )


def test_a_write_that_names_no_file_names_the_place_that_is_full(
    run_log, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(
        shutil, "disk_usage", lambda place: SimpleNamespace(free=0 if place == str(tmp_path) else 9)
    )
    assert exit_code(raising(OSError(errno.ENOSPC, "No space left on device"))) == 1
    assert f"no space left on device: {tmp_path}: free space" in capsys.readouterr().err


def test_a_full_disk_before_there_is_a_log_is_one_line(capsys) -> None:
    assert exit_code(raising(OSError(errno.ENOSPC, "No space left on device", "/output/x"))) == 1
    assert capsys.readouterr().err == "lco: no space left on device: /output/x: free space and run again\n"


@given(depth=st.integers(min_value=0, max_value=5), text=st.text(max_size=80))
def test_a_bug_is_one_line_with_the_first_error_and_its_traceback(depth, text) -> None:
    with pytest.MonkeyPatch.context() as patch:
        told: list[str] = []
        patch.setattr("builtins.print", lambda line, **_: told.append(line))
        errors = [ZeroDivisionError(text), *(PrefectSays(f"layer {n}") for n in range(depth))]
        assert exit_code(raising(*errors)) == 1
    first, *traceback = told[0].split("\n")
    assert first.startswith("lco: ZeroDivisionError: ") and first.endswith("This is a bug in lco")
    assert ("layer" in first) == (depth > 0)
    assert traceback[0] == "Traceback (most recent call last):"  # no run has begun: there is no log


@pytest.mark.parametrize("error", [BadParameter("doses [1]: give 0"), StoreError("/store is no folder")])
def test_our_own_errors_are_their_message_also_below_another_one(capsys, error) -> None:
    exit_code(raising(error, PrefectSays("Crash detected!")))
    assert capsys.readouterr().err == f"lco: {error}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_has_the_exit_status_that_shells_give_it(capsys, number) -> None:
    assert exit_code(raising(ValueError("in the middle"), Interrupted(number))) == 128 + number
    assert exit_code(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.count("lco: interrupted; what was committed is kept") == 2


@pytest.mark.chaos
def test_where_the_log_cannot_be_written_the_cause_is_told_all_the_same(run_log, capsys) -> None:
    run_log.mkdir()
    assert exit_code(raising(OSError(errno.ENOSPC, "No space left on device", "/output/x"))) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "no space left on device" in first
    assert second == f"The traceback could not be written to {run_log}: Is a directory"


def failed(log: Path, text: str) -> ProcessFailed:
    log.write_text(text)
    reason = "failed with exit code 1"
    return ProcessFailed(
        command="stages.law.program", outcome="failed", exit_code=1, reason=reason, log_path=log
    )


FULL = "OSError: [Errno 28] No space left on device: '/output/store/x'"
LOG = f"""Loading weights: 100%
Traceback (most recent call last):
  File "x.py", line 3, in save
{FULL}

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "y.py", line 5, in close
RuntimeError: unexpected position 64 vs 0
"""


def test_a_stage_that_found_the_disk_full_says_so_first_whatever_its_log_ends_with(tmp_path, capsys) -> None:
    error = failed(tmp_path / "output.log", LOG)
    assert exit_code(raising(error, PrefectSays("on top"))) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"lco: stages.law.program failed with exit code 1: {FULL}: free space and run again"
    assert lines[-2:] == [
        "  RuntimeError: unexpected position 64 vs 0",
        f"The whole log: {tmp_path / 'output.log'}",
    ]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            LOG.replace("[Errno 28] No space left on device", "[Errno 2] no such thing"),
            "RuntimeError: unexpected",
        ),
        ("torch.OutOfMemoryError: 3 GiB\n[rank0] bye", "torch.OutOfMemoryError: 3 GiB"),
        ("[rank1]: Traceback:\n[rank1]: a.b.DivergenceError: no\n", "a.b.DivergenceError: no"),
    ],
)
def test_the_last_exception_of_a_stage_is_in_the_first_line(tmp_path, capsys, text, cause) -> None:
    exit_code(raising(failed(tmp_path / "output.log", text)))
    assert f"exit code 1: {cause}" in capsys.readouterr().err.splitlines()[0]


@pytest.mark.chaos
def test_a_stage_that_could_not_even_write_its_log_is_explained_by_the_disk(
    tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=4096))
    exit_code(raising(failed(tmp_path / "output.log", "")))
    assert f"exit code 1: no space left on device: {tmp_path}: free" in capsys.readouterr().err


def test_our_own_words_for_what_the_system_refused_are_told_with_their_exit_status(capsys) -> None:
    """The advice for a refused output folder would be wrong for the documents."""
    refused = PermissionError(errno.EACCES, "Permission denied", "/home/u/docs")
    ours = NoUsableDocuments("/home/u/docs: cannot be listed: Permission denied")
    assert exit_code(raising(refused, ours, explicit=True)) == 2
    assert capsys.readouterr().err == f"lco: {ours}\n"


def test_a_lost_sandbox_whose_log_is_gone_is_told(tmp_path, capsys) -> None:
    log = tmp_path / "gone" / "log"
    log.parent.mkdir()
    log.write_text("Killed by the system\n")
    lost = ProcessFailed(command="The sandbox", outcome="killed", exit_code=-9, reason="ended", log_path=log)
    shutil.rmtree(log.parent)
    assert exit_code(raising(lost)) == 1
    told = capsys.readouterr().err
    assert told.startswith("lco: The sandbox ended") and "Killed by the system" in told
    assert str(log) not in told
