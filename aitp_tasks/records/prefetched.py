"""Reading many objects ahead of whoever goes through them, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_K = TypeVar("_K")
_T = TypeVar("_T")
#: Objects of a shard's size that are read ahead: each is held whole.
SHARDS = 4


def prefetched(read: Callable[[_K], _T], items: Iterable[_K], ahead: int) -> Iterator[_T]:
    """What ``read`` gives for each item, in their order.

    Up to ``ahead`` items are read at the same time, each in a thread, and so many
    results wait. What ``read`` raises is raised where the result would have been;
    whoever leaves early waits for the items that are being read, and no others are.
    """
    pending: deque[Future[_T]] = deque()
    with ThreadPoolExecutor(ahead) as pool:
        try:
            for item in items:
                pending.append(pool.submit(read, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
