"""The lease of a line: one holder at a time, the oldest dump first, and nobody for ever."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.records import lease
from aitp_tasks.records.lease import Answer, Holder
from aitp_tasks.storage import ObjectInfo, Storage, open_storage

LINE = "line"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(f"file://{tmp_path}")


def take(storage: Storage, name: str, dump: str = "2026-11-01", **how: Any) -> Answer:
    return lease.take(storage, LINE, Holder(name=name, dump=dump), **how)


def test_who_is_alone_takes_it_at_once_and_again(storage: Storage) -> None:
    assert take(storage, "a", alone=True) == Answer(True)
    assert take(storage, "a") == Answer(True)
    assert take(storage, "b", alone=True) == Answer(False, Holder(name="a", dump="2026-11-01"))
    assert lease.give_back(storage, LINE, "b") is False
    assert lease.give_back(storage, LINE, "a") is True
    assert lease.give_back(storage, LINE, "a") is False
    assert take(storage, "b", alone=True) == Answer(True)


def test_the_oldest_dump_comes_first_whoever_looks_first(storage: Storage) -> None:
    for _ in range(2):
        for name, dump in (("c", "2026-11-03"), ("b", "2026-11-02"), ("a", "2026-11-01")):
            assert not take(storage, name, dump).taken
    assert take(storage, "c", "2026-11-03").waits_for == Holder(name="a", dump="2026-11-01", looks=2)
    assert take(storage, "b", "2026-11-02", alone=True).waits_for == Holder(
        name="a", dump="2026-11-01", looks=2
    )
    assert take(storage, "a", "2026-11-01").taken
    assert take(storage, "b", "2026-11-02").waits_for == Holder(name="a", dump="2026-11-01")
    lease.give_back(storage, LINE, "a")
    assert not take(storage, "c", "2026-11-03").taken
    assert take(storage, "b", "2026-11-02").taken


def test_who_gives_up_waiting_holds_nobody_up(storage: Storage) -> None:
    for _ in range(2):
        take(storage, "c", "2026-11-03")
    take(storage, "a", "2026-11-01")
    assert take(storage, "c", "2026-11-03").waits_for is not None
    lease.give_back(storage, LINE, "a")
    assert take(storage, "c", "2026-11-03").taken


def test_who_is_known_to_have_ended_neither_holds_nor_waits(storage: Storage) -> None:
    take(storage, "a", alone=True)
    take(storage, "b", "2026-10-01")
    assert take(storage, "c", gone=("a", "b"), alone=False).taken is False
    take(storage, "c", gone=("a", "b"))
    assert take(storage, "c", gone=("a", "b")).taken
    assert json.loads(storage.read(f"datasets/{LINE}/lease.json"))["name"] == "c"


class Later:
    """A storage whose clock has gone on for objects that are written from now on."""

    def __init__(self, storage: Storage, seconds: float) -> None:
        self._storage, self._seconds, self._new = storage, seconds, set[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def write(self, key: str, data: bytes) -> None:
        self._new.add(key)
        self._storage.write(key, data)

    def list_dated(self, prefix: str) -> Iterator[tuple[ObjectInfo, float]]:
        for info, written in self._storage.list_dated(prefix):
            yield info, written + self._seconds * (info.key in self._new)


def test_it_expires_by_the_clock_of_the_storage(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    take(storage, "a", alone=True)
    take(storage, "b", "2026-10-01")
    almost: Any = Later(storage, lease.EXPIRES - 60)
    assert not take(almost, "c", alone=True).taken
    after: Any = Later(storage, lease.EXPIRES + 60)
    # Who has not looked for so long does not wait any more.
    assert take(after, "c", alone=True).taken
    assert "the lease of a was taken 14 days ago: it is free" in caplog.text


def test_who_holds_it_is_told_without_waiting_for_it(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lease.holder(storage, LINE) is None
    take(storage, "a", alone=True)
    assert lease.holder(storage, LINE) == Holder(name="a", dump="2026-11-01")
    with monkeypatch.context() as patch:
        patch.setattr(type(storage), "now", lambda _: time.time() + lease.EXPIRES + 60)
        assert lease.holder(storage, LINE) is None
    lease.give_back(storage, LINE, "a")
    assert lease.holder(storage, LINE) is None
    assert list(storage.list(f"datasets/{LINE}/waiting/")) == []


def test_of_many_at_once_one_holds_it_and_all_get_their_turn(storage: Storage) -> None:
    names = [f"run-{number}" for number in range(6)]
    order, holding, failures = list[str](), list[str](), list[BaseException]()
    barrier = threading.Barrier(len(names))

    def run(number: int) -> None:
        try:
            barrier.wait()
            dump = f"2026-11-{20 - number:02d}"
            while not take(storage, names[number], dump).taken:
                time.sleep(0.05)
            holding.append(names[number])
            assert holding == [names[number]]
            order.append(dump)
            time.sleep(0.02)
            holding.remove(names[number])
            assert lease.give_back(storage, LINE, names[number])
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(names))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert order == sorted(order)
    assert len(order) == len(names)
    assert list(storage.list(f"datasets/{LINE}/waiting/")) == []


def test_what_is_no_lease_is_told(storage: Storage) -> None:
    storage.write(f"datasets/{LINE}/lease.json", b"[1]")
    with pytest.raises(InputError, match=r"lease.json names no holder: delete it if no run is under way"):
        take(storage, "a")
    storage.write(f"datasets/{LINE}/waiting/x.json", b"{")
    storage.delete([f"datasets/{LINE}/lease.json"])
    assert take(storage, "a", alone=True).taken
