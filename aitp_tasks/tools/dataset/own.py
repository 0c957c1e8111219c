"""A version's own files: which they are, and whether they are whole."""

import re
from dataclasses import dataclass

from aitp_tasks.errors import InputError
from aitp_tasks.records import data_files, evaluated, version_rows, versions
from aitp_tasks.records.versions import Version
from aitp_tasks.storage import Storage

#: What assemble writes into a version's folder for readers; all else there is no part of the dataset.
_FILES = re.compile(r"data/[^/]+\.parquet|data\.parquet|[^/.][^/]*\.json|README\.md")
#: Written there after the version was made.
_RECORDS = ("refit-due.json", evaluated.NAME)
#: The names that a version may give its files: none leads out of its folder.
_SAFE = re.compile(r"(?!.*(^|/)\.)[\w.+-]+(/[\w.+-]+)*")
VERSION = "version.json"


@dataclass(frozen=True)
class Own:
    """One of a version's own files.

    Attributes:
        path: in the version's folder.
        key: where it lies.
        size: bytes.
        sha256: None where its release has not written that down.
    """

    path: str
    key: str
    size: int
    sha256: str | None


def files(storage: Storage, line: str, version: Version) -> list[Own]:
    """All of them, the data first and ``version.json`` last.

    Raises:
        InputError: one is missing, or not as large as it was made.
    """
    prefix = f"{versions.prefix(line, version.name)}/"
    there = {info.key.removeprefix(prefix): info.size for info in storage.list(prefix)}
    for path in version.files:
        if not _SAFE.fullmatch(path):
            raise InputError(
                f"{storage.uri(prefix + VERSION)} names {path!r}, outside its folder: restore it"
            )
        size = version.files[path].bytes
        if there.get(path) != size:
            found = f"{there[path]} bytes" if path in there else "missing"
            raise InputError(
                f"{storage.uri(prefix + path)} is {found}, and was made with {size} bytes: "
                "restore it, or take another version"
            )
    data_files.standing(storage, prefix.rstrip("/"))
    known = version.files or [path for path in there if _FILES.fullmatch(path) and path not in _RECORDS]
    others = (path for path in known if path != VERSION)
    names = [*sorted(others, key=lambda path: (not path.endswith(".parquet"), path)), VERSION]
    return [
        Own(path, prefix + path, there[path], version.files[path].sha256 if path in version.files else None)
        for path in names
    ]


def require_whole(storage: Storage, line: str, version: Version) -> None:
    """Make sure that a version, and all that the next run takes from it, is there.

    Sizes and numbers of rows are compared, and not what the files hold, which an export does.

    Raises:
        InputError: something is missing, cut off or damaged.
    """
    files(storage, line, version)
    named = {*version.pairs, version.geometry.key, version.geometry.corpus_grid}
    named |= {version.corpus} if version.corpus is not None else set()
    for key in sorted(named):
        if storage.find(key) is None:
            raise InputError(
                f"{storage.uri(key)} is missing, which {version.name} needs as the base of a run: "
                "restore it, or take another version"
            )
    rows = sum(table.num_rows for table in version_rows.columns(storage, line, version.name, ["origin"]))
    if version.contents is not None and rows != version.contents.rows:
        raise InputError(
            f"{storage.uri(versions.prefix(line, version.name))} has {rows} rows, and was made with "
            f"{version.contents.rows}: restore its files, or take another version"
        )
