"""line: which dumps a run takes, and why others are left."""

import time
from pathlib import Path
from typing import Any

import pytest

from aitp_tasks.config import RunConfig
from aitp_tasks.records import versions
from aitp_tasks.storage import Storage, open_storage
from aitp_tasks.tools import line
from tests.aitp_tasks.conftest import Configure, write_shard


@pytest.fixture
def storage(root: Path) -> Storage:
    return open_storage(f"file://{root}")


def dump(root: Path, name: str, minutes: float = 60.0, marker: bool = False) -> None:
    """A dump whose newest object is so old."""
    path = root / f"corpus/{name}/part.parquet"
    write_shard(path, [{"text": "a"}])
    if marker:
        (path.parent / "_SUCCESS").write_text("")
    # As the storage dates it: by when it was written, which no test can set.
    _AGES[f"corpus/{name}/part.parquet"] = minutes


_AGES: dict[str, float] = {}


@pytest.fixture(autouse=True)
def ages(monkeypatch: pytest.MonkeyPatch, storage: Storage) -> None:
    _AGES.clear()
    real = type(storage).list_dated

    def aged(self: Storage, prefix: str) -> Any:
        for info, written in real(self, prefix):
            yield info, written - 60 * _AGES.get(info.key, 0.0)

    monkeypatch.setattr(type(storage), "list_dated", aged)


def due(
    storage: Storage, configure: Configure, name: str, kind: str = "nightly", **schedule: Any
) -> tuple[str | None, dict[str, str]]:
    config: RunConfig = configure(dump=name, schedule=schedule)
    return line.due(storage, config, kind)


def test_a_night_takes_its_own_dump(storage: Storage, root: Path, configure: Configure) -> None:
    dump(root, "2026-11-20")
    assert due(storage, configure, "2026-11-20") == ("2026-11-20", {})
    assert due(storage, configure, "2026-11-21") == (None, {"2026-11-21": "there is none"})


def test_it_takes_late_ones_too_the_oldest_first(storage: Storage, root: Path, configure: Configure) -> None:
    for day in (17, 18, 20, 21, 22):
        dump(root, f"2026-11-{day}")
    versions.take_in(storage, "aitp", ["2026-11-18"], "runs/x")
    assert due(storage, configure, "2026-11-21")[0] == "2026-11-20+2026-11-21"
    assert due(storage, configure, "2026-11-21", dumps="key")[0] == "2026-11-21"
    assert due(storage, configure, "2026-11-21", pattern="2026-11-2[1-9]")[0] == "2026-11-21"
    assert due(storage, configure, "2026-11-21", "backfill")[0] == "2026-11-21"
    # The night's own is not there, but a late one is.
    assert due(storage, configure, "2026-11-23")[0] == "2026-11-20+2026-11-21+2026-11-22"
    # One that comes after its successor is not lost.
    versions.take_in(storage, "aitp", ["2026-11-21", "2026-11-22"], "runs/x")
    assert due(storage, configure, "2026-11-23")[0] == "2026-11-20"


def test_a_late_dump_may_be_a_link_to_a_folder(storage: Storage, root: Path, configure: Configure) -> None:
    dump(root, "2026-11-21")
    _AGES["corpus/2026-11-20/part.parquet"] = 60.0
    (root / "corpus/2026-11-20").symlink_to(root / "corpus/2026-11-21")
    (root / "corpus/2026-11-19").symlink_to(root / "none")
    versions.take_in(storage, "aitp", ["2026-11-18"], "runs/x")
    assert due(storage, configure, "2026-11-21") == ("2026-11-20+2026-11-21", {"2026-11-19": "there is none"})


def test_after_a_long_pause_the_nights_catch_up_by_turns(
    storage: Storage, root: Path, configure: Configure
) -> None:
    days = [f"2026-{month:02d}-{day:02d}" for month in (9, 10) for day in range(1, 29)]
    for day in days:
        dump(root, day)
    versions.take_in(storage, "aitp", ["2026-08-31"], "runs/x")
    nights = 0
    while found := due(storage, configure, days[-1])[0]:
        taken = found.split("+")
        assert taken == days[: len(taken)]
        configure(dump=found)
        versions.take_in(storage, "aitp", taken, "runs/x")
        days, nights = days[len(taken) :] or [days[-1]], nights + 1
    assert days == ["2026-10-28"]
    assert nights < 10


def test_a_late_dump_that_fails_does_not_make_each_night_after_it_fail(
    storage: Storage, root: Path, configure: Configure
) -> None:
    for day in (20, 21, 22):
        dump(root, f"2026-11-{day}")
    versions.take_in(storage, "aitp", ["2026-11-20"], "runs/x")
    # Its run was begun, and never came to an end.
    assert ask(configure, "begin", "a", "2026-11-21", "nightly", alone=True)["taken"]
    found, left = due(storage, configure, "2026-11-22")
    assert found == "2026-11-22"
    assert left["2026-11-21"].startswith("a run was begun for it: clear what failed of that")


def test_of_a_new_line_a_night_takes_its_own_alone(
    storage: Storage, root: Path, configure: Configure
) -> None:
    for day in (17, 18, 20):
        dump(root, f"2026-11-{day}")
    assert due(storage, configure, "2026-11-20")[0] == "2026-11-20"


def test_dumps_of_other_names_count_for_nothing(storage: Storage, root: Path, configure: Configure) -> None:
    for name in ("2026-11-19", "2026-11-20"):
        dump(root, name)
    versions.take_in(storage, "aitp", ["news", "2026-11-18"], "runs/x")
    assert due(storage, configure, "2026-11-20")[0] == "2026-11-19+2026-11-20"


def test_what_was_taken_in_is_not_new(storage: Storage, root: Path, configure: Configure) -> None:
    dump(root, "2026-11-20")
    versions.take_in(storage, "aitp", ["2026-11-20"], "runs/x")
    assert due(storage, configure, "2026-11-20") == (None, {"2026-11-20": "it was taken in before"})
    assert due(storage, configure, "2026-11-20", "backfill")[0] == "2026-11-20"


@pytest.mark.parametrize("kind", ["nightly", "backfill"])
def test_a_dump_that_is_being_written_is_left(
    storage: Storage, root: Path, configure: Configure, kind: str
) -> None:
    dump(root, "2026-11-20", minutes=12)
    found, left = due(storage, configure, "2026-11-20", kind)
    assert found is None
    assert left == {"2026-11-20": "its newest object is 12 minutes old, and it has no _SUCCESS"}
    assert due(storage, configure, "2026-11-20", kind, settle_minutes=10)[0] == "2026-11-20"
    dump(root, "2026-11-20", minutes=0, marker=True)
    assert due(storage, configure, "2026-11-20", kind)[0] == "2026-11-20"
    (root / "corpus/2026-11-20/part.parquet").unlink()
    assert due(storage, configure, "2026-11-20", kind)[1] == {"2026-11-20": "there is none"}


@pytest.mark.operation("clock-jumps")
@pytest.mark.parametrize("hours", [-24, 24])
def test_a_clock_that_jumps_makes_no_dump_whole(
    storage: Storage, root: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600 * hours)
    dump(root, "2026-11-20", minutes=12)
    assert due(storage, configure, "2026-11-20")[0] is None
    dump(root, "2026-11-20", minutes=40)
    assert due(storage, configure, "2026-11-20")[0] == "2026-11-20"


def test_who_names_a_dump_gets_it(storage: Storage, configure: Configure) -> None:
    assert due(storage, configure, "typo", "manual") == ("typo", {})


def ask(
    configure: Configure, action: str, holder: str, name: str, kind: str = "manual", **how: Any
) -> dict[str, Any]:
    config = configure(dump=name)
    return line.execute(config, action, holder, kind, how.get("gone", []), how.get("alone", False))


def test_begin_and_end(storage: Storage, root: Path, configure: Configure) -> None:
    first = ask(configure, "begin", "a", "news", alone=True)
    assert (first["taken"], first["dump"], first["waits_for"]) == (True, "news", None)
    second = ask(configure, "begin", "b", "news", alone=True)
    assert (second["taken"], second["dump"], second["waits_for"]) == (False, "news", "a")
    assert ask(configure, "end", "a", "news")["held"]
    assert not ask(configure, "end", "a", "news")["held"]
    assert ask(configure, "begin", "b", "news", alone=True)["taken"]


def test_a_run_that_is_begun_again_is_for_what_it_was_for(
    storage: Storage, root: Path, configure: Configure
) -> None:
    dump(root, "2026-11-20")
    first = ask(configure, "begin", "a", "2026-11-20", "nightly", alone=True)
    versions.take_in(storage, "aitp", ["2026-11-20"], "runs/x")
    ask(configure, "end", "a", "2026-11-20")
    # Its fine-tuning failed and was cleared: its own dump is taken in by now.
    again = ask(configure, "begin", "a", "2026-11-20", "nightly", alone=True)
    assert {**again, "left": {}} == {**first, "left": {}}
    ask(configure, "end", "a", "2026-11-20")
    assert not ask(configure, "begin", "another", "2026-11-20", "nightly", alone=True)["taken"]


def test_a_run_for_which_nothing_is_new_holds_nothing(
    storage: Storage, root: Path, configure: Configure
) -> None:
    found = ask(configure, "begin", "a", "2026-11-21", "nightly", alone=True)
    assert (found["taken"], found["dump"], found["left"]) == (False, None, {"2026-11-21": "there is none"})
    assert ask(configure, "begin", "b", "news", alone=True)["taken"]


def test_what_another_run_has_taken_in_meanwhile_is_not_taken_twice(
    storage: Storage, root: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump(root, "2026-11-20")
    real = line.lease.take

    def late(*arguments: Any, **how: Any) -> Any:
        versions.take_in(storage, "aitp", ["2026-11-20"], "runs/x")
        return real(*arguments, **how)

    monkeypatch.setattr(line.lease, "take", late)
    found = ask(configure, "begin", "a", "2026-11-20", "nightly", alone=True)
    assert (found["taken"], found["dump"]) == (False, None)
    assert storage.read("datasets/aitp/lease.json") == b"{}"
