"""A process that starts a stage as the operator does, and is then killed: what is left of the stage."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.aitp_tasks.conftest import REPOSITORY

_STARTER = """
import os, subprocess, sys
from aitp_tasks.machine.processes import LIFELINE, lifeline
with lifeline() as pipe:
    handed = {LIFELINE: str(pipe)}
    stage = subprocess.Popen([sys.executable, *sys.argv[1:]], pass_fds=(pipe,), env={**os.environ, **handed})
    stage.wait()
"""
#: How the code of a stage begins, as the command line does.
STAGE = "from aitp_tasks.machine import processes; processes.end_with_starter()\n"


def left_of(code: str, *arguments: str, ready: str, at_least: int, scratch: Path, seconds: float = 15) -> str:
    """Kill a stage's starter when the stage has said that it is ready; the processes that are left.

    Args:
        code: of the stage, beginning with ``STAGE``.
        arguments: of the stage.
        ready: how a line of its standard error begins when it is.
        at_least: how many processes it has then, itself included.
        scratch: its folder of temporary files.
        seconds: that they have to end.
    """
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTER, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert starter.stderr is not None
    told = []
    for line in starter.stderr:
        told.append(line)
        if line.startswith(ready):
            break
    below = psutil.Process(starter.pid).children(recursive=True)
    assert len(below) >= at_least, told
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    _, alive = psutil.wait_procs(below, timeout=seconds)
    left = [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    names = " ".join(" ".join(one.cmdline()) for one in left)
    for one in left:
        one.kill()
    starter.stderr.close()
    return names
