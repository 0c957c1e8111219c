"""How this process ends, and what ends with it."""

import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from aitp_tasks.errors import ExitCode

if TYPE_CHECKING:
    import psutil

#: Names the descriptor of a pipe's reading end: whoever started this process holds the other end.
LIFELINE = "AITP_LIFELINE"
#: For temporary folders to be removed, where SIGTERM does that.
_END_SECONDS = 5.0


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


@contextmanager
def lifeline() -> Iterator[int]:
    """The reading end of a pipe that ends when this process does, however it does.

    Handed to a child (``pass_fds``) and named by ``LIFELINE`` in its environment, it
    makes the child end with this process; the child has to end before the context does.
    """
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def end_with_starter() -> None:
    """From now on, end with whoever started this process, if that is wanted (``LIFELINE``).

    Ends all that this process has started as well, SIGKILL included, in a thread of
    its own. Started by hand, without the variable, nothing is watched: such a process
    may outlive its shell. Not by a parent-death signal, which comes when the *thread*
    ends that has forked, and leaves grandchildren alone.
    """
    # Children are watched through this process, and do not have the pipe.
    value = os.environ.pop(LIFELINE, "")
    try:
        descriptor = int(value)
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return
        os.set_inheritable(descriptor, False)
    except (OSError, ValueError):
        # The variable came without the pipe, as through a container's wall.
        return
    threading.Thread(target=_watch, args=(descriptor,), name="lifeline", daemon=True).start()


def _watch(descriptor: int) -> None:
    # Imported while there is time.
    import psutil

    own = psutil.Process()
    # Nothing is ever written into it.
    while os.read(descriptor, 1):
        pass
    # Some of them would not notice, and with their parent they lose their place in the tree.
    _kill_below(own)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_END_SECONDS)
    _kill_below(own)
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_below(process: "psutil.Process") -> None:
    import psutil

    for child in process.children(recursive=True):
        try:
            child.kill()
        except psutil.Error:
            continue
