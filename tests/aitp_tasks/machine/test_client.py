"""What both endpoints share; their own tests show the rest of it."""

import email.utils
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from aitp_tasks.config import Endpoint
from aitp_tasks.errors import InputError
from aitp_tasks.machine import client
from aitp_tasks.machine.client import ExhaustedError, Pool, Server
from tests.aitp_tasks.conftest import REPOSITORY
from tests.aitp_tasks.servers import KEY, Served, serving

pytestmark = pytest.mark.slow

VARIABLE = "A_SERVERS_KEY"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(client, "_FIRST_PAUSE", 0.01)
    with serving(lambda _: b"{}") as server:
        yield server


def ask(url: str, **values: float) -> bytes:
    """One request by the shared client; the body of its answer."""
    settings = Endpoint.model_validate({"url": url, "served_model": "model", "retries": 1} | values)
    server = Server(settings, "section", VARIABLE)

    def send() -> bytes:
        answer = server.client.embeddings.with_raw_response.create(model="model", input="text")
        return bytes(answer.http_response.content)

    return server.ask(send, threading.Event())


def in_an_hour() -> str:
    return email.utils.formatdate(time.time() + 3600, usegmt=True)


RETRY_AFTER = {
    "absent": (None, 0.0),
    "seconds": ("7.5", 7.5),
    "a date": (in_an_hour(), 600.0),
    "a date that is past": ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    "too long": ("1e9", 600.0),
    "without end": ("inf", 600.0),
    "negative": ("-3", 0.0),
    "no number": ("nan", 0.0),
    "no date": ("soon", 0.0),
}


@pytest.mark.parametrize(("value", "seconds"), RETRY_AFTER.values(), ids=RETRY_AFTER)
def test_retry_after_is_read_within_bounds(value: str | None, seconds: float) -> None:
    assert client._retry_after(value) == seconds


def test_an_answer_that_comes_in_drops_is_bounded_in_time(served: Served) -> None:
    def drops() -> Iterator[bytes]:
        while True:
            time.sleep(0.1)
            yield b" "

    served.instead = lambda _: (200, {}, drops())
    start = time.monotonic()
    with pytest.raises(ExhaustedError, match=r"no answer within timeout_seconds=0.4"):
        ask(served.url, timeout_seconds=0.4)
    assert 0.8 <= time.monotonic() - start < 3.0


def test_a_key_from_a_file_may_end_with_a_newline(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"{KEY}\n")
    ask(served.url)
    assert served.requests[-1][2]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("value", [f"{KEY}\nx", f"{KEY}\x7f", f"ключ {KEY}"])
def test_what_is_no_key_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with caplog.at_level(logging.DEBUG), pytest.raises(InputError, match=VARIABLE) as caught:
        ask("http://127.0.0.1:9/v1")
    assert KEY not in str(caught.value) + caplog.text


def test_calls_run_at_the_same_time_and_none_begins_once_the_pool_is_closed() -> None:
    pool = Pool(2)
    both, go = threading.Barrier(3), threading.Event()

    def call() -> str:
        both.wait(10)
        go.wait(10)
        return "done"

    futures = [pool.submit(call) for _ in range(5)]
    both.wait(10)
    pool.close()
    go.set()
    assert [future.result(10) for future in futures[:2]] == ["done", "done"]
    time.sleep(0.05)
    assert not any(future.done() for future in futures[2:])


def test_a_server_that_hangs_keeps_no_process_from_ending() -> None:
    program = (
        "import sys, threading\n"
        "from aitp_tasks.machine.client import Pool\n"
        "pool, started = Pool(1), threading.Event()\n"
        "import socket\n"
        "def hang():\n"
        "    with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as connection:\n"
        "        started.set()\n"
        "        connection.recv(1)\n"
        "pool.submit(hang)\n"
        "started.wait()\n"
        "pool.close()\n"
        "sys.exit(7)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        done = subprocess.run([sys.executable, "-c", program, port], cwd=REPOSITORY, timeout=60, check=False)
    assert done.returncode == 7
