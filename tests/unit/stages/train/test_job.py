"""What the programs of all stages share."""

import time

from stages.train.job import Rhythm


def test_a_program_tells_every_so_often_and_when_it_was_silent_for_long(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    rhythm = Rhythm(every=10)
    told = []
    for done in range(1, 32):
        now[0] += 1.0 if done <= 20 else 8.0  # from 20 on a unit takes long
        if rhythm.due(done):
            told.append(done)
    assert told == [10, 20, 24, 28, 30]
    assert not rhythm.late()
    now[0] += 30.0
    assert rhythm.late() and not rhythm.late()
