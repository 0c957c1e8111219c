"""A probe that fails, hangs or raises what nobody thought of is one finding."""

import threading
import time
from collections.abc import Sequence

import pytest

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.tools.doctor import bounded
from aitp_tasks.tools.doctor.finding import Finding, Level


def test_one_that_hangs_is_left_behind() -> None:
    ended = threading.Event()

    def hangs() -> Sequence[Finding]:
        ended.wait()
        return []

    start = time.monotonic()
    (finding,) = bounded.run("driver", hangs, 0.2)
    assert time.monotonic() - start < 5
    assert (finding.about, finding.level) == ("driver", Level.WRONG)
    assert finding.says == "no answer in 0 s"
    assert finding.seconds >= 0.2
    ended.set()


@pytest.mark.parametrize(
    ("error", "level", "says"),
    [
        (InputError("no bucket: make it"), Level.WRONG, "no bucket: make it"),
        (TransientError("busy: wait"), Level.PASSING, "busy: wait"),
        (ZeroDivisionError("by zero"), Level.WRONG, "could not be looked at: ZeroDivisionError: by zero"),
        (MemoryError(), Level.WRONG, "could not be looked at: MemoryError: "),
    ],
)
def test_one_that_raises_is_a_finding(error: Exception, level: Level, says: str) -> None:
    def raises() -> Sequence[Finding]:
        raise error

    (finding,) = bounded.run("store", raises)
    assert (finding.level, finding.says) == (level, says)


def test_what_it_finds_is_handed_on_and_timed_once() -> None:
    found = bounded.run("two", lambda: [Finding("a", Level.OK, "1"), Finding("b", Level.NOTE, "2")])
    assert [(one.about, one.level) for one in found] == [("a", Level.OK), ("b", Level.NOTE)]
    assert found[1].seconds == 0
