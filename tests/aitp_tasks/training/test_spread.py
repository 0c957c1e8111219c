"""Work in processes of their own: in order, a few at a time, with errors, and an end with who began it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice

import psutil
import pytest

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.training.spread import spread


def _working(unit: float) -> Callable[[int], tuple[int, int]]:
    def work(item: int) -> tuple[int, int]:
        # The first ones of each process are the slowest.
        time.sleep(unit * (item % 3 == 0))
        if item == 1000:
            raise InputError("item 1000 is wrong")
        if item == 2000:
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item, os.getpid()

    return work


def test_results_come_in_order_and_items_are_taken_when_they_are_needed() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in count():
            taken.append(number)
            yield number

    results = list(islice(spread(partial(_working, 0.02), items(), 2), 12))
    assert [square for square, _ in results] == [number**2 for number in range(12)]
    assert os.getpid() not in {process for _, process in results}
    assert len(taken) <= 12 + 2 * 2 + 1


@pytest.mark.parametrize(
    ("item", "kind", "said"),
    [(1000, InputError, "item 1000 is wrong"), (2000, TransientError, "was killed: give .* more memory")],
)
def test_what_goes_wrong_in_a_process_is_told(item: int, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        list(spread(partial(_working, 0), [1, 2, item, 3], 2))


_STARTER = """
import time
from itertools import repeat
from aitp_tasks.training.spread import spread
def sleeping():
    return time.sleep
if __name__ == "__main__":
    for _ in spread(sleeping, repeat(0.05), 2):
        print("one", flush=True)
"""


def test_nobody_is_left_behind_when_the_starter_is_killed(tmp_path: os.PathLike[str]) -> None:
    script = os.path.join(tmp_path, "starter.py")
    with open(script, "w", encoding="utf-8") as file:
        file.write(_STARTER)
    starter = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    assert starter.stdout.readline() == "one\n"
    children = psutil.Process(starter.pid).children(recursive=True)
    assert len(children) >= 2
    starter.kill()
    starter.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
