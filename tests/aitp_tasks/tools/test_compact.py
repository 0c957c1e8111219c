"""compact: few objects afterwards, and every response there at any moment, however often it is stopped."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.errors import InputError
from aitp_tasks.generation import stored
from aitp_tasks.records import digest
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.storage.local import LocalStorage
from aitp_tasks.tools import compact
from tests.aitp_tasks.conftest import Configure

PREFIXES = ("generations/rewrite/abc/", "generations/rewrite/def/", "generations/score/abc/")


@pytest.fixture
def config(configure: Configure) -> RunConfig:
    return configure()


@pytest.fixture
def storage(root: Path) -> Storage:
    return open_storage(f"file://{root}")


def key(number: int) -> str:
    return f"{digest.of_text(str(number))}-q"


def given_up(storage: Storage, prefix: str, numbers: Sequence[int], at_most: int = 4) -> None:
    """What parts leave that are killed: small objects, none joined."""
    for start in range(0, len(numbers), at_most):
        rows = [
            {"id": key(number), "attempt": 0, "cut_characters": 0, "text": f"{prefix}{number}"}
            | {"finish_reason": "stop", "prompt_tokens": 10, "generated_tokens": 5, "cached_tokens": 0}
            | {"numbers": "{}"}
            for number in numbers[start : start + at_most]
        ]
        stored._write(storage, prefix, pa.Table.from_pylist(rows, stored._SCHEMA))


def answers(storage: Storage, prefix: str, numbers: range) -> dict[str, list[str]]:
    found = stored.load(storage, prefix, {key(number) for number in numbers})
    return {name: [response.completion.text for response in attempts] for name, attempts in found.items()}


def expected(prefix: str, numbers: range) -> dict[str, list[str]]:
    return {key(number): [f"{prefix}{number}"] for number in numbers}


def objects(storage: Storage, prefix: str = "generations/") -> list[str]:
    return [info.key for info in storage.list(prefix)]


def test_what_was_given_up_is_joined_under_each_prefix(config: RunConfig, storage: Storage) -> None:
    for prefix in PREFIXES:
        given_up(storage, prefix, range(120))
    assert len(objects(storage)) >= 90
    result = compact.execute(config)
    assert (result["prefixes"], result["objects_before"], result["objects"]) == (3, 90, 3)
    for prefix in PREFIXES:
        assert answers(storage, prefix, range(120)) == expected(prefix, range(120))
    before = objects(storage)
    assert compact.execute(config)["objects"] == 3
    assert objects(storage) == before


@pytest.mark.parametrize("narrow", [False, True])
def test_slices_lose_and_double_nothing(
    config: RunConfig, storage: Storage, monkeypatch: pytest.MonkeyPatch, narrow: bool
) -> None:
    monkeypatch.setattr(stored, "_JOINED_BYTES", 30_000)
    monkeypatch.setattr(stored, "_MOST_ROWS", 100)
    # Of parts that are small slices of the ids, or of one part that holds them all.
    given_up(storage, PREFIXES[0], sorted(range(600), key=key) if narrow else range(600), at_most=10)
    compact.execute(config)
    assert len(objects(storage)) <= 16
    assert answers(storage, PREFIXES[0], range(600)) == expected(PREFIXES[0], range(600))


class _Stopped(BaseException):
    """The process was killed."""


def test_stopped_after_any_step_everything_is_there_and_the_next_time_ends_it(
    config: RunConfig, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, left = 0, 0
    write, delete = LocalStorage.write_if_absent, LocalStorage.delete

    def step() -> None:
        nonlocal left
        if left == 0:
            raise _Stopped
        left -= 1

    def writing(self: LocalStorage, name: str, data: bytes) -> bool:
        step()
        return write(self, name, data)

    def deleting(self: LocalStorage, keys: list[str]) -> None:
        # A request can be done in part.
        for name in keys:
            step()
            delete(self, [name])

    while True:
        for name in objects(storage):
            delete(storage, [name])  # type: ignore[arg-type]
        for prefix in PREFIXES[:2]:
            given_up(storage, prefix, range(24))
        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "write_if_absent", writing)
            patch.setattr(LocalStorage, "delete", deleting)
            left = steps
            try:
                compact.execute(config)
                break
            except _Stopped:
                pass
        for prefix in PREFIXES[:2]:
            assert answers(storage, prefix, range(24)) == expected(prefix, range(24)), steps
        assert compact.execute(config)["objects"] == 2
        for prefix in PREFIXES[:2]:
            assert answers(storage, prefix, range(24)) == expected(prefix, range(24)), steps
        steps += 1
    # Two objects written, a dozen deleted.
    assert steps == 14


def test_beside_parts_that_write_join_and_read_nothing_is_lost(config: RunConfig, storage: Storage) -> None:
    failures, stop = list[BaseException](), threading.Event()

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as failure:
                failures.append(failure)

        return run

    def compacting() -> None:
        while not stop.is_set():
            compact.execute(config)

    def part(own: int) -> None:
        for start in range(own * 100, own * 100 + 100, 20):
            numbers = range(start, start + 20)
            given_up(storage, PREFIXES[0], numbers, at_most=2)
            stored.join(storage, PREFIXES[0], {key(number) for number in numbers})
            assert answers(storage, PREFIXES[0], numbers) == expected(PREFIXES[0], numbers)

    beside = threading.Thread(target=guarded(compacting))
    parts = [threading.Thread(target=guarded(lambda own=own: part(own))) for own in range(2)]  # type: ignore[misc]
    for thread in (beside, *parts):
        thread.start()
    for thread in parts:
        thread.join()
    stop.set()
    beside.join()
    assert failures == []
    assert answers(storage, PREFIXES[0], range(200)) == expected(PREFIXES[0], range(200))


def test_a_damaged_object_is_named_and_holds_no_other_prefix_up(config: RunConfig, storage: Storage) -> None:
    for prefix in PREFIXES:
        given_up(storage, prefix, range(40))
    damaged = objects(storage, PREFIXES[1])[3]
    storage.write(damaged, storage.read(damaged)[:-40])
    with pytest.raises(InputError) as raised:
        compact.execute(config)
    assert str(raised.value).startswith(
        f"1 of 3 prefixes are not joined, the first: {storage.uri(damaged)} is"
    )
    assert "delete it; what it held is generated again" in str(raised.value)
    assert [len(objects(storage, prefix)) for prefix in PREFIXES] == [1, 10, 1]
    storage.delete([damaged])
    assert compact.execute(config)["objects"] == 3
    assert len(answers(storage, PREFIXES[1], range(40))) == 36


def test_foreign_objects_are_left_alone(
    config: RunConfig, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = [
        "generations/README",
        "generations/rewrite/notes.txt",
        f"{PREFIXES[0]}\x1b[2J-a.parquet",
        f"{PREFIXES[0]}notes",
        f"{PREFIXES[0]}a/b-c-{'0' * 32}.parquet",
    ]
    for name in foreign:
        storage.write(name, b"not ours")
    given_up(storage, PREFIXES[0], range(40))
    assert compact.execute(config)["objects"] == 1 + 1
    assert all(storage.read(name) == b"not ours" for name in foreign)
    assert "is none of the responses: it is left alone" in caplog.text
    assert "\x1b" not in caplog.text


def test_where_there_are_no_responses_there_is_nothing_to_join(config: RunConfig, tmp_path: Path) -> None:
    result = compact.execute(config.model_copy(update={"root": f"file://{tmp_path}/none"}))
    assert (result["prefixes"], result["objects_before"], result["objects"]) == (0, 0, 0)
