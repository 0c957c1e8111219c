"""Where the rows of a dataset version lie: Parquet shards below its ``data/``, the hub's layout.

What is trained on is one split; what is handed on to validate by, where that is configured, another.

A version of an earlier release has one file, ``data.parquet``, in the version's own folder.
Which files a version has, assemble's manifest says: one output a shard.
"""

import re
from pathlib import Path

from aitp_tasks.errors import InputError
from aitp_tasks.records import published
from aitp_tasks.records.contents import Contents
from aitp_tasks.records.manifest import Manifest
from aitp_tasks.records.run import Run
from aitp_tasks.storage import Storage

#: The split that is trained on, the one that never is, and the folder of their shards.
SPLIT, VALIDATION, FOLDER = "train", "validation", "data"
_SHARD = re.compile(rf"({SPLIT}|{VALIDATION})-(\d{{5,}})-of-(\d{{5,}})\.parquet")
#: The output that an earlier release names its only file by.
_SINGLE, _SINGLE_FILE = "parquet", "data.parquet"


def shard(number: int, count: int, split: str = SPLIT) -> str:
    """Path of one of a split's so many shards in the version's folder."""
    return f"{FOLDER}/{split}-{number:05}-of-{count:05}.parquet"


def pattern(split: str) -> str:
    """What matches the paths of a split's shards, and nothing else."""
    return f"{FOLDER}/{split}-*.parquet"


def output(path: str) -> str:
    """What a manifest calls a shard."""
    return path.rpartition("/")[2].partition("-of-")[0]


def splits(contents: Contents) -> dict[str, dict[str, int]]:
    """Rows of each of a version's shards by its path, by the names of the splits that it has."""
    of_validation = {VALIDATION: contents.validation_shards} if contents.validation_shards else {}
    return {SPLIT: contents.shards, **of_validation}


def keys(done: Manifest) -> list[str]:
    """Keys of the shards that are trained on, as assemble has named them, in their order."""
    names = sorted(name for name in done.outputs if name == _SINGLE or name.startswith(f"{SPLIT}-"))
    return [done.outputs[name] for name in names]


def folder(done: Manifest) -> str:
    """Prefix of the version that assemble has named."""
    return "/".join(keys(done)[0].split("/")[:3])


def line(done: Manifest) -> str:
    """The line that the version is of."""
    return keys(done)[0].split("/")[1]


def standing(storage: Storage, version: str) -> dict[str, str]:
    """The shards that are trained on of a version that stands below a prefix, as a manifest names them.

    Raises:
        InputError: some of them were deleted.
    """
    found = {info.key.removeprefix(f"{version}/"): info.key for info in storage.list(f"{version}/")}
    if _SINGLE_FILE in found:
        return {_SINGLE: found[_SINGLE_FILE]}
    shards = {path: key for path, key in found.items() if path.startswith(f"{FOLDER}/")}
    told = [said for path in shards if (said := _SHARD.fullmatch(path.rpartition("/")[2]))]
    counts = {(said[1], int(said[3])) for said in told}
    named = {shard(number, count, split) for split, count in counts for number in range(count)}
    if (
        SPLIT not in (splits := [split for split, _ in counts])
        or len(set(splits)) < len(splits)
        or (shards.keys() != named)
    ):
        raise InputError(
            f"{storage.uri(version)}/{FOLDER} does not hold all shards of one dataset, but {sorted(shards)}: "
            "restore them, or name another version in assemble.base"
        )
    return {output(path): key for path, key in sorted(shards.items()) if output(path).startswith(f"{SPLIT}-")}


def download(run: Run, done: Manifest, target: Path) -> None:
    """Copy the shards here, as they were committed; see ``paths``.

    Args:
        run: whose manifest it is.
        done: assemble's.
        target: the folder for them; it is made.
    """
    target.mkdir()
    for number, key in enumerate(keys(done)):
        own = published.committed(run, done, key, folder(done))
        run.storage.download(own, target / f"{number:05}.parquet")


def paths(path: Path) -> list[Path]:
    """The Parquet files that hold a dataset's rows: one, or all in a folder, in the order of their names."""
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path]
