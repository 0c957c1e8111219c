"""How this process ends."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from aitp_tasks.errors import ExitCode


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that temporary folders are removed and children ended."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(ExitCode.TRANSIENT)

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:
        # Not the main thread: whoever owns that decides what SIGTERM does.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
