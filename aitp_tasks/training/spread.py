"""Work for all processors, in processes of their own, with its results in order."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from aitp_tasks.errors import ExitCode, TransientError

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Items a process has before it: one in work and one that waits.
_AHEAD = 2


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def spread(
    prepare: Callable[[], Callable[[Item], Result]], items: Iterable[Item], processes: int
) -> Iterator[Result]:
    """The result of each item, in their order; few are held at a time.

    Args:
        prepare: called once in each process; gives what does the work. Both are sent there by name.
        items: taken as they are needed.
        processes: how many.

    Raises:
        TransientError: a process was killed.
    """
    # Spawned, because a forked copy of running threads is of no use.
    spawn = multiprocessing.get_context("spawn")
    under_way: deque[Future[Result]] = deque()
    with ProcessPoolExecutor(processes, spawn, _begin, (prepare,)) as pool:
        try:
            for item in items:
                under_way.append(pool.submit(_do, item))
                if len(under_way) > processes * _AHEAD:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool:
            raise TransientError(
                "one of the processes that share the work was killed: give this machine more memory, or retry"
            )
        finally:
            for future in under_way:
                future.cancel()


_work: Callable[[Any], Any]


def _begin(prepare: Callable[[], Callable[[Any], Any]]) -> None:
    global _work
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _work = prepare()


def _end_with_parent() -> None:
    """Leave when the parent is gone: nobody else would tell."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(ExitCode.TRANSIENT)


def _do(item: Any) -> Any:
    return _work(item)
