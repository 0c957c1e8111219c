"""A stage ends with its starter, however that one ends, and takes with it all that it has started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from aitp_tasks.machine import processes
from tests.aitp_tasks.conftest import REPOSITORY
from tests.aitp_tasks.starters import STAGE, left_of

pytestmark = pytest.mark.slow

#: A child that has a session of its own, ignores SIGTERM, and has a child itself.
_CHILDREN = """
import subprocess, sys, time
child = "trap '' TERM; sleep 600 & echo started >&2; while :; do sleep 1; done"
subprocess.Popen(["setsid", "bash", "-c", child])
time.sleep(0.5)
"""
_READY = "import time; print('ready', file=sys.stderr, flush=True)\n"


@pytest.mark.parametrize(
    "work",
    [
        pytest.param("time.sleep(600)", id="asleep"),
        pytest.param("while True: pass", id="busy"),
        pytest.param("import signal; signal.signal(15, signal.SIG_IGN); time.sleep(600)", id="deaf"),
        pytest.param("subprocess.run(['sleep', '600'])", id="waiting"),
        # Through as soon as one of them is killed, on a machine that is slow to kill the others.
        pytest.param(
            "import psutil; kill = psutil.Process.kill\n"
            "psutil.Process.kill = lambda one: (kill(one), time.sleep(0.3))\n"
            "[subprocess.Popen(['sleep', '600']) for _ in range(3)][0].wait()",
            id="ending",
        ),
        # Each of them starts the next, and ends: whoever is looked for is gone when it is found.
        pytest.param("subprocess.run(['bash', '-c', 'f() { sleep 0.01; f & }; f; sleep 600'])", id="forking"),
        # The time of boot, as told, is rounded: it goes back and forth by a second.
        pytest.param(
            "import itertools, psutil._pslinux as told; boot, back = told.boot_time(), itertools.count()\n"
            "told.boot_time = lambda: boot - next(back)\n"
            "time.sleep(600)",
            id="boot",
        ),
    ],
)
def test_a_stage_and_what_it_has_started_end_with_the_starter(tmp_path: Path, work: str) -> None:
    code = STAGE + _CHILDREN + _READY + work
    assert left_of(code, ready="ready", at_least=4, scratch=tmp_path) == ""


def test_temporary_folders_go_where_sigterm_removes_them(tmp_path: Path) -> None:
    code = (
        STAGE
        + _CHILDREN
        + "import tempfile\nwith processes.sigterm_as_exit(), tempfile.TemporaryDirectory() as folder:\n"
        + f"    open(folder + '/file', 'w').close(); {_READY}    time.sleep(600)\n"
    )
    assert left_of(code, ready="ready", at_least=4, scratch=tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_starter_that_ends_at_once_is_noticed(tmp_path: Path) -> None:
    with processes.lifeline() as pipe:
        stage = _start(pipe)
    # The pipe has ended before the stage looks at it.
    assert stage.wait(30) == -signal.SIGTERM


def test_the_end_of_the_thread_that_started_it_is_no_end(tmp_path: Path) -> None:
    code = """
import sys, threading, time
from tests.aitp_tasks.machine.test_processes import _start
from aitp_tasks.machine.processes import lifeline
with lifeline() as pipe:
    started = []
    thread = threading.Thread(target=lambda: started.append(_start(pipe)))
    thread.start()
    thread.join()
    assert started[0].stdout.readline()
    time.sleep(1)
    assert started[0].poll() is None
    started[0].kill()
"""
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=60)


@pytest.mark.parametrize("value", [None, "", "x", "-1", "99", "0"])
def test_one_that_is_started_by_hand_outlives_its_shell(tmp_path: Path, value: str | None) -> None:
    handed = {} if value is None else {processes.LIFELINE: value}
    # As from a shell with nohup and &: the shell ends at once.
    shell = subprocess.Popen(
        ["bash", "-c", 'nohup "$@" >out 2>err </dev/null & echo $!', "bash", sys.executable, "-c", _CODE],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **handed, "PYTHONPATH": str(REPOSITORY)},
    )
    stage = psutil.Process(int(shell.communicate(timeout=30)[0]))
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "out").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        assert stage.is_running()
        assert stage.status() != psutil.STATUS_ZOMBIE
    finally:
        stage.kill()


def test_children_do_not_inherit_the_pipe(tmp_path: Path) -> None:
    look = "import os, sys; print(sorted(os.listdir('/proc/self/fd')), 'AITP_LIFELINE' in os.environ)"
    code = (
        STAGE + f"import subprocess, sys; subprocess.run([sys.executable, '-c', {look!r}], close_fds=False)"
    )
    with processes.lifeline() as pipe:
        done = subprocess.run(
            [sys.executable, "-c", code],
            pass_fds=(pipe,),
            env={**os.environ, processes.LIFELINE: str(pipe)},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    # Its three streams, and the folder that it lists.
    assert done.stdout == "['0', '1', '2', '3'] False\n"


_CODE = STAGE + "import time; print('running', flush=True); time.sleep(600)"


def _start(pipe: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _CODE],
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=(pipe,),
        env={**os.environ, processes.LIFELINE: str(pipe)},
        cwd=REPOSITORY,
    )
