"""Which files hold a version's rows, of this release and of earlier ones."""

from pathlib import Path

import pytest

from aitp_tasks.errors import InputError
from aitp_tasks.records import data_files
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.storage import open_storage

VERSION = "datasets/line/news-1"


def named(*paths: str) -> Manifest:
    return Manifest(
        stage="assemble",
        label="",
        outputs={data_files.output(path): f"{VERSION}/{path}" for path in paths}
        | {"card": f"{VERSION}/README.md"},
    )


def test_the_shards_come_in_their_order() -> None:
    paths = [data_files.shard(number, 12) for number in range(12)]
    done = named(*paths[::-1])
    assert data_files.keys(done) == [f"{VERSION}/{path}" for path in paths]
    assert (data_files.folder(done), data_files.line(done)) == (VERSION, "line")


def test_an_earlier_release_has_one_file() -> None:
    done = Manifest(stage="assemble", label="", outputs={"parquet": f"{VERSION}/data.parquet"})
    assert data_files.keys(done) == [f"{VERSION}/data.parquet"]
    assert (data_files.folder(done), data_files.line(done)) == (VERSION, "line")


@pytest.mark.parametrize(
    "paths",
    [
        ["data.parquet", "pairs.parquet", "near_duplicates.parquet", "trained/data.parquet"],
        [data_files.shard(number, 3) for number in range(3)],
        [data_files.shard(0, 1), data_files.shard(0, 2, "validation"), data_files.shard(1, 2, "validation")],
    ],
)
def test_a_version_that_stands_is_named_by_what_lies_there(tmp_path: Path, paths: list[str]) -> None:
    storage = open_storage(f"file://{tmp_path}")
    for path in [*paths, "README.md", "trained/settings.json"]:
        storage.write(f"{VERSION}/{path}", b"")
    outputs = data_files.standing(storage, VERSION)
    done = Manifest(stage="assemble", label="", outputs=outputs)
    rows = [path for path in paths if path.startswith("data") and "validation" not in path]
    assert data_files.keys(done) == [f"{VERSION}/{path}" for path in rows]


@pytest.mark.parametrize(
    "paths",
    [
        [],
        ["README.md"],
        [data_files.shard(0, 3), data_files.shard(2, 3)],
        [data_files.shard(0, 2), data_files.shard(1, 2), data_files.shard(0, 1)],
        [data_files.shard(0, 1), "data/more.parquet"],
        [data_files.shard(0, 1, "validation")],
        [data_files.shard(0, 1), data_files.shard(0, 2, "validation")],
        [data_files.shard(0, 1), data_files.shard(0, 1, "test")],
    ],
)
def test_one_that_lacks_some_or_has_more_is_refused(tmp_path: Path, paths: list[str]) -> None:
    storage = open_storage(f"file://{tmp_path}")
    for path in paths:
        storage.write(f"{VERSION}/{path}", b"")
    with pytest.raises(
        InputError, match=f"{VERSION}/data does not hold all shards of one dataset.*assemble.base"
    ):
        data_files.standing(storage, VERSION)
