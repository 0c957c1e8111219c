"""Fixed names hold what was committed, whatever happens between the two."""

from pathlib import Path

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.records import published
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run

pytestmark = pytest.mark.slow

TARGET = "datasets/line/v1"
FILES = {"a.parquet": b"a", "config.json": b"c", "z.json": b"z"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    name = "news/aaf2581d124cffff9c1ad2881d27fcee"
    plan = Path(__file__).with_name("planned_before") / name / "plan.json"
    (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / name / "plan.json").write_bytes(plan.read_bytes())
    return Run.open(f"file://{tmp_path}/runs/{name}")


def made(run: Run, **files: bytes) -> Manifest:
    """What a try leaves behind, not committed."""
    attempt = published.attempt(run, "assemble")
    for name, data in (FILES | files).items():
        run.storage.write(f"{attempt}/{name}", data)
    return Manifest(
        stage="assemble", label="", outputs={"data": f"{TARGET}/a.parquet", published.ATTEMPT: attempt}
    )


def fixed(run: Run) -> dict[str, bytes]:
    return {
        info.key.removeprefix(f"{TARGET}/"): run.storage.read(info.key)
        for info in run.storage.list(f"{TARGET}/")
    }


def objects(run: Run) -> dict[str, int]:
    """Each file, and what changes when it is written again."""
    root = Path(run.storage.root.removeprefix("file://"))
    return {str(path): path.stat().st_ino for path in root.rglob("*") if path.is_file()}


def test_nothing_has_a_fixed_name_before_it_is_published(run: Run) -> None:
    done = made(run)
    assert fixed(run) == {}
    published.publish(run, done, TARGET)
    assert fixed(run) == FILES


def test_a_second_time_changes_nothing(run: Run) -> None:
    done = made(run)
    published.publish(run, done, TARGET)
    before = objects(run)
    published.publish(run, done, TARGET)
    assert objects(run) == before


@pytest.mark.parametrize("name", FILES)
def test_what_is_missing_is_copied_again(run: Run, name: str) -> None:
    done = made(run)
    published.publish(run, done, TARGET)
    root = Path(run.storage.root.removeprefix("file://"))
    (root / TARGET / name).unlink()
    published.publish(run, done, TARGET)
    assert fixed(run) == FILES


def test_what_an_earlier_try_has_left_there_is_replaced(run: Run) -> None:
    run.storage.write(f"{TARGET}/a.parquet", b"?")
    published.publish(run, made(run), TARGET)
    assert fixed(run) == FILES
    # The manifest was deleted, and the stage computed anew.
    published.publish(run, made(run, **{"a.parquet": b"b"}), TARGET)
    assert fixed(run) == FILES | {"a.parquet": b"b"}


def test_what_makes_the_others_usable_comes_last(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    storage = type(run.storage)
    copy = storage.copy
    monkeypatch.setattr(
        storage, "copy", lambda self, source, target: (order.append(target), copy(self, source, target))
    )
    published.publish(run, made(run), TARGET, "config.json")
    assert order == [f"{TARGET}/{name}" for name in ("a.parquet", "z.json", "config.json")]


def test_a_manifest_of_an_earlier_release_is_left_alone(run: Run) -> None:
    run.storage.write(f"{TARGET}/a.parquet", b"a")
    done = Manifest(stage="assemble", label="", outputs={"data": f"{TARGET}/a.parquet"})
    before = objects(run)
    published.publish(run, done, TARGET)
    assert objects(run) == before
    assert published.committed(run, done, f"{TARGET}/a.parquet", TARGET) == f"{TARGET}/a.parquet"


def test_the_committed_object_is_read_before_it_has_its_name(run: Run) -> None:
    done = made(run)
    assert run.storage.read(published.committed(run, done, f"{TARGET}/a.parquet", TARGET)) == b"a"


def test_an_object_in_a_folder_is_read_from_there_too(run: Run) -> None:
    done = made(run, **{"data/a.parquet": b"nested"})
    key = published.committed(run, done, f"{TARGET}/data/a.parquet", TARGET)
    assert run.storage.read(key) == b"nested"
    published.publish(run, done, TARGET)
    assert fixed(run)["data/a.parquet"] == b"nested"


def test_a_published_try_may_be_deleted_and_another_may_not(run: Run) -> None:
    first, second = made(run), made(run)
    published.publish(run, first, TARGET)
    root = Path(run.storage.root.removeprefix("file://"))
    for done in (first, second):
        for path in (root / done.output(published.ATTEMPT)).iterdir():
            path.unlink()
    published.publish(run, first, TARGET)
    assert published.committed(run, first, f"{TARGET}/a.parquet", TARGET) == f"{TARGET}/a.parquet"
    with pytest.raises(InputError, match=r"was deleted before its objects .* run `aitp assemble` again"):
        published.publish(run, second, TARGET)
