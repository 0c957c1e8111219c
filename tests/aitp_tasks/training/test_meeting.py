"""What machines say to each other, here as threads of one process over loopback."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.training import meeting
from aitp_tasks.training.meeting import Meeting
from aitp_tasks.training.nodes import Node


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _machines(count: int, address: str = "127.0.0.1") -> list[Node]:
    port = _port()
    return [Node(rank=rank, count=count, address=address, port=port) for rank in range(count)]


def _all(found: list[Meeting], work: Callable[[Meeting], Any]) -> list[Any]:
    """What each gives, or its error."""

    def one(met: Meeting) -> Any:
        try:
            return work(met)
        except (InputError, TransientError) as error:
            return error

    with ThreadPoolExecutor(len(found)) as pool:
        return list(pool.map(one, found))


def _met(count: int) -> list[Meeting]:
    machines = _machines(count)
    with ThreadPoolExecutor(count) as pool:
        # The first one last.
        return list(pool.map(lambda node: meeting.join(node, 0.5), reversed(machines)))[::-1]


def test_machines_agree_and_hear_each_other() -> None:
    found = _met(3)
    assert [(met.rank, met.first, list(met.others)) for met in found] == [
        (0, True, [1, 2]),
        (1, False, [1, 2]),
        (2, False, [1, 2]),
    ]
    assert _all(found, lambda met: met.agree("state", f"of {met.rank}")) == ["of 0"] * 3
    assert found[2].heard("later") is None
    found[1].tell("later", "")
    assert found[2].ask("later", "that") == ""
    assert _all(found, lambda met: met.require_same("examples", "equal")) == [None] * 3
    told = _all(found, lambda met: met.require_same("runs", "b" if met.rank == 2 else "a"))
    assert {str(error) for error in told} == {
        "runs of machine 2 differ from the first machine's (b, not a): start the same command with the same "
        "release and models on all"
    }


def test_one_machine_meets_nobody() -> None:
    met = meeting.join(None, 0.001)
    assert (met.first, met.rank, list(met.others)) == (True, 0, [])
    assert met.agree("state", "own") == "own"
    assert met.heard("state") is None
    met.require_same("examples", "any")


def test_it_listens_where_it_was_told_and_nowhere_else() -> None:
    (first, _) = _machines(2)
    with pytest.raises(TransientError, match=r"NODE_RANK=1 did not come to MASTER_ADDR=127.0.0.1 port"):
        meeting.join(first, 0.01)
    met = _met(2)
    assert met[0].node is not None
    listening = {
        one.laddr.ip
        for one in psutil.Process().net_connections("inet")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == met[0].node.port
    }
    assert listening == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("address", "listened"),
    [("127.0.0.1", "127.0.0.1"), ("192.0.2.1", ""), ("no.such.host.invalid", "")],
    ids=["own", "another's, as a service's", "not known yet"],
)
def test_a_service_in_front_is_listened_for_on_all(address: str, listened: str) -> None:
    assert meeting._listened(address) == listened


def test_who_is_missing_is_named() -> None:
    machines = _machines(3)
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        come = pool.submit(meeting.join, machines[1], 0.05)
        with pytest.raises(
            TransientError, match=r"of finetune.nodes=3 machines NODE_RANK=2 did not come .* start the same"
        ):
            meeting.join(machines[0], 0.05)
        with pytest.raises(TransientError, match=r"not all machines have come: see the log|nobody is there"):
            come.result()
    assert time.monotonic() - start < 30


def test_without_the_first_nobody_waits_for_ever() -> None:
    _, second = _machines(2)
    with pytest.raises(TransientError, match=r"nobody is there: start the same command on the machine with"):
        meeting.join(second, 0.02)


def test_one_number_is_given_to_one_machine() -> None:
    met = _met(2)
    assert met[1].node is not None
    with pytest.raises(
        TransientError, match="another machine has come as NODE_RANK=1 already: give each its"
    ):
        meeting.join(met[1].node, 0.02)


def test_one_that_is_started_anew_while_it_waits_takes_its_place() -> None:
    machines = _machines(3)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(meeting.join, machines[0], 0.5)
        killed = pool.submit(meeting.join, machines[1], 0.5)
        time.sleep(1.5)
        again = pool.submit(meeting.join, machines[1], 0.5)
        time.sleep(1.5)
        last = pool.submit(meeting.join, machines[2], 0.5)
        with pytest.raises(
            TransientError, match="another machine has come as NODE_RANK=1: give each its own"
        ):
            killed.result()
        met = [one.result() for one in (first, again, last)]
    assert _all(met, lambda one: one.agree("state", str(one.rank))) == ["0"] * 3


def test_what_is_not_told_in_time_is_named() -> None:
    met = _met(2)
    quick = Meeting(met[1].node, met[1]._store, 0.5)
    with pytest.raises(
        TransientError, match=r"the first machine's state has not been told in finetune.timeout_"
    ):
        quick.agree("state", "")


def test_the_others_notice_that_the_first_has_ended() -> None:
    met = _met(2)
    waiting: list[BaseException] = []

    def wait() -> None:
        with pytest.raises(TransientError) as ended:
            met[1].ask("committed", "the end")
        waiting.append(ended.value)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.5)
    met[0]._store = None
    thread.join(10)
    assert "has ended or is not reached any more: see its log, then retry on all" in str(waiting[0])


def test_the_first_leaves_last(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    met = _met(2)
    left: list[int] = []

    def leave(one: Meeting) -> None:
        time.sleep(0.0 if one.first else 0.5)
        one.part()
        left.append(one.rank)

    _all(met, leave)
    assert left == [1, 0]
    assert caplog.text == ""
    monkeypatch.setattr(meeting, "_PART_SECONDS", 0.3)
    _met(2)[0].part()
    assert "not all machines have heard the end: see their logs" in caplog.text


def test_a_port_that_is_taken_is_named() -> None:
    first, _ = _machines(2)
    with (
        socket.create_server(("127.0.0.1", first.port)),
        pytest.raises(TransientError, match=rf"MASTER_PORT={first.port} of 127.0.0.1 cannot be listened on"),
    ):
        meeting.join(first, 1)
