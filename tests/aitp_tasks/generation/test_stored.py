"""Stored responses: none is lost or doubled however they are joined, and a part reads what it needs."""

import hashlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitp_tasks.errors import TransientError
from aitp_tasks.generation import stored
from aitp_tasks.generation.engine import Completion
from aitp_tasks.generation.stored import Response, Writer
from aitp_tasks.storage import Storage, open_storage

PREFIX = "generations/rewrite/abc/"


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def text_of(number: int, attempt: int = 0) -> str:
    return f"{number}/{attempt} " + random.Random(number).randbytes(200).hex()


def write(storage: Storage, numbers: Iterator[int] | range, attempt: int = 0, at_most: int = 8) -> None:
    with Writer(storage, PREFIX, at_most) as writer:
        for number in numbers:
            writer.add(key(number), attempt, Response(Completion(text_of(number, attempt), "stop", 10, 5)))


def texts(storage: Storage, numbers: Iterator[int] | range) -> dict[str, list[str]]:
    found = stored.load(storage, PREFIX, {key(number) for number in numbers})
    return {name: [response.completion.text for response in attempts] for name, attempts in found.items()}


def objects(storage: Storage) -> list[int]:
    return [info.size for info in storage.list(PREFIX)]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(f"file://{tmp_path}")


def test_joined_responses_are_those_that_were_written(storage: Storage) -> None:
    write(storage, range(100))
    write(storage, range(30), attempt=1)
    before = texts(storage, range(100))
    assert len(objects(storage)) > 10
    stored.join(storage, PREFIX, {key(number) for number in range(100)})
    assert len(objects(storage)) == 1
    assert texts(storage, range(100)) == before
    assert before == {
        key(number): [text_of(number, attempt) for attempt in range(2 if number < 30 else 1)]
        for number in range(100)
    }


def test_night_after_night_there_are_few_objects_and_little_is_written_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = list[int]()
    real = type(storage).write_if_absent

    def counted(self: Storage, name: str, data: bytes) -> bool:
        written.append(len(data))
        return real(self, name, data)

    monkeypatch.setattr(type(storage), "write_if_absent", counted)
    most, nights = 0, list[int]()
    for night in range(120):
        numbers = range(40 * night, 40 * night + 40)
        write(storage, numbers, at_most=4)
        stored.join(storage, PREFIX, {key(number) for number in numbers})
        most = max(most, len(objects(storage)))
        nights.append(sum(written))
        written.clear()
    assert most <= 8
    # A few large joins more than in the beginning, but no night pays for all before it.
    assert sum(nights[80:]) <= 1.5 * sum(nights[20:60])
    assert texts(storage, range(4800)) == {key(number): [text_of(number)] for number in range(4800)}


def test_of_a_large_object_what_holds_no_wanted_row_is_not_read(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(storage, range(6000), at_most=500)
    stored.join(storage, PREFIX, {key(number) for number in range(6000)})
    (size,) = objects(storage)
    assert size > stored._READ_WHOLE
    read = []
    real = type(storage).read_range

    def counted(self: Storage, info: Any, start: int, length: int) -> bytes:
        read.append(length)
        return real(self, info, start, length)

    monkeypatch.setattr(type(storage), "read_range", counted)
    assert texts(storage, range(5000, 5001)) == {key(5000): [text_of(5000)]}
    assert sum(read) < size / 2
    read.clear()
    assert texts(storage, range(6000, 6100)) == {}
    assert sum(read) < size / 2


@pytest.mark.slow
def test_many_join_read_and_write_at_once(storage: Storage) -> None:
    failures = list[BaseException]()
    wanted = {key(number) for number in range(400)}

    def work(own: int) -> None:
        try:
            for round_ in range(10):
                numbers = range(own * 100 + round_ * 10, own * 100 + round_ * 10 + 10)
                write(storage, numbers, at_most=2)
                stored.join(storage, PREFIX, wanted)
                assert texts(storage, numbers) == {key(number): [text_of(number)] for number in numbers}
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(own,)) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert texts(storage, range(400)) == {key(number): [text_of(number)] for number in range(400)}


def test_who_reads_what_is_joined_meanwhile_looks_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(storage, range(40), at_most=4)
    real = stored._rows_of
    joined = []

    def late(wanted: Any, storage: Storage, name: str) -> Any:
        if not joined:
            joined.append(stored.join(storage, PREFIX, {key(number) for number in range(40)}))
        return real(wanted, storage, name)

    monkeypatch.setattr(stored, "_rows_of", late)
    assert texts(storage, range(40)) == {key(number): [text_of(number)] for number in range(40)}
    monkeypatch.setattr(stored, "_rows_of", lambda *_: storage.read("generations/gone"))
    with pytest.raises(Exception, match="gone"):
        texts(storage, range(40))
    monkeypatch.setattr(type(storage), "find", lambda *_: None)
    with pytest.raises(TransientError, match="joined 20 times"):
        texts(storage, range(40))


@given(st.lists(st.integers(1, 1 << 26), max_size=40))
def test_what_is_left_after_joining_is_a_few_objects(sizes: list[int]) -> None:
    """A plain model: however objects come, those that are small enough to be joined stay few."""
    held = list[int]()
    for size in sizes:
        held.append(size)
        infos = [stored.ObjectInfo(str(place), size, "") for place, size in enumerate(held)]
        chosen = stored._joined(infos)
        if len(chosen) > 1:
            rest = [info.size for info in infos if info not in chosen]
            held = [*rest, sum(info.size for info in chosen)]
    assert sum(size <= stored._LARGE for size in held) <= 12


def test_thinking_is_stored_apart_and_may_be_missing_from_earlier_releases(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(stored, "_SCHEMA", stored._SCHEMA.remove(stored._SCHEMA.get_field_index("reasoning")))
        write(storage, range(3))
    thought = Response(Completion("said", "stop", 10, 5, reasoning="thought"))
    with Writer(storage, PREFIX, 8) as writer:
        writer.add(key(3), 0, thought)
    keys = {key(number) for number in range(4)}
    before = stored.load(storage, PREFIX, keys)
    assert before[key(3)] == [thought]
    assert {before[key(number)][0].completion.reasoning for number in range(3)} == {""}
    stored.join(storage, PREFIX, keys)
    assert len(objects(storage)) == 1
    assert stored.load(storage, PREFIX, keys) == before
