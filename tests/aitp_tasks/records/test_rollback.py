"""The way back: which versions latest may name again, and what is noted of those that it leaves."""

import json
from pathlib import Path

import pytest

from aitp_tasks.errors import InputError, TransientError
from aitp_tasks.records import rollback, versions
from aitp_tasks.storage import Storage, open_storage

LINE, LATEST = "line", "datasets/line/latest.json"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """a <- b <- c, the latest; and late, on a."""
    made = open_storage(f"file://{tmp_path}")
    for name, ancestors in (("a", ()), ("b", ("a",)), ("c", ("a", "b")), ("late", ("a",))):
        versions.add(made, LINE, version(name, *ancestors))
    return made


def version(name: str, *ancestors: str) -> versions.Version:
    geometry = versions.Geometry(key="g", identity="i", corpus_grid="c")
    return versions.Version(name=name, run=f"runs/{name}", ancestors=ancestors, geometry=geometry)


def go(storage: Storage, name: str, now: str = "now") -> tuple[str, ...]:
    """Go back to a version; what was left."""
    seen = versions.seen(storage, LINE)
    moved = rollback.allowed(storage, LINE, name, seen)
    assert seen is not None
    if moved.before != name:
        rollback.move(storage, LINE, moved, seen, now)
    return moved.left


def pointer(storage: Storage) -> tuple[str, dict[str, str]]:
    said = versions.pointed(storage, LINE, versions.seen(storage, LINE))
    assert said is not None
    return said.version, said.rolled_back


def test_what_is_left_is_noted_in_the_pointer_itself(storage: Storage) -> None:
    assert go(storage, "a", "monday") == ("b", "c")
    assert json.loads(storage.read(LATEST)) == {
        "version": "a",
        "run": "runs/a",
        "rolled_back": {"b": "monday", "c": "monday"},
    }


def test_only_a_person_brings_back_what_a_person_has_taken_back(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    go(storage, "a", "monday")
    assert not versions.add(storage, LINE, version("b", "a"))
    assert "b was rolled back at monday and stays so: `aitp dataset rollback b`" in caplog.text
    # Another version on the same base joins the line, and the list stays.
    assert versions.add(storage, LINE, version("d", "a"))
    assert pointer(storage) == ("d", {"b": "monday", "c": "monday"})
    assert not versions.add(storage, LINE, version("b", "a"))
    assert go(storage, "b", "tuesday") == ("d",)
    assert pointer(storage) == ("b", {"c": "monday", "d": "tuesday"})
    assert versions.add(storage, LINE, version("b", "a"))
    # c builds on b, but is taken back still.
    assert not versions.add(storage, LINE, version("c", "a", "b"))
    assert go(storage, "c") == ()
    assert pointer(storage) == ("c", {"d": "tuesday"})


def test_twice_is_once(storage: Storage) -> None:
    go(storage, "b")
    before = storage.read(LATEST)
    assert go(storage, "b") == ()
    assert storage.read(LATEST) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("late", "c, the latest version of line, does not build on late, and that was never rolled back"),
        ("nobody", "nobody/version.json does not exist"),
    ],
)
def test_what_latest_has_never_named_is_refused(storage: Storage, name: str, message: str) -> None:
    before = storage.read(LATEST)
    with pytest.raises(InputError, match=message):
        go(storage, name)
    assert storage.read(LATEST) == before


def test_without_a_line_there_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line has no version yet"):
        rollback.allowed(open_storage(f"file://{tmp_path}"), LINE, "a", None)


def test_who_comes_second_is_told_and_overwrites_nothing(storage: Storage) -> None:
    seen = versions.seen(storage, LINE)
    assert seen is not None
    moved = rollback.allowed(storage, LINE, "a", seen)
    go(storage, "b")
    with pytest.raises(TransientError, match="moved meanwhile, from c to b, and nothing was rolled back"):
        rollback.move(storage, LINE, moved, seen, "now")
    assert pointer(storage) == ("b", {"c": "now"})


def test_from_a_latest_that_is_gone_any_version_will_do(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "datasets/line/c/version.json").unlink()
    assert go(storage, "late") == ("c",)
    assert pointer(storage)[0] == "late"


def test_a_pointer_that_people_have_written_is_understood(storage: Storage) -> None:
    storage.write(LATEST, b'{"version": "a"}')
    assert pointer(storage) == ("a", {})
    with pytest.raises(InputError, match="never rolled back"):
        go(storage, "c")
    for wrong in (b"a", b"{}", b'{"version": null}', b"[]"):
        storage.write(LATEST, wrong)
        with pytest.raises(InputError, match="names no version"):
            go(storage, "a")


def test_inputs_that_had_changed_nothing_of_what_was_taken_back_are_planned_anew(storage: Storage) -> None:
    def base() -> str | None:
        found = versions.base(storage, LINE, "latest", "inputs", lambda _: "made")
        return found and found.name

    assert base() == "c"
    versions.settle(storage, LINE, "inputs", "c")
    go(storage, "b")
    assert base() == "b"
    versions.settle(storage, LINE, "inputs", "b")
    go(storage, "c")
    assert base() == "b"
