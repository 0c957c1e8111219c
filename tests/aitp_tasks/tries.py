"""Tries at one stage, each a process that waits at each step until it is told to go on or is killed."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.aitp_tasks.conftest import REPOSITORY

_WAIT_SECONDS = 120

#: Runs a stage that has been made to leave the try's name in its objects; stops before and after the
#: commit, and after the first copy to a fixed name.
_TRY = """
import sys, time
from pathlib import Path
from aitp_tasks.records.run import Run
from aitp_tasks.storage.local import LocalStorage
uri, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
done = set()
def step(at):
    if at in done:
        return
    done.add(at)
    (folder / f"{name} {at}").touch()
    while not (folder / f"{name} {at} go").exists():
        time.sleep(0.01)
commit, copy = Run.commit, LocalStorage.copy
def committing(run, *arguments):
    step("commit")
    standing = commit(run, *arguments)
    step("committed")
    return standing
def copying(storage, source, target):
    copy(storage, source, target)
    step("copied")
Run.commit, LocalStorage.copy = committing, copying
%s
stage.execute(Run.open(uri))
"""


class Try:
    """One process."""

    def __init__(self, uri: str, name: str, folder: Path, stage: str) -> None:
        self._at = folder / name
        arguments = [sys.executable, "-c", _TRY % stage, uri, name, str(folder)]
        self._process = subprocess.Popen(arguments, cwd=REPOSITORY)

    def reach(self, step: str) -> None:
        """Wait until it stops at this step."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while not Path(f"{self._at} {step}").exists():
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def leave(self, *steps: str) -> None:
        """Let it go on from these steps."""
        for step in steps:
            Path(f"{self._at} {step} go").touch()

    def finish(self) -> None:
        """Let it go on to its end."""
        self.leave("commit", "committed", "copied")
        assert self._process.wait(_WAIT_SECONDS) == 0

    def kill(self) -> None:
        """End it where it is."""
        self._process.kill()
        self._process.wait()


@contextmanager
def racing(uri: str, folder: Path, stage: str) -> Iterator[tuple[Try, Try]]:
    """Two tries, ``left`` and ``right``; none is left behind.

    Args:
        uri: of the run.
        folder: an empty one, where they meet.
        stage: code that defines ``stage``, a stage's module; it may use ``name``.
    """
    folder.mkdir()
    tries = Try(uri, "left", folder, stage), Try(uri, "right", folder, stage)
    try:
        yield tries
    finally:
        for one in tries:
            one.kill()
