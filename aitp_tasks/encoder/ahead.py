"""Reading ahead: an iterator that runs in a thread of its own."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

_T = TypeVar("_T")
_POLL_SECONDS = 0.2


@contextmanager
def ahead(source: Iterator[_T], depth: int) -> Iterator[Iterator[_T]]:
    """Iterate over ``source`` in a thread, at most ``depth`` items ahead.

    What ``source`` raises is raised where the item would have been; leaving the
    context ends the thread after the item that it is at.
    """
    reader = _Ahead(source, depth)
    thread = threading.Thread(target=reader.work, name="ahead", daemon=True)
    thread.start()
    try:
        yield reader.items()
    finally:
        reader.leave()
        thread.join()


class _Ahead(Generic[_T]):
    """What the thread and its reader share."""

    def __init__(self, source: Iterator[_T], depth: int) -> None:
        self._source = source
        self._ready: queue.Queue[tuple[_T | None, BaseException | None]] = queue.Queue(maxsize=depth)
        self._left = threading.Event()

    def work(self) -> None:
        """Read, in the thread."""
        try:
            for item in self._source:
                self._put(item, None)
                if self._left.is_set():
                    return
        except BaseException as error:
            self._put(None, error)
        else:
            self._put(None, StopIteration())

    def items(self) -> Iterator[_T]:
        """What was read, in order."""
        while True:
            item, error = self._ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            assert item is not None
            yield item

    def leave(self) -> None:
        """Nobody reads on."""
        self._left.set()

    def _put(self, item: _T | None, error: BaseException | None) -> None:
        while not self._left.is_set():
            try:
                self._ready.put((item, error), timeout=_POLL_SECONDS)
                return
            except queue.Full:
                continue
