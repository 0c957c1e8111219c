"""How this process ends, and what ends with it."""

import atexit
import ctypes
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from aitp_tasks.errors import ExitCode

if TYPE_CHECKING:
    import psutil

#: Names the descriptor of a pipe's reading end: whoever started this process holds the other end.
LIFELINE = "AITP_LIFELINE"
#: For temporary folders to be removed, where SIGTERM does that; on busy processors it takes its time.
_END_SECONDS = 10.0
#: Held from the moment that the end begins: no exit overtakes it.
_ending = threading.Lock()
#: Of Linux's prctl.
_PR_SET_CHILD_SUBREAPER = 36


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

    Ends all that this process has started as well, and what that has left behind,
    SIGKILL included, in a thread of its own. Started by hand, without the variable,
    nothing is watched: such a process may outlive its shell. Not by a parent-death
    signal, which comes when the *thread* ends that has forked, and leaves grandchildren
    alone.
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
    adopt_orphans()
    atexit.register(_ending.acquire)
    threading.Thread(target=_watch, args=(descriptor,), name="lifeline", daemon=True).start()


def adopt_orphans() -> None:
    """Whoever loses its parent from now on becomes a child of this process, where Linux does that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def below(pid: int) -> "list[psutil.Process]":
    """The living processes below one, parents before children.

    Not by ``psutil.Process.children``: it leaves out whom it takes for older than the
    parent, by a time of boot that may be read as another second each time.
    """
    import psutil

    told = psutil.process_iter(["ppid", "status"], ad_value=None)
    alive = [one for one in told if one.info["status"] != psutil.STATUS_ZOMBIE]
    seen, found = {pid}, list[psutil.Process]()
    while more := [one for one in alive if one.info["ppid"] in seen and one.pid not in seen]:
        seen.update(one.pid for one in more)
        found += more
    return found


def _watch(descriptor: int) -> None:
    # What it imports is there from now on.
    below(os.getpid())
    # Nothing is ever written into it.
    while os.read(descriptor, 1):
        pass
    # The main thread may wait for one of them, and be through when that is killed.
    _ending.acquire()
    # Some of them would not notice.
    _kill_below()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_END_SECONDS)
    _kill_below()
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_below() -> None:
    """Kill all that this process has started, and what those start until they are dead."""
    import psutil

    end = time.monotonic() + _END_SECONDS
    while (found := below(os.getpid())) and time.monotonic() < end:
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.01)
