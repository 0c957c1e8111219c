"""Reading ahead: an iterator that runs in a thread of its own."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

_T = TypeVar("_T")
_POLL_SECONDS = 0.2


@contextmanager
def ahead(source: Iterator[_T], depth: int) -> Iterator[Iterator[_T]]:
    """Iterate over ``source`` in a thread, at most ``depth`` items ahead.

    What ``source`` raises is raised where the item would have been; leaving the
    context ends the thread after the item that it is at.
    """
    ready: queue.Queue[tuple[_T | None, BaseException | None]] = queue.Queue(maxsize=depth)
    left = threading.Event()

    def put(item: _T | None, error: BaseException | None) -> None:
        while not left.is_set():
            try:
                ready.put((item, error), timeout=_POLL_SECONDS)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in source:
                put(item, None)
                if left.is_set():
                    return
        except BaseException as error:
            put(None, error)
        else:
            put(None, StopIteration())

    def items() -> Iterator[_T]:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            assert item is not None
            yield item

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        yield items()
    finally:
        left.set()
        thread.join()
