"""Order, depth, errors and an early end of reading ahead."""

import threading
import time
from collections.abc import Iterator

import pytest

from aitp_tasks.records.prefetched import prefetched


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 50])
@pytest.mark.parametrize("ahead", [1, 4])
def test_all_come_in_their_order(count: int, ahead: int) -> None:
    def read(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return number * number

    assert list(prefetched(read, range(count), ahead)) == [number * number for number in range(count)]


def test_no_more_than_that_are_read_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    found = prefetched(lambda number: number, items(), 3)
    assert next(found) == 0
    assert len(taken) <= 4
    assert next(found) == 1
    assert len(taken) <= 5
    found.close()


def test_several_are_read_at_the_same_time() -> None:
    # Passes only where all three readers meet.
    meeting = threading.Barrier(3, timeout=30)
    found = prefetched(lambda number: meeting.wait() >= 0, range(3), 3)
    assert list(found) == [True] * 3


def test_an_error_comes_where_its_result_would_have() -> None:
    def read(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    found = prefetched(read, range(9), 4)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(found)
    assert list(found) == []


def test_whoever_leaves_early_leaves_no_thread() -> None:
    before = threading.active_count()
    found = prefetched(lambda number: number, range(1000), 4)
    next(found)
    found.close()
    assert threading.active_count() == before
