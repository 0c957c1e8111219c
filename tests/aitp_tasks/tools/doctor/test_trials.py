"""Trials are processes: what becomes of one that crashes, hangs or says nothing, and of its children."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from aitp_tasks.tools.doctor import trials
from aitp_tasks.tools.doctor.finding import Level
from tests.aitp_tasks.conftest import Configure


def stand_in(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(trials, "_COMMAND", [sys.executable, "-c", code])


@pytest.mark.parametrize(
    ("code", "level", "says"),
    [
        ("import os; os.kill(os.getpid(), 9)", Level.WRONG, "ended by SIGKILL: "),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", Level.WRONG, "ended by SIGILL: "),
        ("import sys; sys.exit('no torch')", Level.WRONG, "ended with code 1: no torch"),
        ("print('nothing that is JSON')", Level.WRONG, "ended with code 0: "),
        ("print('[1]')", Level.WRONG, "ended with code 0: "),
        (
            "import json; print('chatter'); "
            "print(json.dumps({'level': 'PASSING', 'says': 'busy', 'remedy': ''}))",
            Level.PASSING,
            "busy",
        ),
    ],
)
def test_whatever_it_ends_with_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, code: str, level: Level, says: str
) -> None:
    stand_in(monkeypatch, code)
    finding = trials.attempt("densities", None)
    assert (finding.about, finding.level, finding.says) == ("try densities", level, says)


def test_one_that_hangs_is_ended_with_its_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    stand_in(
        monkeypatch,
        "import os, subprocess, time; child = subprocess.Popen(['sleep', '60']); "
        f"open({str(mark)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); time.sleep(60)",
    )
    monkeypatch.setitem(trials.LIMITS, "storage", 3.0)
    start = time.monotonic()
    finding = trials.attempt("storage", None)
    assert time.monotonic() - start < 30
    assert (finding.level, finding.says) == (Level.PASSING, "no answer in 3 s")
    assert "the store is up" in finding.remedy
    assert [pid for pid in map(int, mark.read_text().split()) if _lives(pid)] == []


def _lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_what_it_needs_and_what_is_not_there(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, 'print(\'{"level": "OK", "says": "done", "remedy": ""}\')')
    alone = {finding.about: finding.says for finding in trials.run(None)}
    untried = "not tried without --config"
    assert alone == {
        "try densities": "done",
        **{f"try {name}": untried for name in ("storage", "embed", "engine")},
    }
    config = configure(
        encoder={"model": "s3://b/m"},
        engine={
            "model": "o/n",
            "revision": "a" * 40,
            "endpoint": {"url": "http://127.0.0.1:1/v1", "served_model": "n"},
        },
    )
    found = {finding.about: finding for finding in trials.run(config)}
    assert (found["try embed"].level, found["try engine"].says) == (Level.NOTE, "done")
    assert found["try embed"].says == "not tried: m is not on this machine yet"


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.side_by_side
def test_a_store_that_does_not_answer(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": silent,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hidden-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(trials.LIMITS, "storage", 8.0)
    finding = trials.attempt("storage", configure(root="s3://bucket"))
    assert (finding.level, finding.says) == (Level.PASSING, "no answer in 8 s")
    assert "hidden-secret" not in json.dumps(finding.told())
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "hidden-secret"
