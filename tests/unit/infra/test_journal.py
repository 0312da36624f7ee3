"""Events of many processes stand in one file as whole lines, and a reader gets each of them once."""

import json
import math
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.journal import Journal, JournalTail


def steps(tail: JournalTail) -> list[int]:
    return [event["step"] for event in tail]


def test_every_event_is_a_line_with_its_time(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.start("run", "lco tiny", tags={"dose": 300}, params={"doses": (0, 300)})
    journal.progress("c", label="CGP đọc", step=1, done=1, total=2, worker=3, metrics={"loss": 1.5})
    journal.metrics("run", {"ndcg@10": math.nan}, step=300)
    journal.finish("run", "KILLED")
    start, progress, metrics, finish = JournalTail(journal.path, 0)
    assert all(abs(event.pop("time") - time.time()) < 60 for event in (start, progress, metrics, finish))
    texts = {"tags": {"dose": "300"}, "params": {"doses": "(0, 300)"}}
    assert start == {"event": "start", "run": "run", "name": "lco tiny", "parent": None} | texts
    place = {"label": "CGP đọc", "step": 1, "done": 1, "total": 2, "worker": 3}
    assert progress == {"event": "progress", "run": "c", "metrics": {"loss": 1.5}} | place
    assert math.isnan(metrics["metrics"]["ndcg@10"])
    assert finish == {"event": "finish", "run": "run", "status": "KILLED"}


def test_half_a_line_waits_for_its_rest_and_one_that_never_ended_is_skipped(tmp_path, caplog):
    path = tmp_path / "journal.jsonl"
    tail = JournalTail(path)
    assert not list(tail)
    line = json.dumps({"step": 1, "label": "đọc"}, ensure_ascii=False).encode() + b"\n"
    with path.open("ab", buffering=0) as stream:
        for byte in line[:-1]:
            stream.write(bytes([byte]))
            assert not list(tail)
        stream.write(b"\n" + line[:7])  # and the torn end of a killed writer
        assert list(tail) == [{"step": 1, "label": "đọc"}]
        assert not list(tail) and not caplog.text
        stream.write(b'{"step": 2}\n{"step": 3}\n')  # another goes on behind it
    assert list(tail) == [{"step": 3}]
    assert caplog.text.count("skipped a line") == 1


def test_a_tail_begins_at_the_present_end_or_at_an_offset(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.metrics("c", {}, step=1)
    tail = JournalTail(journal.path)
    journal.metrics("c", {}, step=2)
    journal.metrics("c", {}, step=3)
    for event in tail:
        assert event["step"] == 2
        break  # whoever stops here goes on behind it
    assert steps(JournalTail(journal.path, tail.offset)) == [3]
    assert steps(tail) == [3]


def test_lines_of_several_writers_do_not_mix(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")

    def write(run):
        for step in range(200):
            journal.progress(run, step=step, label="x" * 100, done=step, total=200)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, "abcd"))
    assert len([json.loads(line) for line in journal.path.read_text().splitlines()]) == 800


@given(cut=st.integers(min_value=1, max_value=60))
def test_an_event_behind_half_a_line_is_whole(tmp_path_factory, cut):
    journal = Journal(tmp_path_factory.mktemp("torn") / "journal.jsonl")
    journal.metrics("c", {}, step=1)
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + whole[:cut])  # its writer was killed, or the disk was full
    journal.metrics("c", {}, step=2)
    journal.metrics("c", {}, step=3)
    assert steps(JournalTail(journal.path, 0)) == [1, 2, 3]


@pytest.mark.chaos
def test_an_event_that_finds_no_room_is_an_error_and_the_next_one_is_whole(tmp_path, caplog):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.metrics("c", {}, step=1)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:  # the system writes what there is room for: half of the event
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 30, limit[1]))
        with pytest.raises(OSError, match="File too large"):
            journal.metrics("c", {}, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    journal.metrics("c", {}, step=3)
    assert steps(JournalTail(journal.path, 0)) == [1, 3]
    assert caplog.text.count("skipped a line") == 1
