"""Footers: read once, kept by key and entity tag, read again when a shard changes."""

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aitp_tasks.inputs import footers
from aitp_tasks.inputs.footers import Footer
from aitp_tasks.storage import ObjectChangedError, ObjectInfo, Storage, open_storage
from aitp_tasks.storage.local import LocalStorage
from tests.aitp_tasks.conftest import write_shard

CACHE = "footers/corpus/news.parquet"


@pytest.fixture
def storage(root: Path) -> Storage:
    return open_storage(f"file://{root}")


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of all ranged reads."""
    keys: list[str] = []
    whole = LocalStorage.read_range

    def counted(self: LocalStorage, info: ObjectInfo, start: int, size: int) -> bytes:
        keys.append(info.key)
        return whole(self, info, start, size)

    monkeypatch.setattr(LocalStorage, "read_range", counted)
    return keys


def read(storage: Storage) -> list[Footer | None]:
    return footers.read(storage, "corpus", "news", list(storage.list("corpus/news/")))


def rows(storage: Storage) -> list[int | None]:
    return [footer and footer.rows for footer in read(storage)]


def schema(footer: Footer | None) -> pa.Schema:
    assert footer is not None
    return pa.ipc.read_schema(pa.py_buffer(footer.schema))


def test_a_second_reading_makes_no_request_to_a_shard(
    storage: Storage, root: Path, ranges: list[str]
) -> None:
    first = read(storage)
    assert len(ranges) == 2
    kept = (root / CACHE).stat().st_mtime_ns
    assert read(storage) == first
    assert (len(ranges), (root / CACHE).stat().st_mtime_ns) == (2, kept)


def test_only_new_and_changed_shards_are_read_again(storage: Storage, root: Path, ranges: list[str]) -> None:
    read(storage)
    ranges.clear()
    write_shard(root / "corpus/news/news-00001.parquet", [{"text": "changed"}])
    write_shard(root / "corpus/news/news-00002.parquet", [{"text": "new"}, {"text": "too"}])
    assert rows(storage) == [6, 1, 2]
    assert sorted(ranges) == ["corpus/news/news-00001.parquet", "corpus/news/news-00002.parquet"]


def test_shards_that_are_gone_are_forgotten(storage: Storage, root: Path) -> None:
    read(storage)
    (root / "corpus/news/news-00000.parquet").unlink()
    write_shard(root / "corpus/news/news-00002.parquet", [{"text": "new"}])
    read(storage)
    kept = pq.read_table(root / CACHE)
    assert kept["key"].to_pylist() == ["corpus/news/news-00001.parquet", "corpus/news/news-00002.parquet"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b""), "Parquet"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "Parquet"),
        (lambda path: write_shard(path, [{"key": "of another release"}]), "another release"),
    ],
    ids=["empty", "cut short", "other columns"],
)
def test_a_useless_cache_is_named_and_made_anew(
    storage: Storage,
    root: Path,
    ranges: list[str],
    caplog: pytest.LogCaptureFixture,
    damage: object,
    reason: str,
) -> None:
    whole = read(storage)
    ranges.clear()
    damage(root / CACHE)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert read(storage) == whole
    (line,) = (record.message for record in caplog.records)
    assert CACHE in line
    assert reason in line
    assert len(ranges) == 2
    assert read(storage) == whole
    assert len(ranges) == 2


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 broken", b"\xff\xff\xff\x7fPAR1", b"x" * 100])
def test_a_shard_without_a_footer_is_tried_again_each_time(
    storage: Storage, root: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "corpus/news/news-00001.parquet").write_bytes(content)
    for _ in range(2):
        caplog.clear()
        assert rows(storage) == [6, None]
        assert any("news-00001.parquet has no readable footer" in record.message for record in caplog.records)
    write_shard(root / "corpus/news/news-00001.parquet", [{"text": "repaired"}])
    assert rows(storage) == [6, 1]


def test_a_long_footer_is_read_in_two_ranges(storage: Storage, root: Path, ranges: list[str]) -> None:
    wide = pa.table({f"column_{number:04d}": [1] for number in range(1000)})
    write_shard(root / "corpus/news/news-00000.parquet", wide)
    found = read(storage)[0]
    assert ranges.count("corpus/news/news-00000.parquet") == 2
    assert schema(found) == wide.schema


def test_the_schema_is_the_one_that_arrow_wrote(storage: Storage, root: Path) -> None:
    kinds = {
        "text": pa.large_string(),
        "source": pa.dictionary(pa.int32(), pa.string()),
        "turns": pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())])),
    }
    path = root / "corpus/news/news-00000.parquet"
    empty = pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
    write_shard(path, empty.replace_schema_metadata({"pandas": "{}"}))
    for _ in range(2):
        footer = read(storage)[0]
        assert footer is not None
        assert footer.rows == 0
        assert schema(footer) == pq.ParquetFile(path).schema_arrow.remove_metadata()


def test_many_shards_are_read_by_several_processes(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2, 40):
        write_shard(root / f"corpus/news/news-{number:05d}.parquet", [{"text": "x"}] * number)
    (root / "corpus/news/news-00001.parquet").write_bytes(b"broken")
    monkeypatch.setattr(footers, "_MANY_SHARDS", 20)
    monkeypatch.setattr(footers, "_read_in_threads", None)
    assert rows(storage) == [6, None, *range(2, 40)]
    info = storage.stat("corpus/news/news-00002.parquet")
    changed = ObjectInfo(info.key, info.size, "another version")
    with pytest.raises(ObjectChangedError, match="news-00002.parquet changed while it was read"):
        footers.read(storage, "corpus", "other", [changed] * 20)
